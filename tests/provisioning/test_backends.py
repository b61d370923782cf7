"""Several backends at once: each with its own places and ports, none in the way of the others."""

from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from config.model import ProvisioningSettings
from engram.ledger import open_inline
from engram.provisioning import NoCapacity, NodeSpec, OtherBackend, Rejected, Unavailable, Unknown, records, saga
from engram.provisioning.actor import stop_all
from engram.provisioning.backends import LOOK_S, RETRY_S, Backends
from engram.provisioning.fleet import Fleet
from engram.sessions import SessionEvent, TierName
from tests.fakes.nodes import InMemoryProvisioner
from tests.provisioning.fleets import World, replaced
from tests.provisioning.test_actor import running, until

DOWN = Unavailable("the engine does not answer")


class Two(World):
    """A fleet with the backends `a` and `b`."""

    def __init__(self, places: int = 2) -> None:
        self.a = InMemoryProvisioner(places, 1.0, "a", costs={TierName.LITE: 300})
        self.b = InMemoryProvisioner(places, 1.0, "b", first_port=40_000, costs={TierName.LITE: 100})
        super().__init__(open_inline(), self.a)
        self.fleet = replaced(self.make_fleet(self.a, self.b), is_healthy=self.is_healthy)

    async def is_healthy(self, endpoint: str, token: str) -> bool:
        return await self.a.is_healthy(endpoint, token) or await self.b.is_healthy(endpoint, token)

    def backend_of(self, session_id: str) -> str:
        node = self.ledger.write_now(lambda c: records.live_node(c, session_id))
        assert node is not None
        return node.backend

    def with_rule(self, rule: str) -> Fleet:
        return replaced(self.fleet, settings=ProvisioningSettings(placement=rule))  # type: ignore[arg-type]


@pytest.fixture
def two() -> Iterator[Two]:
    world = Two()
    yield world
    world.ledger.close()


def silence(double: InMemoryProvisioner, *, times: int = 1_000) -> None:
    """Every call fails as it does when nothing listens."""
    for call in ("offers", "launch", "inspect", "extend", "stop", "destroy", "list"):
        double.faults[call] = [DOWN] * times


def speak(double: InMemoryProvisioner) -> None:
    double.faults.clear()


async def test_sessions_fill_the_first_backend_and_go_on_with_the_next(autojump_clock: MockClock, two: Two) -> None:
    for word in ("s1", "s2", "s3"):
        two.sell(word)
        await saga.run(two.fleet, word)
    assert [two.backend_of(word) for word in ("s1", "s2", "s3")] == ["a", "a", "b"]
    assert two.session("s3").node_endpoint == "http://127.0.0.1:40000"
    assert (len(two.a.launches), len(two.b.launches)) == (2, 1)


async def test_ports_of_each_backend_go_round_for_themselves(autojump_clock: MockClock, two: Two) -> None:
    two.a.places = 1
    ports = []
    for word in ("s1", "s2", "s3"):
        two.sell(word)
        await saga.run(two.fleet, word)
        ports.append(str(two.session(word).node_endpoint).rpartition(":")[2])
        if word == "s2":
            two.happens(SessionEvent.END, "s1")
            await saga.run(two.fleet, "s1")
    assert ports == ["20000", "40000", "20001"]


async def test_the_cheapest_backend_is_taken_where_the_operator_wants_that(autojump_clock: MockClock, two: Two) -> None:
    fleet = two.with_rule("cheapest")
    for word in ("s1", "s2", "s3"):
        two.sell(word)
        await saga.run(fleet, word)
    assert [two.backend_of(word) for word in ("s1", "s2", "s3")] == ["b", "b", "a"]


async def test_a_backend_that_is_down_does_not_stop_the_others(autojump_clock: MockClock, two: Two) -> None:
    silence(two.a)
    two.sell()
    began = trio.current_time()
    await saga.run(two.fleet, "s")
    assert (two.state(), two.backend_of("s")) == ("active", "b")
    assert trio.current_time() - began < 2.0


