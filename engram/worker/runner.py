"""Runs jobs. One with an id is noted before its kind is called, runs once, and its result is kept.

It outlives connections: a job goes on while the orchestrator is away. Whoever sent it is answered by a `Respond`, which
does nothing once its connection is gone; the ledger has the result all the same.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, final

import msgspec
import structlog
import trio

from config.model import WorkerSettings
from engram import kill_points, wire
from engram.clock import Clock
from engram.ledger import Ledger, LedgerError, LedgerUnavailable
from engram.worker import records, rules
from engram.worker.execution import JobExecution
from engram.worker.journal import Journal
from engram.worker.kinds import JobKind
from engram.worker.model import JobRow, WorkerJob
from engram.worker.places import JobPlaces
from engram.worker.rules import RefusedJob

_SWEEP_S: Final = 60.0
_QUOTES: Final = 3
"""Bytes that a text takes in a list of JSON besides its own."""
_MOST_RESPONDS: Final = 16
"""Events that one running job answers at its end; those of an orchestrator that sends it more often go unanswered."""
_unpack: Final = wire.msgpack_decoder(object)

Respond = Callable[[Any], Awaitable[bool]]
"""Acknowledges the event that a job came by; returns whether that was sent."""

_log = structlog.get_logger("engram.worker")


class RunnerEvents(Protocol):
    """What follows from jobs: figures, and results to be delivered."""

    def ended(self, kind: str, outcome: str, seconds: float) -> None:
        """Note that a job has ended, after so many seconds of running."""
        ...

    def idle(self) -> None:
        """Note that the last running job has ended."""
        ...

    def refused(self, error: str) -> None:
        """Note that a job was refused."""
        ...

    def unwritten(self) -> None:
        """Note that the ledger did not take what has happened to a job; it is tried again."""
        ...

    async def kept(self, job_id: str, result: Any) -> None:
        """Deliver the result of a job with an id, which is in the ledger."""
        ...


@final
class RunningJob:
    """A job with an id, from its arrival to its end."""

    __slots__ = ("request_hash", "responds")

    def __init__(self, request_hash: bytes, *responds: Respond) -> None:
        self.request_hash = request_hash
        self.responds = list(responds)
        """One for each time that it was sent."""


@final
class JobRunner:
    """The jobs of one orchestrator."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        kinds: Mapping[str, JobKind],
        settings: WorkerSettings,
        events: RunnerEvents,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._settings = settings
        self._events = events
        self._by = rules.orchestrator_of(settings.orchestrator_url)
        self._journal = Journal(ledger, clock, self._by, events.unwritten)
        self._execution = JobExecution(kinds, clock, settings.job_s, events.ended, events.idle)
        self._places = JobPlaces(settings.concurrency)
        self._most = settings.concurrency + settings.waiting
        self._named: dict[str, RunningJob] = {}
        self._nursery: trio.Nursery | None = None
        self._idle = trio.Event()
        self.in_flight = 0
        """Jobs that run or wait for a place."""
        self.unacknowledged = 0
        """Results in the ledger that wait for their acknowledgement."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Go on with what the last process left, then hold the jobs until cancelled. Raises LedgerError."""
        async with trio.open_nursery() as nursery:
            await self._recover(nursery)
            self._nursery = nursery
            task_status.started()
            try:
                while True:
                    await trio.sleep(_SWEEP_S)
                    await self._sweep()
            finally:
                self._nursery = None

    async def drain(self) -> None:
        """Take no more jobs; return when those that run have ended.

        Those that wait for a place are refused, or left to the next start when they have an id.
        """
        self._places.close()
        while self.in_flight:
            self._idle = trio.Event()
            await self._idle.wait()
        await self._note_answered()

    @property
    def running(self) -> int:
        """Jobs that run."""
        return self._execution.running

    def names(self, most_bytes: int) -> list[str]:
        """Return ids of jobs that run or wait, as many as have so many bytes together."""
        names: list[str] = []
        for name in self._named:
            most_bytes -= len(name.encode()) + _QUOTES
            if most_bytes < 0:
                break
            names.append(name)
        return names

    def room_beside(self, names: list[str]) -> int:
        """Return how many jobs are worth asking for when these ids are named.

        It counts free places and jobs that are here without being named, which may be sent once more.
        """
        return max(0, self._most - self.in_flight) + len(self._named) - len(names)

    @property
    def has_room(self) -> bool:
        """Whether a job with an id would be taken."""
        return self._refusal(named=True) is None

    async def offer(self, job: WorkerJob, respond: Respond) -> None:
        """Take a job, or answer it from what is known of it, or refuse it.

        Waits only where that slows an orchestrator down that sends more than it may. Raises LedgerError.
        """
        if job.id is None:
            if (refusal := self._refusal(named=False)) is not None:
                await self.refuse(refusal, respond)
            else:
                self._take(self._run_nameless, job, respond)
            return
        try:
            payload, request_hash = rules.request_of(job)
        except ValueError as error:
            await self.refuse(RefusedJob(str(error)), respond)
            return
        running = self._named.get(job.id)
        if running is not None:
            if rules.decide(running.request_hash, None, request_hash) == "join":
                running.responds = [*running.responds[1 - _MOST_RESPONDS :], respond]
            else:
                await self.refuse(rules.CONFLICT, respond)
        elif (refusal := self._refusal(named=True)) is not None:
            await self._answer_without_room(job.id, request_hash, refusal, respond)
        else:
            running = self._named[job.id] = RunningJob(request_hash, respond)
            self._take(self._run_named, job, payload, running)

    def note_acknowledged(self, results: int) -> None:
        """Note that so many results wait for their acknowledgement no more."""
        self.unacknowledged = max(0, self.unacknowledged - results)

    # ---------------------------------------------------------------------------------------- at the start

    async def _recover(self, nursery: trio.Nursery) -> None:
        left = await self._ledger.read(lambda c: records.unfinished(c, self._by))
        lost = [row for row in left if row.state == "running" and not self._execution.repeatable(row.kind)]
        at = self._clock.now()
        for row in lost:
            end = rules.interrupted(row.kind)
            result = msgspec.msgpack.encode(end.result)
            await self._ledger.write(
                lambda c, r=row, e=end, p=result: records.end(c, self._by, r.id, outcome=e.outcome, result=p, at=at)  # type: ignore[misc]
            )
            self._events.ended(row.kind, end.outcome, 0.0)
        if lost:
            _log.warning("jobs_interrupted", jobs=len(lost), reason="the process ended while they ran")
        await self._recount()
        for row in left:
            if row not in lost:
                running = self._named[row.id] = RunningJob(row.request_hash)
                self.in_flight += 1
                job = WorkerJob(row.id, row.kind, _unpack.decode(row.payload))
                nursery.start_soon(self._counted, self._go_on, job, running)

    async def _go_on(self, job: WorkerJob, running: RunningJob) -> None:
        if await self._places.take():
            await self._work(job, running, noted=False)

    # ---------------------------------------------------------------------------------------- one job

    def _refusal(self, *, named: bool) -> RefusedJob | None:
        if self._places.closed or self._nursery is None:
            return rules.STOPPING
        if self.in_flight >= self._most or (named and self.unacknowledged >= self._settings.unacknowledged):
            return rules.FULL
        return None

    def _take(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        assert self._nursery is not None
        self.in_flight += 1
        self._nursery.start_soon(self._counted, work, *arguments)

    async def _counted(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await work(*arguments)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    async def refuse(self, refusal: RefusedJob, respond: Respond) -> None:
        """Count a job that is not run, and answer it."""
        self._events.refused(refusal.error)
        await respond(refusal.result())

    async def _answer_without_room(self, job_id: str, request_hash: bytes, refusal: RefusedJob, to: Respond) -> None:
        try:
            row = await self._ledger.read(lambda c: records.find(c, self._by, job_id))
        except LedgerUnavailable:
            row = None
        match rules.decide(None, row, request_hash):
            case "answer" if row is not None:
                await self._answer_all(row, [to])
            case RefusedJob() as conflict:
                await self.refuse(conflict, to)
            case _:
                await self.refuse(refusal, to)

    async def _run_nameless(self, job: WorkerJob, respond: Respond) -> None:
        if not await self._places.take():
            await self.refuse(rules.STOPPING, respond)
            return
        try:
            end = await self._execution.end_of(job)
        finally:
            self._places.give_back()
        await respond(end.result)

    async def _run_named(self, job: WorkerJob, payload: bytes, running: RunningJob) -> None:
        placed = self._places.take_now()
        row = JobRow(
            id=str(job.id),
            kind=job.kind,
            state="running" if placed else "accepted",
            request_hash=running.request_hash,
            payload=payload,
            created_at=self._clock.now(),
        )
        try:
            known = await self._ledger.write(lambda c: records.begin(c, self._by, row))
        except BaseException as error:
            del self._named[row.id]
            if placed:
                self._places.give_back()
            if not isinstance(error, LedgerUnavailable):
                raise
            for respond in running.responds:
                await self.refuse(rules.UNRECORDED, respond)
            return
        kill_points.point("worker_job:begun")
        if known is not None:
            if placed:
                self._places.give_back()
            del self._named[row.id]
            await self._answer_known(known, running)
        elif placed:
            await self._work(job, running, noted=True)
        elif await self._places.take():
            await self._work(job, running, noted=False)
        else:
            del self._named[row.id]  # it runs at the next start

    async def _answer_known(self, known: JobRow, running: RunningJob) -> None:
        decision = rules.decide(None, known, running.request_hash)
        for respond in running.responds:
            if isinstance(decision, RefusedJob):
                await self.refuse(decision, respond)
        if not isinstance(decision, RefusedJob):
            await self._answer_all(known, running.responds)

    async def _answer_all(self, known: JobRow, responds: list[Respond]) -> None:
        result, sent = _unpack.decode(known.result), False
        for respond in responds:
            sent = await respond(result) or sent
        if sent:
            await self._note_answered(known.id)

    async def _work(self, job: WorkerJob, running: RunningJob, *, noted: bool) -> None:
        """Run a job that has its place, keep its result, answer. `noted`: it is in the ledger as running."""
        assert job.id is not None
        job_id = job.id
        try:
            if not noted and not await self._note_start(job_id):
                return  # it runs at the next start
            end = rules.kept_within(await self._execution.end_of(job), self._settings.max_result_bytes)
            kill_points.point("worker_job:answered")
            kept = await self._journal.end(job_id, end)
        finally:
            self._places.give_back()
            del self._named[job_id]
        if not kept:
            return
        self.unacknowledged += 1
        kill_points.point("worker_job:kept")
        sent = False
        for respond in running.responds:
            sent = await respond(end.result) or sent
        if self._settings.results == "event":
            await self._events.kept(job_id, end.result)
        elif sent:
            await self._note_answered(job_id)

    async def _note_start(self, job_id: str) -> bool:
        """Note that a job runs from now on; return False when the worker stops before the ledger takes that."""
        with self._places.ended_by_close() as wait:
            await self._journal.start(job_id)
        return not wait.cancelled_caught

    async def _note_answered(self, *job_ids: str) -> None:
        """Note results that were sent as acknowledgements, where that is how results count as delivered."""
        if self._settings.results == "ack":
            self.note_acknowledged(await self._journal.acknowledge(*job_ids))

    # ---------------------------------------------------------------------------------------- upkeep

    async def _sweep(self) -> None:
        before = self._clock.now() - self._settings.keep_s
        await self._note_answered()
        try:
            gone = await self._ledger.write(lambda c: records.expire(c, before))
            await self._recount()
        except LedgerError as error:
            _log.warning("jobs_not_swept", reason=str(error))
            return
        if gone:
            _log.info("jobs_forgotten", jobs=gone)

    async def _recount(self) -> None:
        self.unacknowledged = await self._ledger.read(lambda c: records.count_unacknowledged(c, self._by))
