"""The announcer in virtual time, against a chain that lives: blocks come every 12 s, a syncer follows them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from structlog.testing import capture_logs

from actors import Backoff, ChildSpec, Intensity, SupervisorSpec, open_system
from config.model import ChainSettings
from engram.chain import Subnets
from engram.chain.errors import AnswerMalformed, CallRefused, EndpointBusy, EndpointUnreachable
from engram.chain.read.node import ChainEndpoint, Json, RpcCall
from engram.chain.registry.announce_rules import AnnounceVerdict, Attempt, ServingAddress
from engram.chain.registry.announce_view import Announcements
from engram.chain.registry.announcer import Announcer
from engram.chain.submit.submit_extrinsic import InclusionWait
from engram.chain.sync.actor import MetagraphSyncer
from engram.clock import TrioClock
from engram.hotkeys import Keypair
from tests.chain.test_announcement import HERE
from tests.crashes import may_crash
from tests.fakes.chain import ChainDouble, rehotkeyed, unreachable
from tests.fakes.living_chain import LivingChain

MINER = Keypair.from_uri("//sn450//hot//7")
SIX = ServingAddress("2001:db8::1", 8091)
BLOCK_S = 12
SUBMIT = "author_submitExtrinsic"
Clock = trio.testing.MockClock


class MemoryJournal:
    """What a file would hold; `broken` fails as a full disk does."""

    def __init__(self, attempt: Attempt | None = None) -> None:
        self.attempt = attempt
        self.broken = False
        self.kept: list[Attempt | None] = []

    async def load(self) -> Attempt | None:
        return self.attempt

    async def keep(self, attempt: Attempt | None) -> None:
        if self.broken:
            raise OSError(28, "No space left on device")
        self.attempt = attempt
        self.kept.append(attempt)


class Failing(LivingChain):
    """Fails in the asking of what `failing` names, before or after the rest of it was done."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: dict[str, Exception] = {}

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        for call in calls:
            if call.method in self.failing:
                raise self.failing[call.method]
        return await super().ask(calls)


class Other:
    """A second endpoint of the same chain."""

    name = "other"

    def __init__(self, chain: LivingChain) -> None:
        self._chain = chain

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        return await self._chain.ask(calls)


class Living:
    """A chain, and a node's tree on it."""

    def __init__(self, **storage: object) -> None:
        self.chain = Failing()
        self.chain.seal_at_look = False
        for item, value in storage.items():
            self.chain.put(value, "SubtensorModule", item, 450)
        self.journal = MemoryJournal()
        self.nodes: tuple[ChainEndpoint, ...] = (self.chain,)
        self.followed: ChainEndpoint | None = None
        """What the syncer follows, where it is not the chain."""
        self.outcomes: list[str] = []
        self.waiting = InclusionWait()
        self.told: Callable[[str], None] = self.outcomes.append
        self.announcements: Announcements

    @property
    def sent(self) -> int:
        return self.chain.asked.count(SUBMIT)

    @property
    def verdict(self) -> AnnounceVerdict:
        return self.announcements.status().verdict

    def held(self) -> tuple[int, int, int] | None:
        axon = self.chain.get("SubtensorModule", "Axons", 450, MINER.public_key)
        return None if axon is None else (axon["ip"], axon["port"], axon["ip_type"])

    @asynccontextmanager
    async def announcing(
        self, wanted: ServingAddress = HERE, *, until: AnnounceVerdict | None = None, settled: bool = False
    ) -> AsyncIterator[None]:
        settings, clock = ChainSettings(), TrioClock()
        subnets = Subnets(clock, settings.netuids, settings.stall_after_s)
        self.announcements = Announcements(subnets, 450, MINER.public_key, wanted, clock)
        followed = self.nodes if self.followed is None else (self.followed,)
        children = [
            ChildSpec("chain", lambda: MetagraphSyncer(followed, subnets, settings, clock, Random(7))),
            ChildSpec(
                "announcer",
                self._announcer,
                backoff=Backoff(1.0, 60.0),
                intensity=Intensity(1_000_000, 1.0),
                on_exceed="disable",
            ),
        ]
        async with open_system(SupervisorSpec("root", children)), trio.open_nursery() as nursery:
            nursery.start_soon(self._live)
            if until is not None:
                await self.until(lambda: self.verdict is until)
            if settled:
                await self.announced()
            yield
            nursery.cancel_scope.cancel()

    def _announcer(self) -> Announcer:
        return Announcer(
            self.announcements,
            self.nodes,
            MINER,
            self.journal,
            waiting=self.waiting,
            on_outcome=lambda outcome: self.told(outcome),
        )

    async def _live(self) -> None:
        while True:
            await trio.sleep(BLOCK_S)
            self.chain.seal()

    async def until(self, holds: Callable[[], bool], blocks: int = 200) -> None:
        """Lets virtual time pass, second by second."""
        for _ in range(blocks * BLOCK_S):
            if holds():
                return
            await trio.sleep(1)
        raise AssertionError(self.announcements.status())

    async def announced(self) -> None:
        """The chain says so, and the announcer knows what became of the one it sent."""

        def settled() -> bool:
            attempt = self.announcements.state.attempt
            known = attempt is None or attempt.included_at_block is not None
            return self.verdict is AnnounceVerdict.ANNOUNCED and known and not self.announcements.state.why

        await self.until(settled)
        await self.blocks(2)

    async def blocks(self, count: int) -> None:
        await trio.sleep(count * BLOCK_S)


