"""An outage of the ledger ends no job for good, however long it lasts."""

import pytest
import trio
from trio.testing import MockClock

from actors import ChildSpec, Context, Registry, SupervisorSpec, open_system
from engram.clock import TrioClock
from engram.relay.anchoring import records
from engram.relay.anchoring.committing import NotCommitting
from engram.roles.outages import outlasting
from engram.roles.process import spare
from tests.crashes import may_crash
from tests.xeris.test_upkeep import OUTAGE_S, FlakyLedger


@pytest.mark.parametrize("in_a_nursery", [False, True])
async def test_a_job_goes_on_after_an_hour_without_the_ledger(autojump_clock: MockClock, in_a_nursery: bool) -> None:
    ledger, written = FlakyLedger(), list[float]()

    async def write() -> None:
        await ledger.write(lambda c: written.append(trio.current_time()))

    async def run(context: Context) -> None:
        context.ready()
        while True:
            if in_a_nursery:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(write)
            else:
                await write()
            await trio.sleep(3.0)

    child = spare("job", lambda: outlasting("job", run))
    async with open_system(SupervisorSpec("root", [child]), registry=Registry()):
        await trio.sleep(5)
        ledger.is_away = True
        await trio.sleep(OUTAGE_S)
        ledger.is_away, before = False, len(written)
        await trio.sleep(60)
        assert len(written) > before


@may_crash(RuntimeError)
async def test_an_error_that_is_not_the_ledgers_is_the_supervisors(autojump_clock: MockClock) -> None:
    lives = 0

    async def run(context: Context) -> None:
        nonlocal lives
        context.ready()
        lives += 1
        if lives < 3:
            raise RuntimeError("a defect")
        await trio.sleep_forever()

    child = spare("job", lambda: outlasting("job", run))
    async with open_system(SupervisorSpec("root", [child]), registry=Registry()) as system:
        await trio.sleep(60)
        (job,) = [each for each in system.tree() if each.path == "root/job"]
        assert (lives, job.restarts) == (3, 2)


async def test_a_job_that_is_done_is_not_run_again(autojump_clock: MockClock) -> None:
    lives = 0

    async def run(context: Context) -> None:
        nonlocal lives
        context.ready()
        lives += 1

    child = ChildSpec("job", lambda: outlasting("job", run), restart="transient")
    async with open_system(SupervisorSpec("root", [child]), registry=Registry()):
        await trio.sleep(60)
    assert lives == 1


async def test_why_nothing_is_anchored_is_noted_once_the_ledger_is_back(autojump_clock: MockClock) -> None:
    ledger = FlakyLedger()
    ledger.is_away = True
    idle = NotCommitting(ledger, TrioClock(), 450, "5Signer", "relay.anchor is false")
    child = spare("anchors", lambda: outlasting("anchors", idle.run))
    async with open_system(SupervisorSpec("root", [child]), registry=Registry()):
        await trio.sleep(OUTAGE_S)
        ledger.is_away = False
        await trio.sleep(60)
        assert ledger.inner.read_now(lambda c: records.reason_of(c, 450, "5Signer")) == "relay.anchor is false"
