"""The poller in virtual time, and one real exchange."""

import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise

import pytest
import trio
from sqlalchemy import Connection
from trio.testing import MockClock

from actors import ChildSpec, SupervisorSpec, System, open_system
from config.model import StatsSettings
from engram.clock import TrioClock
from engram.http.client import HttpClient
from engram.http.errors import BadAnswer, HttpError, NotSent
from engram.ledger import CommitPending, LedgerError, LedgerUnavailable
from engram.ledger.inline import InlineLedger, open_inline
from engram.sessions import ClockInstants, Session, SessionEvent, SessionState, TierName, records
from engram.stats import NodeStats, RereadSessions, StatsPoller, StatsPorts, StatsView, ask_stats, rules
from engram.telemetry.metrics import Metrics
from tests.fakes.hints import RecordedHints

pytestmark = pytest.mark.rules


class World:
    def __init__(self, ledger: InlineLedger, settings: StatsSettings | None = None) -> None:
        self.ledger = ledger
        self.settings = settings or StatsSettings()
        self.clock = TrioClock()
        self.instants = ClockInstants(self.clock)
        self.view = StatsView(self.clock)
        self.asked: list[tuple[float, str]] = []
        self.silent: set[str] = set()
        self.slow_s = 0.0
        self.at_once = 0
        self.most_at_once = 0
        self.hints = RecordedHints()
        self.metrics = Metrics()
        self.challenged: list[float] = []
        self.verdicts: list[bool | None] = [True]

    async def ask(self, endpoint: str) -> NodeStats:
        self.asked.append((trio.current_time(), endpoint))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await trio.sleep(self.slow_s)
        finally:
            self.at_once -= 1
        if endpoint in self.silent:
            raise NotSent("refused")
        return NodeStats(vectors=len(self.asked))

    def runs(self, session_id: str, state: SessionState = SessionState.ACTIVE) -> None:
        session = Session(
            id=session_id,
            controller=b"\1" * 32,
            state=state,
            tier=TierName.LITE,
            paid_s=1e6,
            amount_usd_micros=1,
            network="n",
            payment_id="p",
            created_at=0.0,
            counted=self.instants.now(),
            node_endpoint=f"http://{session_id}",
            node_hotkey=b"\2" * 32,
        )
        self.ledger.write_now(partial(_insert, session=session))

    def state(self, session_id: str) -> str:
        session = self.ledger.write_now(lambda c: records.get(c, session_id))
        assert session is not None
        return str(session.state)

    def poller(self) -> StatsPoller:
        return StatsPoller(self.ports())

    def ports(self) -> StatsPorts:
        return StatsPorts(
            ledger=self.ledger,
            ask=self.ask,
            view=self.view,
            instants=self.instants,
            settings=self.settings,
            rng=random.Random(1),
            hints=self.hints,
            metrics=self.metrics,
            prove=self.prove,
            block=lambda: 4_711,
        )

    async def prove(self, endpoint: str, hotkey: bytes, records: int) -> bool | None:
        assert (hotkey, records > 0) == (b"\2" * 32, True)
        self.challenged.append(trio.current_time())
        return self.verdicts[(len(self.challenged) - 1) % len(self.verdicts)]


def _insert(connection: Connection, session: Session) -> None:
    records.insert_session(connection, session)


@pytest.fixture
def ledger() -> Iterator[InlineLedger]:
    ledger = open_inline()
    yield ledger
    ledger.close()


@asynccontextmanager
async def running(world: World) -> AsyncIterator[System]:
    spec = SupervisorSpec("root", [ChildSpec("stats_poller", world.poller, name="stats_poller")])
    async with open_system(spec, rng=random.Random(1)) as system:
        yield system


async def test_each_running_node_is_polled_every_interval(autojump_clock: MockClock, ledger: InlineLedger) -> None:
    world = World(ledger)
    for number in range(20):
        world.runs(f"s{number}")
    world.runs("stopped", SessionState.STOPPED)
    world.runs("new", SessionState.PROVISIONING)
    async with running(world):
        await trio.sleep(600.0)
    assert {endpoint for _, endpoint in world.asked} == {f"http://s{n}" for n in range(20)}
    for number in range(20):
        times = [at for at, endpoint in world.asked if endpoint == f"http://s{number}"]
        gaps = [after - before for before, after in pairwise(times)]
        assert times[0] <= 30.1
        assert all(23.9 <= gap <= 36.2 for gap in gaps)
        assert max(gaps) - min(gaps) > 1.0
    assert set(world.hints.observed) == {f"s{n}" for n in range(20)}


async def test_answers_are_kept_with_their_age(autojump_clock: MockClock, ledger: InlineLedger) -> None:
    world = World(ledger)
    assert world.view.get("s") is None
    async with running(world) as system:
        world.runs("s")
        system.registry.ref(StatsPoller, "stats_poller").tell(RereadSessions())
        await trio.sleep(2.0)
        found = world.view.get("s")
        assert found is not None
        assert found[0].vectors == 1
        assert 0.9 <= found[1] <= 2.1
        assert [session_id for session_id, _ in world.view.items()] == ["s"]
        kept = world.view.sample("s")
        assert kept is not None
        assert kept.stats == found[0]
        world.ledger.write_now(lambda c: records.transition(c, "s", SessionEvent.END, world.instants.now()))
        await trio.sleep(15.0)
        assert world.view.get("s") is None
        assert len(world.view) == 0
        asked = len(world.asked)
        await trio.sleep(120.0)
        assert len(world.asked) == asked