@pytest.mark.parametrize(("place", "axon"), [(HERE, (0xCB007105, 8091, 4)), (SIX, ((0x20010DB8 << 96) + 1, 8091, 6))])
async def test_a_node_announces_itself_once(
    place: ServingAddress, axon: tuple[int, int, int], autojump_clock: Clock
) -> None:
    living = Living()
    async with living.announcing(place, settled=True):
        assert living.held() == axon
        await living.blocks(70)
        assert (living.sent, living.outcomes) == (1, ["included"])
        status = living.announcements.status()
        assert status.on_chain == status.wanted == place.text
        assert (status.error, status.failures) == ("", 0)
        assert status.included_at_block in living.chain.blocks


async def test_what_the_chain_says_already_is_not_sent_again_by_a_new_process(autojump_clock: Clock) -> None:
    living = Living()
    async with living.announcing(settled=True):
        pass
    async with living.announcing(settled=True):
        await living.blocks(5)
    assert living.sent == 1


async def test_another_address_or_port_is_announced_when_the_serving_limit_allows_it(autojump_clock: Clock) -> None:
    living = Living(ServingRateLimit=50)
    async with living.announcing(settled=True):
        axon = living.chain.get("SubtensorModule", "Axons", 450, MINER.public_key)
    first = axon["block"]
    async with living.announcing(ServingAddress(HERE.ip, 9000), until=AnnounceVerdict.RATE_LIMITED):
        assert living.announcements.status().until_block == first + 50
        await living.until(lambda: living.chain.head >= first + 49)
        assert living.sent == 1
        await living.announced()
        assert living.held() == (0xCB007105, 9000, 4)
    async with living.announcing(SIX, settled=True):
        assert living.held() == ((0x20010DB8 << 96) + 1, 8091, 6)


async def test_it_waits_until_its_hotkey_is_registered(autojump_clock: Clock) -> None:
    living = Living()
    living.chain.metagraphs["0xc201"] = rehotkeyed(MINER.public_key, bytes(range(32)))
    async with living.announcing(until=AnnounceVerdict.UNREGISTERED):
        await living.blocks(10)
        assert living.sent == 0
        living.chain.metagraphs["0xc201"] = lambda scale: scale
        await living.announced()
        assert living.sent == 1


async def test_one_of_unknown_outcome_is_waited_for_to_its_last_block_and_only_then_sent_again(
    autojump_clock: Clock,
) -> None:
    living = Living()
    living.chain.drop_submissions = True
    async with living.announcing(until=AnnounceVerdict.IN_FLIGHT):
        expires = living.announcements.status().expires_at_block
        assert expires is not None
        await living.until(lambda: living.outcomes == ["unknown"])
        assert "check before sending again" in living.announcements.status().error
        assert living.journal.attempt is not None
        living.chain.drop_submissions = False
        await living.until(lambda: living.chain.head > expires - 1)
        assert living.sent == 1
        await living.announced()
        assert (living.sent, living.journal.kept[-1]) == (2, None)


