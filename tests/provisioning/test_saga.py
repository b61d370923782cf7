"""A session's saga against the in-memory backend, in virtual time."""

from collections.abc import Iterator

import pytest
import trio
import trio.testing
from sqlalchemy import update
from trio.testing import MockClock

from engram.ledger import CommitPending, LedgerError, LedgerUnavailable
from engram.ledger.inline import open_inline
from engram.provisioning import NoCapacity, NodeState, Rejected, Unavailable, Unknown, node_keys, records, saga
from engram.provisioning.fleet import END_GRACE_S, Pokes
from engram.provisioning.tables import nodes
from engram.sessions import SessionEvent, SessionState
from engram.sessions.tables import sessions
from tests.provisioning.fleets import CONTROLLER, World, replaced


@pytest.fixture
def world() -> Iterator[World]:
    ledger = open_inline()
    yield World(ledger)
    ledger.close()


async def test_a_paid_session_gets_a_node_and_its_clock_starts_when_it_is_active(
    autojump_clock: MockClock, world: World
) -> None:
    world.sell()
    await trio.sleep(100.0)
    await saga.run(world.fleet, "s")
    session = world.session()
    assert session.state is SessionState.ACTIVE
    assert session.active_at == pytest.approx(world.instants.now().wall)
    assert session.counted == world.instants.now()
    assert session.node_endpoint == "http://127.0.0.1:20000"
    assert session.node_hotkey not in (None, CONTROLLER)
    assert world.hints.moved == ["s"]
    spec = world.double.specs[session.node_token or ""]
    assert spec.ends_at == pytest.approx(world.instants.now().wall + 3600.0 + END_GRACE_S)
    assert spec.hotkey_file == str(world.fleet.keys_folder / "x")
    node = world.ledger.write_now(lambda c: records.live_node(c, "s"))
    assert node is not None
    assert node.state is NodeState.RUNNING


async def test_the_launch_is_committed_before_it_is_made(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    world.double.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saga.run, world.fleet, "s")
        await trio.testing.wait_all_tasks_blocked()  # in offers()
        gate, world.double.gate = world.double.gate, trio.Event()
        gate.set()
        await trio.testing.wait_all_tasks_blocked()  # in launch()
        node = world.ledger.write_now(lambda c: records.live_node(c, "s"))
        assert node is not None
        assert node.state is NodeState.LAUNCHING
        assert node.token in {"", node.token}
        assert not world.double.launches
        nursery.cancel_scope.cancel()  # the gateway is killed here
    world.double.gate = None
    await saga.run(world.fleet, "s")
    assert world.double.launches == [node.token]
    assert world.state() == "active"


@pytest.mark.parametrize("fault", [Unavailable("x"), Unknown("x")])
async def test_an_unknown_launch_is_looked_at_again_and_not_replaced(
    autojump_clock: MockClock, world: World, fault: Exception
) -> None:
    world.sell()
    world.double.faults["launch"] = [fault, fault]  # type: ignore[list-item]  # both are ProvisioningErrors
    await saga.run(world.fleet, "s")
    assert world.state() == "active"
    assert world.session().launch_attempts == 1
    assert len(world.double.launches) == 1


