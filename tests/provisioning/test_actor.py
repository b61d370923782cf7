"""The fleet's actors on the in-memory backend, in virtual time."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from sqlalchemy import Connection, update
from trio.testing import MockClock

from actors import Registry, System, open_system
from engram.ledger import CommitPending, LedgerError, LedgerUnavailable
from engram.ledger.inline import open_inline
from engram.provisioning import NodeSpec, Unavailable, actor, records
from engram.provisioning.actor import PROVISIONER, Provisioner
from engram.provisioning.fleet import Fleet
from engram.provisioning.protocol import NodeExited, SessionChanged
from engram.sessions import EndReason, SessionEvent, SessionState, TierName, counts
from engram.sessions import records as session_records
from engram.sessions import rules as session_rules
from engram.sessions.tables import sessions
from tests.crashes import may_crash
from tests.provisioning.fleets import World, fleet_branch, replaced


@pytest.fixture
def world() -> Iterator[World]:
    ledger = open_inline()
    yield World(ledger)
    ledger.close()


LOST_S = 120.0
"""What costs in virtual time are the looks of the fleet: an hour has thousands of them."""


def patient(world: World) -> Fleet:
    """The fleet, which gives up a session that has had no node for LOST_S."""
    return replaced(world.fleet, settings=msgspec.structs.replace(world.fleet.settings, lost_after_s=LOST_S))


@asynccontextmanager
async def running(fleet: Fleet) -> AsyncIterator[System]:
    async with open_system(fleet_branch(fleet), registry=fleet.registry, rng=random.Random(1)) as system:
        yield system


async def until(world: World, state: str, session_id: str = "s", within_s: float = 60.0) -> None:
    pause_s = 0.05
    with trio.fail_after(within_s):
        while world.state(session_id) != state:  # virtual time: what costs is how often it is looked at
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 1.1, 1.0)


async def test_a_hint_brings_a_paid_session_its_node_at_once(autojump_clock: MockClock, world: World) -> None:
    async with running(world.fleet) as system:
        await trio.sleep(0.5)
        world.sell()
        assert system.registry.ref(Provisioner, PROVISIONER).hint(SessionChanged("s"))
        await until(world, "active", within_s=2.5)


async def test_a_lost_hint_is_found_by_the_sweep(autojump_clock: MockClock, world: World) -> None:
    async with running(world.fleet):
        await trio.sleep(0.5)
        world.sell()
        await until(world, "active", within_s=5.0)


def test_a_hint_to_a_fleet_that_is_down_is_lost_and_raises_nothing(world: World) -> None:
    assert not Registry().ref(Provisioner, PROVISIONER).hint(SessionChanged("s"))


async def test_a_killed_node_is_back_within_ten_seconds(autojump_clock: MockClock, world: World) -> None:
    async with running(world.fleet):
        world.sell()
        await until(world, "active")
        token = world.session().node_token or ""
        world.double.kill(token)
        await until(world, "degraded", within_s=0.5)
        await until(world, "active", within_s=9.0)
        assert world.double.launches == [token, token]


async def test_a_session_whose_node_cannot_be_replaced_ends_as_lost(autojump_clock: MockClock, world: World) -> None:
    async with running(patient(world)):
        world.sell(paid_s=24 * 3600.0)
        await until(world, "active")
        world.double.faults["launch"] = [Unavailable("no machine") for _ in range(10_000)]
        world.double.kill(world.session().node_token or "")
        await until(world, "degraded", within_s=2.0)
        await trio.sleep(LOST_S - 5.0)
        assert world.state() == "degraded"
        await until(world, "failed", within_s=60.0)
    ended = world.session()
    assert (ended.end_reason, world.failed) == (EndReason.NODE_LOST, ["s"])
    assert 23 * 3600.0 < ended.paid_s - ended.used_s < 24 * 3600.0


async def test_a_session_that_gets_a_node_again_is_not_lost(autojump_clock: MockClock, world: World) -> None:
    async with running(patient(world)):
        world.sell(paid_s=24 * 3600.0)
        await until(world, "active")
        without_s = 0.0
        for _ in range(3):
            world.double.faults["launch"] = [Unavailable("no machine") for _ in range(10)]
            world.double.kill(world.session().node_token or "")
            await until(world, "degraded", within_s=2.0)
            without_s -= trio.current_time()
            await until(world, "active", within_s=LOST_S)
            without_s += trio.current_time()
        assert without_s > LOST_S, "in all it had none for longer than a session may have none"
        await trio.sleep(2 * LOST_S)
        assert world.state() == "active"


async def test_a_node_whose_death_nobody_told_of_is_found(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    async with running(world.fleet):
        await until(world, "active")
    world.double.kill(world.session().node_token or "")
    async with running(world.fleet):
        await until(world, "degraded", within_s=2.0)
        await until(world, "active", within_s=9.0)


async def test_what_runs_at_boot_is_left_alone(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    async with running(world.fleet):
        await until(world, "active")
    async with running(world.fleet):
        await trio.sleep(60.0)
    assert world.states() == ["provisioning", "active"]
    assert len(world.double.launches) == 1


async def test_orphans_of_this_ledger_are_destroyed(autojump_clock: MockClock, world: World) -> None:
    orphan = NodeSpec(
        token="orphan",
        session_id="x",
        tier=session_rules.tiers(0.1)[TierName.LITE],
        controller=b"",
        hotkey=b"",
        hotkey_file="",
        port=1,
        ends_at=0.0,
    )
    world.double.adopt(orphan)
    world.double.faults["destroy"] = [Unavailable("not now")]
    async with running(world.fleet):
        value = world.fleet.metrics.registry.get_sample_value
        orphans = {"backend": world.double.name}
        while value("engram_nodes_orphaned", orphans) is None:  # noqa: ASYNC110  # virtual time
            await trio.sleep(1.0)
        assert value("engram_nodes_orphaned", orphans) == 1
        await trio.sleep(40.0)
        assert value("engram_nodes_orphaned", orphans) == 0
    assert world.double.destroyed == ["orphan"]


async def test_what_has_run_out_is_stopped_and_its_node_destroyed(autojump_clock: MockClock, world: World) -> None:
    world.sell(paid_s=300.0)
    async with running(world.fleet):
        await until(world, "active")
        await trio.sleep(295.0)
        assert world.state() == "active"
        await trio.sleep(20.0)
        assert world.state() == "expired"
    assert world.session().end_reason is EndReason.EXPIRED
    assert world.double.specs == {}


async def test_an_extension_that_is_being_paid_for_pauses_expiry(autojump_clock: MockClock, world: World) -> None:
    world.sell(paid_s=300.0)
    async with running(world.fleet):
        await until(world, "active")
        world.ledger.write_now(lambda c: session_records.hold_extension(c, "s"))
        await trio.sleep(380.0)
        assert world.state() == "active"
        world.ledger.write_now(lambda c: session_records.add_seconds(c, "s", 300.0, 1, 0.0))
        world.ledger.write_now(lambda c: session_records.release_extension(c, "s"))
        await trio.sleep(120.0)
        assert world.state() == "active"
        await trio.sleep(200.0)
        assert world.state() == "expired"


async def test_counts_that_other_hands_made_wrong_are_corrected_at_start(
    autojump_clock: MockClock, world: World
) -> None:
    world.sell()
    world.ledger.write_now(lambda c: c.exec_driver_sql("UPDATE session_counts SET sessions = 7"))
    async with running(world.fleet):
        await until(world, "active")
    assert world.ledger.write_now(counts.by_state) == {SessionState.ACTIVE: 1}


async def test_used_time_is_written_down_every_minute(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    async with running(world.fleet):
        await until(world, "active")
        await trio.sleep(300.0)
    assert 200.0 < world.session().used_s < 300.0


@may_crash(ZeroDivisionError)
async def test_a_session_whose_work_crashes_is_quarantined_and_hurts_nobody_else(
    autojump_clock: MockClock, world: World
) -> None:
    world.sell("bad")
    inner = world.fleet.is_healthy

    async def is_healthy(endpoint: str, token: str) -> bool:
        if world.session("bad").node_token == token:
            raise ZeroDivisionError
        return await inner(endpoint, token)

    async with running(replaced(world.fleet, is_healthy=is_healthy)) as system:
        await trio.sleep(1.0)
        world.sell("good")
        await until(world, "active", "good")
        await trio.sleep(120.0)
        bad = world.session("bad")
        assert bad.quarantined_at is not None
        assert bad.crashes == 5
        assert bad.state is SessionState.PROVISIONING
        assert {node.state for node in system.tree()} <= {"running", "starting"}
    assert world.ledger.write_now(records.open_work) == []


@pytest.mark.parametrize("fault", [LedgerUnavailable("the disk is full"), CommitPending("no answer within 30 s")])
async def test_a_ledger_that_fails_for_a_while_stops_nothing(
    autojump_clock: MockClock, world: World, fault: LedgerError
) -> None:
    world.sell()

    def full() -> None:
        raise fault

    async with running(world.fleet) as system:
        await until(world, "active")
        world.ledger.before_commit = full
        await trio.sleep(130.0)
        world.ledger.before_commit = None
        world.happens(SessionEvent.END)
        await until(world, "stopped")
        assert all(node.restarts == 0 for node in system.tree())


async def test_a_listing_that_fails_is_tried_again(autojump_clock: MockClock, world: World) -> None:
    world.double.faults["list"] = [Unavailable("x")]
    world.sell()
    async with running(world.fleet):
        await until(world, "active")
        await trio.sleep(40.0)
    assert not world.double.faults["list"]


async def test_exits_of_nodes_that_are_not_the_sessions_own_are_ignored(
    autojump_clock: MockClock, world: World
) -> None:
    world.sell()
    async with running(world.fleet) as system:
        await until(world, "active")
        provisioner = system.registry.ref(Provisioner, PROVISIONER)
        provisioner.tell(NodeExited("nobody"))
        provisioner.tell(SessionChanged("nobody"))
        provisioner.tell(SessionChanged("s"))
        await trio.sleep(10.0)
    assert world.states() == ["provisioning", "active"]


async def test_more_sessions_than_sagas_are_worked_off(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "SAGAS_AT_ONCE", 2)
    for number in range(7):
        world.sell(f"s{number}")
    async with running(world.fleet):
        for number in range(7):
            await until(world, "active", f"s{number}", within_s=30.0)


async def test_nodes_can_be_stopped_at_shutdown_and_come_back_at_the_next_start(
    autojump_clock: MockClock, world: World
) -> None:
    for name in ("a", "b"):
        world.sell(name)
    async with running(world.fleet):
        await until(world, "active", "a")
        await until(world, "active", "b")
    world.double.faults["stop"] = [Unavailable("x")]
    await actor.stop_all(world.fleet.backends, world.ledger.write_now(records.own_tokens))
    assert len(world.double.alive) == 1
    await actor.stop_all(world.fleet.backends, world.ledger.write_now(records.own_tokens))
    assert not world.double.alive
    async with running(world.fleet):
        await trio.sleep(20.0)
        assert len(world.double.alive) == 2
    assert world.state("a") == world.state("b") == "active"


@pytest.mark.parametrize("hinted", [True, False])
async def test_an_extended_session_tells_its_node_the_new_end(
    autojump_clock: MockClock, world: World, hinted: bool
) -> None:
    """Also when another gateway has sold it, from which no hint comes."""
    world.sell(paid_s=1800.0)
    async with running(world.fleet) as system:
        await until(world, "active")
        token = world.session().node_token or ""
        await trio.sleep(1.0)
        before = world.double.specs[token].ends_at
        world.ledger.write_now(lambda c: session_records.add_seconds(c, "s", 3600.0, 1, 0.0))
        if hinted:
            system.registry.ref(Provisioner, PROVISIONER).hint(SessionChanged("s"))
        await trio.sleep(1.0 if hinted else 2.0 * actor.SWEEP_S)
        assert world.double.specs[token].ends_at == pytest.approx(before + 3600.0, abs=2.0)


async def test_a_session_of_another_gateway_is_left_to_it(autojump_clock: MockClock, world: World) -> None:
    world.sell()
    async with running(world.fleet) as system:
        await until(world, "active")
        token = world.session().node_token or ""
        world.ledger.write_now(lambda c: c.execute(update(sessions).values(owner_epoch=7)))
        world.happens(SessionEvent.END)
        provisioner = system.registry.ref(Provisioner, PROVISIONER)
        provisioner.tell(SessionChanged("s"))
        provisioner.tell(NodeExited(token))
        await trio.sleep(20.0)
        assert world.state() == "stopping"
        assert set(world.double.alive) == {token}


@may_crash(ZeroDivisionError)
async def test_a_crash_of_the_provisioner_loses_no_work(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [ZeroDivisionError()]
    sound = records.open_work

    def open_work(connection: Connection) -> list[tuple[str, int]]:
        if faults:
            raise faults.pop()
        return sound(connection)

    monkeypatch.setattr(records, "open_work", open_work)
    world.sell()
    async with running(world.fleet) as system:
        await until(world, "active")
        assert [node.restarts for node in system.tree() if node.path.endswith(PROVISIONER)] == [1]


async def test_where_no_keys_are_made_their_number_is_told(autojump_clock: MockClock, world: World) -> None:
    async with running(replaced(world.fleet, new_key=None)):
        await trio.sleep(1.0)
        await world.new_key()
        await world.new_key()
        world.sell()
        await until(world, "active")
        await trio.sleep(3.0)
    assert world.hints.keys[0] == 0
    assert world.hints.keys[-1] == 2