async def test_one_that_came_after_all_is_not_sent_again(autojump_clock: Clock) -> None:
    living = Living()
    living.chain.include = False
    async with living.announcing(until=AnnounceVerdict.IN_FLIGHT):
        await living.until(lambda: living.outcomes == ["unknown"])
        living.chain.include = True
        await living.announced()
        await living.blocks(5)
        assert living.sent == 1


async def test_a_process_that_was_killed_leaves_no_second_one_in_flight(autojump_clock: Clock) -> None:
    living = Living()
    living.chain.include = False
    async with living.announcing(until=AnnounceVerdict.IN_FLIGHT):
        await living.until(lambda: living.sent == 1)
        noted = living.journal.attempt
    assert noted is not None
    assert living.journal.attempt == noted
    async with living.announcing(ServingAddress(HERE.ip, 9000), until=AnnounceVerdict.IN_FLIGHT):
        await living.until(lambda: living.chain.head >= noted.expires_at_block)
        assert living.sent == 1
        living.chain.include = True
        await living.announced()
        assert living.held() == (0xCB007105, 9000, 4)
        assert living.sent == 2


async def test_a_refusal_is_told_by_its_name_and_tried_again_later(autojump_clock: Clock) -> None:
    living = Living()
    living.chain.refuse[SUBMIT] = CallRefused(1010, "Invalid Transaction: Custom error: 12")
    with capture_logs() as logs:
        async with living.announcing(until=AnnounceVerdict.SET_ASIDE):
            status = living.announcements.status()
            assert status.error.startswith("ServingRateLimitExceeded: ")
            assert (status.failures, status.expires_at_block, living.journal.attempt) == (1, None, None)
            assert 280 <= status.retry_in_s <= 300
            del living.chain.refuse[SUBMIT]
            await living.announced()
            assert living.outcomes == ["refused", "included"]
            assert living.announcements.status().failures == 0
    told = [line for line in logs if line["event"] == "announcement_failed"]
    assert [line["reason"].partition(":")[0] for line in told] == ["ServingRateLimitExceeded"]
    assert MINER.private_key().hex() not in str(logs)


async def test_a_refusal_inside_the_block_is_told_by_its_name(autojump_clock: Clock) -> None:
    living = Living()
    # The metagraph knows the hotkey and the storage does not: the block alone refuses.
    key = living.chain._key("SubtensorModule", "Uids", 450, MINER.public_key)
    living.chain.states[living.chain.head][key] = None
    async with living.announcing(until=AnnounceVerdict.SET_ASIDE):
        assert "NotRegistered" in living.announcements.status().error
        assert living.outcomes == ["refused"]


async def test_an_announcement_that_was_reorganised_away_is_sent_again(autojump_clock: Clock) -> None:
    living = Living()
    living.nodes = (living.chain, Other(living.chain))
    async with living.announcing(settled=True):
        await living.blocks(3)
        block = living.announcements.status().included_at_block
        assert block is not None
        living.chain.reorganise(block)
        living.chain.pool.clear()
        await living.until(lambda: living.verdict is AnnounceVerdict.IN_FLIGHT)
        assert living.sent == 1
        await living.announced()
        assert living.sent == 2


async def test_a_runtime_upgrade_while_one_is_in_flight_drops_it_and_the_next_is_composed_for_the_new_runtime(
    autojump_clock: Clock,
) -> None:
    living = Living()
    living.chain.include = False
    async with living.announcing(until=AnnounceVerdict.IN_FLIGHT):
        await living.until(lambda: living.sent == 1)
        living.chain.upgrade(294)
        living.chain.include = True
        await living.announced()
        assert living.sent == 2
    assert living.outcomes == ["unknown", "included"]