async def test_a_launch_without_room_is_tried_again_on_another_port(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    world.double.faults["launch"] = [NoCapacity("full")]
    await saga.run(world.fleet, "s")
    session = world.session()
    assert (session.state, session.launch_attempts, session.node_endpoint) == (
        "active",
        2,
        "http://127.0.0.1:20001",
    )


async def test_when_all_attempts_fail_the_session_fails_and_the_refund_is_due_once(
    autojump_clock: MockClock, world: World
) -> None:
    world.sell()
    world.double.startup_s = 1e9
    began = trio.current_time()
    await saga.run(world.fleet, "s")
    assert trio.current_time() - began < 3 * 35
    assert world.state() == "failed"
    assert world.failed == ["s"]
    assert world.double.specs == {}
    assert len(world.double.destroyed) == 3
    assert world.ledger.write_now(records.live_backends) == {}
    assert world.ledger.write_now(lambda c: node_keys.leased(c, "s")) is None
    await saga.run(world.fleet, "s")
    assert world.failed == ["s"]


async def test_a_rejected_launch_fails_at_once(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    world.double.faults["launch"] = [Rejected("never")]
    await saga.run(world.fleet, "s")
    assert world.state() == "failed"
    assert world.session().launch_attempts == 1


async def test_a_stop_while_provisioning_stays_and_the_node_dies(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    world.double.startup_s = 20.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saga.run, world.fleet, "s")
        await trio.sleep(5.0)
        assert world.double.alive
        world.happens(SessionEvent.END)
        world.fleet.pokes.poke("s")
        with trio.fail_after(0.1):
            while world.state() != "stopped":  # noqa: ASYNC110  # virtual time
                await trio.sleep(0.01)
    assert world.double.specs == {}
    assert world.states() == ["provisioning", "stopping", "stopped"]
    assert not world.failed


async def test_a_stop_is_noticed_without_a_poke(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    world.double.startup_s = 20.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saga.run, world.fleet, "s")
        await trio.sleep(5.0)
        world.happens(SessionEvent.END)
        await trio.sleep(2.0)
        assert world.state() == "stopped"


async def test_no_node_is_ended_after_the_local_deadline_of_the_lease(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another gateway may own the session by then, and serve it from that node."""
    world.sell()
    await saga.run(world.fleet, "s")
    world.happens(SessionEvent.END)
    monkeypatch.setattr(type(world.ledger), "holds", False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saga.run, world.fleet, "s")
        await trio.sleep(60.0)
        assert world.double.alive
        monkeypatch.undo()
    assert not world.double.alive
    assert world.state() == "stopped"


async def test_stopping_waits_until_the_node_is_confirmed_gone(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    await saga.run(world.fleet, "s")
    world.double.faults["destroy"] = [Unknown("?"), Unavailable("?"), Unknown("?")]
    world.happens(SessionEvent.END)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saga.run, world.fleet, "s")
        await trio.sleep(1.0)
        assert world.state() == "stopping"
    assert world.state() == "stopped"
    assert world.double.specs == {}


async def test_a_node_that_dies_before_it_is_healthy_is_replaced(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    world.double.startup_s = 10.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saga.run, world.fleet, "s")
        await trio.sleep(3.0)
        first = world.session().node_token or ""
        world.double.kill(first)
        world.fleet.pokes.poke("s")
    assert world.state() == "active"
    assert world.session().node_token != first
    assert world.double.destroyed == [first]


async def test_a_killed_node_comes_back_under_its_token_and_port(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    await saga.run(world.fleet, "s")
    before = world.session()
    world.double.kill(before.node_token or "")
    began = trio.current_time()
    await saga.run(world.fleet, "s")
    after = world.session()
    assert trio.current_time() - began < 10.0
    assert (after.node_token, after.node_endpoint) == (before.node_token, before.node_endpoint)
    assert world.states() == ["provisioning", "active", "degraded", "active"]
    assert after.active_at == before.active_at
    assert not world.double.destroyed


async def test_a_node_that_comes_back_without_what_it_stored_is_told(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    await saga.run(world.fleet, "s")
    token = world.session().node_token or ""
    world.double.kill(token)
    await saga.run(world.fleet, "s")
    assert world.session().emptied_at is None, "its memory was where it had been"
    world.double.kill(token)
    world.double.store = "elsewhere"
    await saga.run(world.fleet, "s")
    emptied_at = world.session().emptied_at
    assert emptied_at == pytest.approx(world.instants.now().wall, abs=1.0)
    world.double.kill(token)
    await saga.run(world.fleet, "s")
    assert world.session().emptied_at == emptied_at


async def test_launches_that_never_served_have_lost_nothing(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    world.double.faults["launch"] = [NoCapacity("full")]
    await saga.run(world.fleet, "s")
    assert world.session().launch_attempts == 2
    assert world.session().emptied_at is None


async def test_a_node_that_cannot_come_back_is_tried_until_it_can(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    await saga.run(world.fleet, "s")
    token = world.session().node_token or ""
    world.double.kill(token)
    world.double.faults["launch"] = [NoCapacity("x"), Rejected("x"), Unavailable("x"), Unknown("x")]
    await saga.run(world.fleet, "s")
    assert world.state() == "active"
    assert world.double.launches == [token, token]


async def test_a_running_node_that_does_not_answer_is_stopped_and_started_again(
    autojump_clock: MockClock, world: World
) -> None:
    world.sell()
    await saga.run(world.fleet, "s")
    token = world.session().node_token or ""
    world.happens(SessionEvent.DEGRADE)
    world.double.sick.add(token)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saga.run, world.fleet, "s")
        await trio.sleep(31.0)
        world.double.sick.clear()
    assert world.state() == "active"
    assert world.double.launches == [token, token]


async def test_a_healthy_active_session_is_left_alone(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    await saga.run(world.fleet, "s")
    await saga.run(world.fleet, "s")
    assert world.states() == ["provisioning", "active"]
    world.double.faults["inspect"] = [Unavailable("x")]
    await saga.run(world.fleet, "s")
    assert world.states() == ["provisioning", "active"]


async def test_a_session_that_waits_for_its_payment_or_does_not_exist_has_no_work(
    autojump_clock: MockClock, world: World
) -> None:
    world.sell(state=SessionState.PAYMENT_PENDING)
    await saga.run(world.fleet, "s")
    await saga.run(world.fleet, "nobody")
    assert not world.double.launches


@pytest.mark.parametrize("fault", [LedgerUnavailable("the server is away"), CommitPending("no answer within 30 s")])
async def test_a_ledger_that_is_away_or_slow_is_no_crash_of_a_session(
    autojump_clock: MockClock, world: World, fault: LedgerError
) -> None:
    world.sell()
    faults = [fault]

    def slow() -> None:
        if faults:
            raise faults.pop()

    world.ledger.before_commit = slow
    await saga.run(world.fleet, "s")
    assert (faults, world.session().crashes, world.state()) == ([], 0, "provisioning")
    await saga.run(world.fleet, "s")
    assert world.state() == "active"


async def test_a_crash_is_counted_and_a_success_wipes_the_count(autojump_clock: MockClock, world: World) -> None:
    world.sell()

    async def broken() -> None:
        raise ZeroDivisionError

    sick = replaced(world.fleet, new_key=broken)
    for _ in range(4):
        with pytest.raises(ZeroDivisionError):
            await saga.run(sick, "s")
    assert world.session().crashes == 4
    assert world.session().quarantined_at is None
    with pytest.raises(ZeroDivisionError):
        await saga.run(sick, "s")
    assert world.session().quarantined_at is not None
    await saga.run(world.fleet, "s")
    assert world.session().crashes == 0


async def test_without_a_free_key_the_launch_waits_for_the_operator(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    poor = replaced(world.fleet, new_key=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saga.run, poor, "s")
        await trio.sleep(5.0)
        assert world.session().launch_attempts == 0
        await world.new_key()
    assert world.state() == "active"


async def test_an_end_that_cannot_be_told_does_not_hurt(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    world.double.faults["extend"] = [Unavailable("x")]
    await saga.run(world.fleet, "s")
    assert world.state() == "active"


async def test_a_poke_before_the_sleep_is_kept_and_one_without_a_sleeper_is_lost(autojump_clock: MockClock) -> None:
    pokes = Pokes()
    pokes.poke("s")
    pokes.listen("s")
    assert not await pokes.sleep("s", 1.0)
    pokes.poke("s")
    assert await pokes.sleep("s", 1.0)
    assert not await pokes.sleep("s", 1.0)
    pokes.forget("s")


async def test_nodes_start_a_few_at_a_time_and_a_waiting_one_can_be_stopped(
    autojump_clock: MockClock, world: World
) -> None:
    few = replaced(world.fleet, turns=trio.CapacityLimiter(2))
    for number in range(6):
        world.sell(f"s{number}")
    world.double.startup_s = 10.0
    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(saga.run, few, f"s{number}")
        await trio.sleep(5.0)
        assert len(world.double.alive) == 2
        waiting = next(f"s{n}" for n in range(6) if world.session(f"s{n}").node_token not in world.double.alive)
        world.happens(SessionEvent.END, waiting)
        few.pokes.poke(waiting)
        await trio.sleep(0.1)
        assert world.state(waiting) == "stopped"
    states = [world.state(f"s{number}") for number in range(6)]
    assert sorted(states) == ["active"] * 5 + ["stopped"]
    assert few.turns.borrowed_tokens == 0


async def test_a_session_that_was_stopped_before_it_had_a_node_ends_at_once(
    autojump_clock: MockClock, world: World
) -> None:
    world.sell(state=SessionState.PAYMENT_PENDING)
    world.happens(SessionEvent.END)
    await saga.run(world.fleet, "s")
    assert world.states() == ["payment_pending", "stopping", "stopped"]
    assert not world.double.launches


async def test_a_session_that_is_over_with_a_node_left_loses_the_node(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    await saga.run(world.fleet, "s")
    world.ledger.write_now(lambda c: c.execute(update(sessions).values(state="stopped")))
    await saga.run(world.fleet, "s")
    assert world.double.specs == {}
    assert world.ledger.write_now(records.live_backends) == {}


async def test_a_node_of_another_backend_is_not_launched_here(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    await saga.run(world.fleet, "s")
    world.double.kill(world.session().node_token or "")
    world.ledger.write_now(lambda c: c.execute(update(nodes).values(backend="elsewhere")))
    with trio.move_on_after(60.0):
        await saga.run(world.fleet, "s")
    assert len(world.double.launches) == 1
    assert world.state() == "active"  # whether it runs is not known here


async def test_a_silent_node_that_runs_takes_no_turn_from_those_that_start(
    autojump_clock: MockClock, world: World
) -> None:
    few = replaced(world.fleet, turns=trio.CapacityLimiter(1))
    world.sell("silent")
    await saga.run(few, "silent")
    world.double.sick.add(world.session("silent").node_token or "")
    world.happens(SessionEvent.DEGRADE, "silent")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saga.run, few, "silent")
        await trio.sleep(1.0)
        world.sell("new")
        with trio.fail_after(5.0):
            await saga.run(few, "new")
        world.double.sick.clear()
    assert world.state("new") == world.state("silent") == "active"
