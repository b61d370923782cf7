"""What a tenant does to a node does not take long from the tenant."""

from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from engram.ledger.inline import open_inline
from engram.provisioning import saga
from engram.sessions import SessionEvent, SessionState
from tests.provisioning.fleets import World, replaced


@pytest.fixture
def world() -> Iterator[World]:
    ledger = open_inline()
    yield World(ledger)
    ledger.close()


async def test_a_node_that_hangs_is_started_again_long_before_a_first_start_would_be_given_up(
    autojump_clock: MockClock, world: World
) -> None:
    settings = world.fleet.settings
    patient = replaced(world.fleet, settings=type(settings)(launch_timeout_s=600.0, attempts=settings.attempts))
    world.sell()
    await saga.run(patient, "s")
    token = world.session().node_token or ""
    world.double.sick.add(token)
    world.happens(SessionEvent.DEGRADE)
    hung_at, relaunched = trio.current_time(), trio.Event()
    world.double.after_effect = relaunched.set
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saga.run, patient, "s")
        await relaunched.wait()
        world.double.sick.clear()
    assert world.double.launches == [token, token]
    assert world.session().state is SessionState.ACTIVE
    assert trio.current_time() - hung_at < saga.SILENT_S + 10.0


async def test_a_slow_first_start_keeps_its_time(autojump_clock: MockClock, world: World) -> None:
    world.double.startup_s = 2 * saga.SILENT_S - 1.0
    world.sell()
    await saga.run(world.fleet, "s")
    assert (world.state(), len(world.double.launches)) == ("active", 1)