async def test_endpoints_that_cannot_be_asked_send_nothing_and_are_asked_again(autojump_clock: Clock) -> None:
    living = Living()
    async with living.announcing(settled=True):
        pass
    async with living.announcing(SIX, until=AnnounceVerdict.DUE):
        living.chain.down = EndpointBusy("double: HTTP 429", 100.0)
        await living.until(lambda: living.verdict is AnnounceVerdict.SET_ASIDE)
        assert living.announcements.status().retry_in_s > 80
        assert living.sent == 1
        living.chain.down = unreachable()
        await living.until(lambda: living.outcomes[1:] == ["unsent", "unsent"])
        living.chain.down = None
        await living.announced()


@pytest.mark.parametrize(
    ("method", "error", "outcome"),
    [
        (SUBMIT, EndpointUnreachable("not connected", may_have_arrived=False), "unsent"),
        (SUBMIT, EndpointBusy("HTTP 429", 60.0), "unsent"),
        ("system_accountNextIndex", unreachable(), "unsent"),
        ("system_accountNextIndex", AnswerMalformed("no number"), "unsent"),
        (SUBMIT, unreachable(), "unknown"),
        (SUBMIT, EndpointBusy("HTTP 503", may_have_arrived=True), "unknown"),
    ],
)
async def test_only_what_may_have_arrived_counts_as_sent(
    method: str, error: Exception, outcome: str, autojump_clock: Clock
) -> None:
    living = Living()
    living.chain.failing[method] = error
    async with living.announcing():
        await living.until(lambda: len(living.outcomes) == 1)
        assert living.outcomes == [outcome]
        in_flight = outcome == "unknown"
        assert living.verdict is (AnnounceVerdict.IN_FLIGHT if in_flight else AnnounceVerdict.SET_ASIDE)
        assert (living.journal.attempt is not None) is in_flight


async def test_one_that_was_never_included_is_told_so_and_the_next_is_sent(autojump_clock: Clock) -> None:
    living = Living()
    living.waiting = InclusionWait(patience_s=100 * BLOCK_S)
    living.chain.drop_submissions = True
    async with living.announcing():
        await living.until(lambda: living.outcomes == ["never"])
        assert "is in none of the blocks" in living.announcements.status().error
        living.chain.drop_submissions = False
        await living.announced()
        assert living.sent == 2


async def test_a_note_that_cannot_be_taken_back_hurts_nothing(autojump_clock: Clock) -> None:
    living = Living()
    async with living.announcing():
        await living.until(lambda: living.sent == 1)
        living.journal.broken = True
        await living.announced()
        assert living.outcomes == ["included"]


async def test_nothing_is_sent_that_could_not_be_noted_before(autojump_clock: Clock) -> None:
    living = Living()
    living.journal.broken = True
    async with living.announcing(until=AnnounceVerdict.SET_ASIDE):
        assert "No space left" in living.announcements.status().error
        assert living.sent == 0
        living.journal.broken = False
        await living.announced()


async def test_the_newest_block_is_looked_at_before_anything_is_sent(autojump_clock: Clock) -> None:
    living = Living()
    async with living.announcing(settled=True):
        pass
    living.followed = ChainDouble("lagging")
    async with living.announcing(until=AnnounceVerdict.SET_ASIDE):
        assert living.announcements.status().error.endswith("newer than what was synced, says: announced")
    assert living.sent == 1


async def test_a_stop_does_not_wait_for_a_block(autojump_clock: Clock) -> None:
    living = Living()
    living.chain.include = False
    async with living.announcing():
        await living.until(lambda: living.sent == 1)
        at = trio.current_time()
    assert trio.current_time() - at < 1
    assert living.journal.attempt is not None


@may_crash(RuntimeError)
async def test_a_crash_of_the_announcer_forgets_nothing_that_is_in_flight(autojump_clock: Clock) -> None:
    living = Living()
    living.chain.include = False
    async with living.announcing(until=AnnounceVerdict.IN_FLIGHT):
        await living.until(lambda: living.outcomes == ["unknown"])

        def crash(outcome: str) -> None:
            raise RuntimeError("a bug")

        living.told = crash
        living.chain.pool.clear()
        await living.until(lambda: living.sent == 2)
        living.journal.attempt = None
        await living.blocks(30)
        assert (living.sent, living.verdict) == (2, AnnounceVerdict.IN_FLIGHT)
        living.chain.include = True
        await living.announced()
        assert living.sent == 2
