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
from engram.worker.errors import JobFailed, OutcomeUnknown
from engram.worker.kinds import JobKind
from engram.worker.model import JobEnd, JobRow, WorkerJob
from engram.worker.rules import RefusedJob

_TRIES: Final = 5
_AGAIN_S: Final = 1.0
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

    def refused(self, error: str) -> None:
        """Note that a job was refused."""
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
        self._kinds = kinds
        self._settings = settings
        self._events = events
        self._by = rules.orchestrator_of(settings.orchestrator_url)
        self._places = trio.Semaphore(settings.concurrency)
        self._most = settings.concurrency + settings.waiting
        self._named: dict[str, RunningJob] = {}
        self._waits: set[trio.CancelScope] = set()
        self._nursery: trio.Nursery | None = None
        self._stopping = False
        self._idle = trio.Event()
        self.in_flight = 0
        """Jobs that run or wait for a place."""
        self.running = 0
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
        self._stopping = True
        for wait in self._waits:
            wait.cancel()
        while self.in_flight:
            self._idle = trio.Event()
            await self._idle.wait()

    def names(self, most_bytes: int) -> list[str]:
        """Return ids of jobs that run or wait, as many as have so many bytes together."""
        names: list[str] = []
        for name in self._named:
            most_bytes -= len(name.encode()) + _QUOTES
            if most_bytes < 0:
                break
            names.append(name)
        return names

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
        lost = [row for row in left if row.state == "running" and not self._repeatable(row.kind)]
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

    def _repeatable(self, kind: str) -> bool:
        known = self._kinds.get(kind)
        return known is not None and known.repeatable

    async def _go_on(self, job: WorkerJob, running: RunningJob) -> None:
        if await self._place():
            await self._work(job, running, noted=False)

    # ---------------------------------------------------------------------------------------- one job

    def _refusal(self, *, named: bool) -> RefusedJob | None:
        if self._stopping or self._nursery is None:
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
                await to(_unpack.decode(row.result))
            case RefusedJob() as conflict:
                await self.refuse(conflict, to)
            case _:
                await self.refuse(refusal, to)

    async def _run_nameless(self, job: WorkerJob, respond: Respond) -> None:
        if not await self._place():
            await self.refuse(rules.STOPPING, respond)
            return
        try:
            end = await self._end_of(job)
        finally:
            self._places.release()
        await respond(end.result)

    async def _run_named(self, job: WorkerJob, payload: bytes, running: RunningJob) -> None:
        placed = self._place_now()
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
                self._places.release()
            if not isinstance(error, LedgerUnavailable):
                raise
            for respond in running.responds:
                await self.refuse(rules.UNRECORDED, respond)
            return
        kill_points.point("worker_job:begun")
        if known is not None:
            if placed:
                self._places.release()
            del self._named[row.id]
            await self._answer_known(known, running)
        elif placed:
            await self._work(job, running, noted=True)
        elif await self._place():
            await self._work(job, running, noted=False)
        else:
            del self._named[row.id]  # it runs at the next start

    async def _answer_known(self, known: JobRow, running: RunningJob) -> None:
        decision = rules.decide(None, known, running.request_hash)
        for respond in running.responds:
            if isinstance(decision, RefusedJob):
                await self.refuse(decision, respond)
            else:
                await respond(_unpack.decode(known.result))

    async def _work(self, job: WorkerJob, running: RunningJob, *, noted: bool) -> None:
        """Run a job that has its place, keep its result, answer. `noted`: it is in the ledger as running."""
        assert job.id is not None
        job_id = job.id
        try:
            if not noted:
                await self._ledger.write(lambda c: records.start(c, self._by, job_id))
            end = rules.kept_within(await self._end_of(job), self._settings.max_result_bytes)
            kill_points.point("worker_job:answered")
            kept = await self._keep(job_id, end)
        finally:
            self._places.release()
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
            at = self._clock.now()
            self.note_acknowledged(await self._ledger.write(lambda c: records.acknowledge(c, self._by, [job_id], at)))

    async def _keep(self, job_id: str, end: JobEnd) -> bool:
        result, at = msgspec.msgpack.encode(end.result), self._clock.now()
        with trio.CancelScope(shield=True):
            for tries in range(_TRIES):
                if tries:
                    await trio.sleep(_AGAIN_S)
                try:
                    return await self._ledger.write(
                        lambda c: records.end(c, self._by, job_id, outcome=end.outcome, result=result, at=at)
                    )
                except LedgerUnavailable as error:
                    _log.error("result_not_kept", job_id=job_id, reason=str(error))
        return False  # it stays `running`: the next start settles it

    async def _end_of(self, job: WorkerJob) -> JobEnd:
        """Call the job's kind; return how it ended."""
        kind = self._kinds.get(job.kind)
        if kind is None:
            self._events.ended("unknown", "failed", 0.0)
            return JobEnd("failed", rules.UNKNOWN_TYPE)
        began = self._clock.monotonic()
        self.running += 1
        try:
            end = await self._called(kind, job)
        finally:
            self.running -= 1
        self._events.ended(job.kind, end.outcome, self._clock.monotonic() - began)
        return end

    async def _called(self, kind: JobKind, job: WorkerJob) -> JobEnd:
        with trio.move_on_after(self._settings.job_s):
            try:
                return JobEnd("done", await kind.run(job))
            except JobFailed as error:
                return JobEnd("failed", {"error": str(error)})
            except OutcomeUnknown as error:
                return rules.unknown(str(error))
            except Exception:  # noqa: BLE001 -- a plugin's bug ends its job only
                _log.exception("job_crashed", kind=job.kind, job_id=job.id)
                return rules.unknown("Job crashed")
        return rules.unknown(f"Job took longer than {self._settings.job_s:g} s")

    # ---------------------------------------------------------------------------------------- places

    def _place_now(self) -> bool:
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            return False
        return True

    async def _place(self) -> bool:
        """Wait for a place; return False when the worker stops meanwhile."""
        if self._stopping:
            return False
        if self._place_now():
            return True
        with trio.CancelScope() as wait:
            self._waits.add(wait)
            try:
                await self._places.acquire()
                return True
            finally:
                self._waits.discard(wait)
        return False

    # ---------------------------------------------------------------------------------------- upkeep

    async def _sweep(self) -> None:
        before = self._clock.now() - self._settings.keep_s
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