async def test_five_failures_in_a_row_degrade_and_one_answer_recovers(
    autojump_clock: MockClock, ledger: InlineLedger
) -> None:
    world = World(ledger)
    world.runs("s")
    world.silent.add("http://s")
    async with running(world):
        while len(world.asked) < 4:  # noqa: ASYNC110  # virtual time
            await trio.sleep(1.0)
        assert world.state("s") == "active"
        while len(world.asked) < 5:  # noqa: ASYNC110  # virtual time
            await trio.sleep(1.0)
        assert world.state("s") == "degraded"
        assert world.metrics.registry.get_sample_value("engram_polls_total", {"outcome": "failed"}) == 5
        assert world.hints.turned == ["s"]
        assert world.hints.changed == ["s"]
        while len(world.asked) < 10:  # noqa: ASYNC110  # virtual time
            await trio.sleep(1.0)
        await trio.sleep(1.0)
        assert world.hints.changed == ["s", "s"]
        world.silent.clear()
        await trio.sleep(40.0)
        assert world.state("s") == "active"
        assert world.hints.turned == ["s", "s"]


async def test_no_more_polls_run_at_once_than_the_setting(autojump_clock: MockClock, ledger: InlineLedger) -> None:
    world = World(ledger, StatsSettings(concurrency=5))
    world.slow_s = 4.0
    for number in range(60):
        world.runs(f"s{number}")
    async with running(world):
        await trio.sleep(120.0)
    assert world.most_at_once == 5


async def test_a_node_that_moves_is_asked_at_its_new_address(autojump_clock: MockClock, ledger: InlineLedger) -> None:
    world = World(ledger)
    world.runs("s")
    async with running(world):
        await trio.sleep(31.0)
        world.ledger.write_now(lambda c: records.set_node(c, "s", "t", "http://moved", None))
        await trio.sleep(50.0)
    assert world.asked[-1][1] == "http://moved"


@pytest.mark.parametrize("fault", [LedgerUnavailable("full"), CommitPending("no answer within 30 s")])
async def test_a_ledger_that_fails_does_not_stop_the_polls(
    autojump_clock: MockClock, ledger: InlineLedger, monkeypatch: pytest.MonkeyPatch, fault: LedgerError
) -> None:
    world = World(ledger)
    world.runs("s")
    world.silent.add("http://s")

    def full() -> None:
        raise fault

    async with running(world) as system:
        await trio.sleep(1.0)
        ledger.before_commit = full
        monkeypatch.setattr(ledger, "read", _failing)
        await trio.sleep(200.0)
        ledger.before_commit = None
        monkeypatch.undo()
        world.silent.clear()
        await trio.sleep(60.0)
        assert [node.restarts for node in system.tree()] == [0, 0]
    assert world.state("s") == "active"
    assert world.hints.observed


async def _failing(query: object) -> None:
    raise LedgerUnavailable("gone")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"status": "ok", "vectors": 3, "p50_latency_ms": 1.5, "unknown": 1}),
        (503, {"status": "ok"}),
        (200, {"vectors": "many"}),
        (200, "x" * 100_000),
        (200, "\xff"),
    ],
)
async def test_a_node_is_asked_over_http(status: int, body: object) -> None:
    content = body.encode("latin-1") if isinstance(body, str) else json.dumps(body).encode()
    requests: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        requests.append(await stream.receive_some(4096))
        answer = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(content), content)
        try:
            await stream.send_all(answer)
        except trio.BrokenResourceError:
            return
        await stream.aclose()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    http = HttpClient()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        endpoint = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        if status == 200 and isinstance(body, dict) and body["vectors"] == 3:
            stats = await ask_stats(http, endpoint, StatsSettings())
            assert (stats.vectors, stats.p50_latency_ms, stats.uid) == (3, 1.5, None)
        else:
            with pytest.raises(HttpError):
                await ask_stats(http, endpoint, StatsSettings())
        nursery.cancel_scope.cancel()
    assert requests[0].startswith(b"GET /stats HTTP/1.1")
    await http.aclose()
    assert issubclass(BadAnswer, HttpError)


async def test_a_hint_that_a_session_became_active_gets_it_polled_within_seconds(
    autojump_clock: MockClock, ledger: InlineLedger
) -> None:
    world = World(ledger)
    async with running(world):
        await trio.sleep(0.5)
        world.runs("new")
        world.view.outdate()
        await trio.sleep(1.5)
        assert world.hints.observed == ["new"]


async def test_a_node_is_challenged_with_every_tenth_poll_and_its_rate_is_ours(
    autojump_clock: MockClock, ledger: InlineLedger
) -> None:
    world = World(ledger)
    world.verdicts = [True, None, False, True]
    world.runs("s")
    async with running(world):
        await trio.sleep(30.0 * rules.PROVE_EVERY * 4.5)
    assert len(world.challenged) in (4, 5)
    assert all(240 <= after - before <= 365 for before, after in pairwise(world.challenged))
    found = world.view.get("s")
    assert found is not None
    assert found[0].proof_rate in (0.666667, 0.75)
    assert found[0].block == 4_711


async def test_a_challenge_whose_outcome_is_not_known_leaves_the_nodes_own_word(
    autojump_clock: MockClock, ledger: InlineLedger
) -> None:
    world = World(ledger)
    world.verdicts = [None]
    world.runs("s")
    async with running(world):
        await trio.sleep(60.0)
    found = world.view.get("s")
    assert found is not None
    assert (len(world.challenged), found[0].proof_rate) == (1, None)
