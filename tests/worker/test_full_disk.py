"""A ledger that takes nothing for a while: no result is lost, no job runs twice, and the worker goes on."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from engram.clock import SystemClock
from engram.ledger import InlineLedger, LedgerUnavailable, open_inline
from engram.worker import records
from engram.worker.kinds import JobKind
from engram.worker.model import JobCounts, WorkerJob
from engram.worker.runner import JobRunner
from tests.worker.harness import FAST, Echo

HOUR_S = 3_600.0


class Heard:
    """What a runner tells of its jobs."""

    def __init__(self) -> None:
        self.unwritten_count = 0
        self.results: dict[str, Any] = {}

    def ended(self, kind: str, outcome: str, seconds: float) -> None:
        pass

    def idle(self) -> None:
        pass

    def refused(self, error: str) -> None:
        pass

    def unwritten(self) -> None:
        self.unwritten_count += 1

    async def kept(self, job_id: str, result: Any) -> None:
        self.results[job_id] = result


class Asked:
    """The answers that an orchestrator got; it does not hear them while it is away."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.is_away = False

    async def respond(self, result: Any) -> bool:
        if not self.is_away:
            self.answers.append(result)
        return not self.is_away


class Disk:
    """A ledger that can be made to take nothing."""

    def __init__(self) -> None:
        self.ledger: InlineLedger = open_inline()

    def fill(self) -> None:
        def fail() -> None:
            raise LedgerUnavailable("the disk is full")

        self.ledger.before_commit = fail

    def clear(self) -> None:
        self.ledger.before_commit = None

    def counts(self) -> JobCounts:
        return self.ledger.read_now(records.counts)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@asynccontextmanager
async def running(disk: Disk, kinds: Mapping[str, JobKind], **changes: Any) -> AsyncIterator[tuple[JobRunner, Heard]]:
    heard = Heard()
    runner = JobRunner(disk.ledger, SystemClock(), kinds, msgspec.structs.replace(FAST, **changes), heard)
    async with trio.open_nursery() as nursery:
        await nursery.start(runner.run)
        yield runner, heard
        nursery.cancel_scope.cancel()


async def drained(runner: JobRunner) -> None:
    with trio.fail_after(10 * HOUR_S):
        await runner.drain()


def job(name: str, payload: Any = None) -> WorkerJob:
    return WorkerJob(name, "inference", payload)


async def test_a_result_is_kept_and_answered_once_the_disk_has_room_however_long_that_takes(
    disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    echo, asked = Echo(), Asked()
    async with running(disk, {"inference": echo}) as (runner, heard):
        await runner.offer(job("a", {"hold": "x"}), asked.respond)
        await trio.testing.wait_all_tasks_blocked()
        disk.fill()
        echo.let_go("x")
        await trio.sleep(HOUR_S)
        assert (asked.answers, heard.results, runner.names(100)) == ([], {}, ["a"])
        assert 120 <= heard.unwritten_count <= 125, "every 30 s, after the first few"
        disk.clear()
        await drained(runner)
        assert (asked.answers, heard.results) == ([{"hold": "x"}], {"a": {"hold": "x"}})
    assert (disk.counts(), len(echo.runs)) == (JobCounts(unacknowledged=1), 1)


async def test_a_result_that_waits_for_the_disk_is_tried_once_more_at_the_end(
    disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    echo = Echo()
    async with running(disk, {"inference": echo}) as (runner, _):
        await runner.offer(job("a", {"hold": "x"}), Asked().respond)
        await trio.testing.wait_all_tasks_blocked()
        disk.fill()
        echo.let_go("x")
        await trio.sleep(100.5)
        disk.clear()
    assert disk.counts() == JobCounts(unacknowledged=1)


async def test_a_disk_that_stays_full_does_not_hold_up_the_end(
    disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    echo = Echo()
    async with running(disk, {"inference": echo}) as (runner, _):
        await runner.offer(job("a", {"hold": "x"}), Asked().respond)
        await trio.testing.wait_all_tasks_blocked()
        disk.fill()
        echo.let_go("x")
        await trio.sleep(100.5)
        began = trio.current_time()
    assert trio.current_time() - began < 1
    assert disk.counts() == JobCounts(running=1), "the next start tells its outcome as unknown"


@pytest.mark.parametrize("stops", [False, True])
async def test_a_job_that_gets_its_place_while_the_disk_is_full_stays_accepted_until_it_has_room(
    disk: Disk, autojump_clock: trio.testing.MockClock, stops: bool
) -> None:
    echo, asked = Echo(), Asked()
    async with running(disk, {"inference": echo}, concurrency=1) as (runner, heard):
        await runner.offer(WorkerJob(None, "inference", {"hold": "x"}), asked.respond)
        await trio.testing.wait_all_tasks_blocked()
        await runner.offer(job("waits"), asked.respond)
        await trio.testing.wait_all_tasks_blocked()
        disk.fill()
        echo.let_go("x")
        await trio.sleep(HOUR_S)
        assert (len(echo.runs), asked.answers, heard.unwritten_count > 100) == (1, [{"hold": "x"}], True)
        assert disk.counts() == JobCounts(accepted=1)
        if stops:
            await drained(runner)
        disk.clear()
        await drained(runner) if stops else await trio.sleep(60)
    assert disk.counts() == (JobCounts(accepted=1) if stops else JobCounts(unacknowledged=1))
    async with running(disk, {"inference": echo}) as (runner, _):
        await trio.testing.wait_all_tasks_blocked()
    assert (disk.counts(), len(echo.runs)) == (JobCounts(unacknowledged=1), 2)


async def test_an_acknowledgement_that_the_disk_did_not_take_is_noted_later(
    disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    echo, asked = Echo(), Asked()
    async with running(disk, {"inference": echo}, results="ack") as (runner, heard):
        await runner.offer(job("a", {"hold": "x"}), asked.respond)
        await trio.testing.wait_all_tasks_blocked()

        def fill_after_the_result() -> None:
            disk.ledger.after_commit = None
            disk.fill()

        disk.ledger.after_commit = fill_after_the_result
        echo.let_go("x")
        await trio.testing.wait_all_tasks_blocked()
        assert (asked.answers, runner.unacknowledged, heard.unwritten_count) == ([{"hold": "x"}], 1, 1)
        await trio.sleep(100)
        assert disk.counts() == JobCounts(unacknowledged=1)
        disk.clear()
        await trio.sleep(60)
        assert (runner.unacknowledged, disk.counts()) == (0, JobCounts(acknowledged=1))


@pytest.mark.parametrize("has_room", [True, False])
async def test_a_result_made_while_the_orchestrator_was_away_is_acknowledged_by_the_answer_to_its_resend(
    disk: Disk, autojump_clock: trio.testing.MockClock, has_room: bool
) -> None:
    echo, asked = Echo(), Asked()
    async with running(disk, {"inference": echo}, results="ack", unacknowledged=2 if has_room else 1) as (runner, _):
        asked.is_away = True
        await runner.offer(job("a", 1), asked.respond)
        await trio.testing.wait_all_tasks_blocked()
        assert disk.counts() == JobCounts(unacknowledged=1)
        asked.is_away = False
        await runner.offer(job("a", 1), asked.respond)
        await trio.testing.wait_all_tasks_blocked()
        assert (asked.answers, len(echo.runs), runner.unacknowledged) == ([1], 1, 0)
    assert disk.counts() == JobCounts(acknowledged=1)