async def test_a_launch_that_was_never_sent_goes_elsewhere_at_once(autojump_clock: MockClock, two: Two) -> None:
    two.sell()
    two.a.faults["launch"] = [DOWN]
    await saga.run(two.fleet, "s")
    assert (two.state(), two.backend_of("s"), two.session().launch_attempts) == ("active", "b", 1)
    assert not two.a.launches
    assert two.ledger.write_now(lambda c: records.given_up(c, "s")) == {"a": 1}


async def test_a_launch_of_unknown_outcome_stays_where_it_was_sent(autojump_clock: MockClock, two: Two) -> None:
    two.sell()
    two.a.faults["launch"] = [Unknown("sent"), DOWN, DOWN]
    await saga.run(two.fleet, "s")
    assert (two.state(), two.backend_of("s")) == ("active", "a")
    assert not two.b.launches


async def test_a_launch_planned_before_a_restart_is_not_taken_for_unsent(autojump_clock: MockClock, two: Two) -> None:
    two.sell()
    two.a.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saga.run, two.fleet, "s")
        await trio.testing.wait_all_tasks_blocked()
        gate, two.a.gate = two.a.gate, trio.Event()
        gate.set()
        await trio.testing.wait_all_tasks_blocked()  # in launch()
        assert two.backend_of("s") == "a"
        nursery.cancel_scope.cancel()  # the gateway is killed here
    two.a.gate = None
    two.a.faults["launch"] = [DOWN]
    await saga.run(two.fleet, "s")
    assert (two.state(), two.backend_of("s")) == ("active", "a")


@pytest.mark.parametrize("fault", [NoCapacity("full"), Rejected("never")])
async def test_what_one_backend_refuses_is_tried_with_the_next(
    autojump_clock: MockClock, two: Two, fault: Rejected | NoCapacity
) -> None:
    two.sell()
    two.a.faults["launch"] = [fault]
    await saga.run(two.fleet, "s")
    assert (two.state(), two.backend_of("s"), two.session().launch_attempts) == ("active", "b", 2)


async def test_nodes_that_do_not_get_well_are_tried_with_each_backend(autojump_clock: MockClock, two: Two) -> None:
    two.a.startup_s = 1e9
    two.sell()
    await saga.run(two.fleet, "s")
    assert (two.state(), two.backend_of("s")) == ("active", "b")
    assert len(two.a.destroyed) == 1


async def test_a_session_that_no_backend_takes_is_given_up_and_refunded(autojump_clock: MockClock, two: Two) -> None:
    silence(two.a)
    silence(two.b)
    two.sell()
    await saga.run(two.fleet, "s")
    assert two.state() == "failed"
    assert two.failed == ["s"]


async def test_a_stop_reaches_the_backend_that_holds_the_node(autojump_clock: MockClock, two: Two) -> None:
    silence(two.a)
    two.sell()
    await saga.run(two.fleet, "s")
    speak(two.a)
    two.happens(SessionEvent.END)
    await saga.run(two.fleet, "s")
    assert two.state() == "stopped"
    assert len(two.b.destroyed) == 1
    assert not two.a.destroyed


async def test_nodes_of_a_backend_that_is_down_are_not_taken_for_lost(autojump_clock: MockClock, two: Two) -> None:
    two.sell("s1")
    await saga.run(two.fleet, "s1")
    silence(two.a, times=100_000)
    two.sell("s2")
    async with running(two.fleet):
        await trio.sleep(60.0)
        assert (two.state("s1"), two.backend_of("s1")) == ("active", "a")
        assert (two.state("s2"), two.backend_of("s2")) == ("active", "b")
        two.b.kill(two.session("s2").node_token or "")
        await until(two, "degraded", within_s=0.5, session_id="s2")
        await until(two, "active", within_s=9.0, session_id="s2")
    assert two.states("s1") == ["provisioning", "active"]


