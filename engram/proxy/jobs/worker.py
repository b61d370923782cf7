"""Runs jobs: each is noted before its backend is called, ends once, and survives its client.

The nursery is the job's child of the tree; when that stops, running jobs are cut, and the next start notes them as
`unknown`: what the backend did is not known, so nothing is run again.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Final, final

import msgspec
import structlog
import trio

from actors import Context
from engram import kill_points
from engram.clock import Clock, Ids
from engram.http.framing import Headers
from engram.ledger import Ledger
from engram.proxy.exchange.admission import Slot
from engram.proxy.exchange.bodies import Body
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.refusing import Gone, Refusal, body_of
from engram.proxy.exchange.sinks import Buffer
from engram.proxy.exchange.transfer import AnswerCut, Transfer
from engram.proxy.jobs import records
from engram.proxy.jobs.model import Job, JobResult
from engram.proxy.jobs.store import JobStore, JobsUnavailable
from engram.proxy.limits.kept import KeptBytes
from engram.proxy.plan import Plan
from engram.proxy.routing import Matched
from engram.proxy.settings.model import JobSettings

_ID_BYTES: Final = 24
_SWEEP_S: Final = 30.0
_AGAIN_S: Final = 1.0
"""Seconds until a start that the ledger did not take is tried again."""
_COME_AGAIN_S: Final = 5.0
_FETCHED_KEPT_S: Final = 60.0
"""Seconds that a fetched result is kept, for a client that lost the answer on its way."""

_log = structlog.get_logger("engram.proxy")


@final
class RunningJob:
    """A job of this process."""

    def __init__(self, job: Job, request: Incoming, *, keyed: bool) -> None:
        """`keyed`: it has an Idempotency-Key, by which its result may be asked for."""
        self.job = job
        self.keyed = keyed
        self.request = request
        """The one that began it."""
        self.ended = trio.Event()
        self.result: JobResult | None = None
        """None until it has ended."""
        self.scope = trio.CancelScope()
        self.transfer: Transfer | None = None
        """None until it has begun."""
        self.canceled = False
        self.noting: trio.Event | None = None
        """Its result is known and being noted until this is set; None when not, and when the ledger did not take it."""

    def leave(self) -> None:
        """Keep no result, because its client left before it was given the id; cut it, or let its backend finish within
        bounds, as the route says."""
        self.canceled = True
        if self.transfer is None:
            self.scope.cancel()
        else:
            self.transfer.leave(self.scope)


class Undertaking(msgspec.Struct, frozen=True):
    """What a job needs of the request that began it."""

    request: Incoming
    matched: Matched
    body: Body
    slots: Sequence[Slot]
    """Given back when it ends."""


@final
class Jobs:
    """The jobs of the proxy."""

    def __init__(self, ledger: Ledger, clock: Clock, ids: Ids, settings: JobSettings) -> None:
        self._store = JobStore(ledger)
        self._clock = clock
        self._ids = ids
        self._settings = settings
        self._nursery: trio.Nursery | None = None
        self._running: dict[str, RunningJob] = {}
        self._unwanted: set[str] = set()
        """Ids of jobs that were not begun but that the ledger may hold, until they are deleted there."""
        self._kept = KeptBytes(settings.kept_bytes)

    def change(self, settings: JobSettings) -> None:
        """Apply other settings to jobs that begin from now on."""
        self._settings = settings
        self._kept.in_all = settings.kept_bytes

    @property
    def kept_bytes(self) -> int:
        """Bytes of the results that are kept."""
        return len(self._kept)

    @property
    def problem(self) -> str:
        """Why the ledger does not read or write jobs now; empty when it does."""
        return self._store.problem

    def __len__(self) -> int:
        return len(self._running)

    async def run(self, context: Context) -> None:
        """Note what the last process left running, then hold the jobs until stopped.

        A ledger that takes no writes now ends neither: no job begins before that note, and those that run go on.
        """
        noted = await self._interrupt()
        context.ready()
        while not noted:
            await trio.sleep(_AGAIN_S)
            noted = await self._interrupt()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                while True:
                    await self._sweep()
                    await trio.sleep(_SWEEP_S)
            finally:
                self._nursery = None
                self._unwanted.clear()

    async def _interrupt(self) -> bool:
        """Note that the last process's jobs do not run any more; return whether the ledger took it."""
        try:
            interrupted = await self._store.write(lambda connection: records.interrupt(connection, self._clock.now()))
        except JobsUnavailable as error:
            _log.warning("jobs_wait_for_the_ledger", error=str(error))
            return False
        if interrupted:
            _log.warning("jobs_unknown", jobs=interrupted, reason="the process ended while they ran")
        return True

    async def _sweep(self) -> None:
        try:
            await self._expire()
        except JobsUnavailable as error:  # what is kept too long is deleted the next time
            _log.warning("jobs_not_swept", error=str(error))

    async def _expire(self) -> None:
        now, keep_s = self._clock.now(), self._settings.keep_s
        await self._store.write(lambda connection: records.expire(connection, now - keep_s, now - _FETCHED_KEPT_S))
        self._kept.replace(await self._store.read(records.kept_bytes))

    async def begin(self, plan: Plan, undertaking: Undertaking, idempotency_key: str | None) -> RunningJob | Job:
        """Run a request as a job; return the job of before where its Idempotency-Key was used already.

        The undertaking's body and slots are the job's once this returns a RunningJob. Raises Refusal (jobs_not_ready,
        jobs_full, results_full, job_conflict, jobs_unavailable).
        """
        request = undertaking.request
        if self._nursery is None:
            text = "The miner's memory of jobs is not ready"
            raise Refusal("jobs_not_ready", text, retry_after_s=5)
        if len(self._running) + len(self._unwanted) >= self._settings.open:
            raise Refusal("jobs_full", "The miner runs as many jobs as it may", retry_after_s=5)
        assert request.caller is not None
        if not self._kept.has_room(request.caller):
            text = "Results of your jobs take up their room: fetch them, or wait until they expire"
            raise Refusal("results_full", text, retry_after_s=_FETCHED_KEPT_S)
        job = Job(
            id=self._ids.token(_ID_BYTES),
            owner=request.caller,
            state="running",
            route=request.route,
            request_hash=_hash_of(request),
            created_at=self._clock.now(),
        )
        running = self._running[job.id] = RunningJob(job, request, keyed=idempotency_key is not None)
        try:
            known = await self._store.write(lambda connection: records.begin(connection, job, idempotency_key))
        except JobsUnavailable as error:
            del self._running[job.id]
            if error.may_be_done:
                self._take_back(job.id)
            raise unavailable(str(error)) from error
        except BaseException:
            del self._running[job.id]
            raise
        if known is not None:
            del self._running[job.id]
            return self._same(known, request)
        kill_points.point("proxy_job:begun")
        self._start(plan, undertaking, running)
        return running

    async def known(self, request: Incoming, idempotency_key: str) -> RunningJob | Job | None:
        """Return the job that began under this key; it takes no place, and is found however many jobs are running.

        Raises Refusal (job_conflict, jobs_unavailable).
        """
        caller = request.caller
        assert caller is not None
        try:
            job = await self._store.read(lambda connection: records.under(connection, caller, idempotency_key))
        except JobsUnavailable as error:
            raise unavailable(str(error)) from error
        return None if job is None else self._same(job, request)

    def _same(self, known: Job, request: Incoming) -> RunningJob | Job:
        if known.request_hash != _hash_of(request):
            raise Refusal("job_conflict", "This Idempotency-Key was used for another request")
        if known.id in self._unwanted:
            raise unavailable("the ledger still has an attempt that began nothing")
        return self._running.get(known.id) or known

    def _start(self, plan: Plan, undertaking: Undertaking, running: RunningJob) -> None:
        if self._nursery is None:
            del self._running[running.job.id]
            raise Refusal("draining", "The miner is stopping", retry_after_s=5)
        self._nursery.start_soon(self._work, plan, undertaking, running)

    def _take_back(self, job_id: str) -> None:
        """Delete a job that was not begun, once the ledger can; without a nursery the next start finds it."""
        if self._nursery is not None:
            self._unwanted.add(job_id)
            self._nursery.start_soon(self._forget, job_id)

    async def _forget(self, job_id: str) -> None:
        forgotten = False
        while not forgotten:
            try:
                await self._store.write(partial(records.forget, job_id=job_id))
                forgotten = True
            except JobsUnavailable:
                await trio.sleep(_AGAIN_S)
        self._unwanted.discard(job_id)

    async def _work(self, plan: Plan, undertaking: Undertaking, running: RunningJob) -> None:
        try:
            result = await self._outcome(plan, undertaking, running)
            kill_points.point("proxy_job:answered")
            for slot in undertaking.slots:
                slot.release()
            await self._note_end(running, result)
        except Exception:  # noqa: BLE001 -- one job's fault ends no other: it stays `running` until the next start
            _log.exception("job_failed", job_id=running.job.id)
        finally:
            undertaking.body.close()
            for slot in undertaking.slots:
                slot.release()
            del self._running[running.job.id]
            running.ended.set()

    async def _note_end(self, running: RunningJob, result: JobResult) -> None:
        """Note a result, as often as it takes: until then its client is told that the job runs."""
        job = running.job
        while running.result is None:
            at = self._clock.now()
            noting = running.noting = trio.Event()
            end = partial(records.end, job_id=job.id, result=result, at=at)
            try:
                with trio.CancelScope(shield=True):
                    await self._store.write(end)
            except JobsUnavailable as error:
                running.noting = None
                noting.set()
                _log.warning("job_end_not_noted", job_id=job.id, error=str(error))
                await trio.sleep(_AGAIN_S)
            else:
                self._kept.add(job.owner, len(result.body) + len(result.headers))
                running.result = result
                noting.set()

    async def _outcome(self, plan: Plan, undertaking: Undertaking, running: RunningJob) -> JobResult:
        try:
            return await self._result(plan, undertaking, running)
        except Exception:  # noqa: BLE001 -- a fault of the proxy ends its job, which else would run until the next start
            _log.exception("job_failed", job_id=running.job.id)
            return _failed(Refusal("internal", "Internal server error"), undertaking.request)

    async def _result(self, plan: Plan, undertaking: Undertaking, running: RunningJob) -> JobResult:
        request, settings = undertaking.request, self._settings
        route = undertaking.matched.route
        buffer = Buffer(settings.max_result_bytes)
        transfer = running.transfer = Transfer(
            request, undertaking.matched, undertaking.body, plan.groups[route.backend], first_byte_s=settings.run_s
        )
        failed = Refusal("total_late", "Upstream timed out", message=f"the job ran for {settings.run_s:g} s")
        running.scope.deadline = trio.current_time() + settings.run_s
        with running.scope:
            try:
                await transfer.run(buffer)
            except (Refusal, AnswerCut, Gone) as error:
                failed = _refusal_of(error)
            else:
                if not running.canceled:
                    return JobResult("done", buffer.status, _encoded(buffer.lines), bytes(buffer.body), "done")
        if running.canceled:
            return JobResult("canceled", 499, b"[]", b"", "client_gone")
        _log.info("job_has_no_result", job_id=running.job.id, code=failed.code, cause=failed.cause)
        return _failed(failed, request)

    async def find(self, job_id: str, request: Incoming) -> Job | None:
        """Return a job of the request's caller. Raises Refusal (jobs_unavailable)."""
        caller = request.caller
        assert caller is not None
        try:
            return await self._store.read(lambda connection: records.of(connection, job_id, caller))
        except JobsUnavailable as error:
            raise unavailable(str(error)) from error

    async def note_fetched(self, job_id: str) -> None:
        """Note that a result has been sent; where the ledger does not take that, it is kept until it expires."""
        at = self._clock.now()
        try:
            await self._store.write(lambda connection: records.fetched(connection, job_id, at))
        except JobsUnavailable as error:
            _log.warning("job_fetch_not_noted", job_id=job_id, error=str(error))


def unavailable(cause: str) -> Refusal:
    """Return the refusal of a request for which the ledger did not read or write a job; nothing was begun for it."""
    text = "The miner's memory of jobs does not answer now"
    return Refusal("jobs_unavailable", text, retry_after_s=_COME_AGAIN_S, cause=cause)


def _failed(refusal: Refusal, request: Incoming) -> JobResult:
    return JobResult("failed", refusal.status, b"[]", body_of(refusal, request.request_id), refusal.code)


def _refusal_of(error: Refusal | AnswerCut | Gone) -> Refusal:
    match error:
        case Refusal():
            return error
        case AnswerCut():
            return Refusal("backend_cut", "Error connecting to backend service", message=str(error))
        case Gone():
            return Refusal("internal", "Internal server error", message="the job's request has no client to leave")


def _hash_of(request: Incoming) -> bytes:
    """Return what two requests with one Idempotency-Key must have in common."""
    parts = (request.method.encode("ascii"), request.raw_path, request.query, request.body_hash.encode("ascii"))
    return hashlib.sha256(b"\n".join(parts)).digest()


def _encoded(lines: Headers) -> bytes:
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in lines]
    return msgspec.json.encode(pairs)