async def test_a_backend_that_hangs_delays_no_look_at_the_others(autojump_clock: MockClock, two: Two) -> None:
    two.sell()
    silence(two.a)
    await saga.run(two.fleet, "s")
    speak(two.a)
    two.a.gate = trio.Event()  # never set
    async with running(two.fleet):
        await trio.sleep(1.0)
        two.b.specs["orphan"] = two.b.specs[two.session().node_token or ""]
        await trio.sleep(20.0)
    assert two.b.destroyed == ["orphan"]


async def test_orphans_are_destroyed_where_they_are(autojump_clock: MockClock, two: Two) -> None:
    two.sell()
    await saga.run(two.fleet, "s")
    token = two.session().node_token or ""
    spec: NodeSpec = two.a.specs[token]
    two.b.adopt(spec)  # the ledger says that this token is at `a`
    async with running(two.fleet):
        await trio.sleep(20.0)
    assert two.b.destroyed == [token]
    assert token in two.a.specs
    assert two.state() == "active"


async def test_places_are_those_of_the_backends_that_answer_and_those_that_nodes_hold(
    autojump_clock: MockClock, two: Two
) -> None:
    backends = two.fleet.backends
    await backends.look()
    assert (backends.places, backends.free("a"), backends.silent) == (4, 2, ())
    backends.note_held({"a": 1})
    silence(two.a)
    await backends.look()
    assert (backends.places, backends.free("a"), backends.free("b")) == (3, 0, 2)
    silence(two.b)
    await backends.look()
    assert (backends.places, backends.silent) == (1, ("a", "b"))


async def test_a_silent_backend_is_asked_again_after_a_while_and_never_waited_for_long(
    autojump_clock: MockClock, two: Two
) -> None:
    backends = two.fleet.backends
    two.a.gate = trio.Event()
    began = trio.current_time()
    a, b = await backends.look()
    assert (a.answers, a.reason, b.answers) == (False, "no answer within 5 s", True)
    assert trio.current_time() - began == LOOK_S
    two.a.gate = None
    assert not (await backends.look())[0].answers
    await trio.sleep(RETRY_S)
    assert (await backends.look())[0].answers


async def test_all_nodes_are_stopped_though_one_backend_does_not_answer(autojump_clock: MockClock, two: Two) -> None:
    two.a.places = 1
    for word in ("s1", "s2"):
        two.sell(word)
        await saga.run(two.fleet, word)
    silence(two.a)
    await stop_all(two.fleet.backends, two.ledger.write_now(records.own_tokens))
    assert (len(two.a.alive), len(two.b.alive)) == (1, 0)


async def test_nodes_on_machines_of_others_go_on_when_the_gateway_stops(autojump_clock: MockClock, two: Two) -> None:
    two.a.places, two.b.is_elsewhere = 1, True
    for word in ("s1", "s2"):
        two.sell(word)
        await saga.run(two.fleet, word)
    await stop_all(two.fleet.backends, two.ledger.write_now(records.own_tokens))
    assert (len(two.a.alive), len(two.b.alive)) == (0, 1)


def test_two_backends_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two backends bear one name: a, a"):
        Backends([InMemoryProvisioner(name="a"), InMemoryProvisioner(name="a")])


async def test_nodes_of_a_backend_that_is_not_configured_stop_the_start(autojump_clock: MockClock, two: Two) -> None:
    two.sell()
    await saga.run(two.fleet, "s")
    await two.ledger.read(lambda c: records.require_backends(c, ("b", "a")))
    with pytest.raises(OtherBackend, match=r"1 nodes of backend 'a' are alive and 'b' cannot end them; add 'a'"):
        await two.ledger.read(lambda c: records.require_backends(c, ("b",)))
    with pytest.raises(Unavailable, match="no backend 'c' is configured here"):
        two.fleet.backends.of("c")
