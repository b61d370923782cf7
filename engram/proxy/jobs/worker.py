"""Runs jobs: each is noted before its backend is called, ends once, and survives its client.

The nursery is the job's child of the tree; when that stops, running jobs are cut, and the next start notes them as
`unknown`: what the backend did is not known, so nothing is run again.
"""

import hashlib
from collections.abc import Sequence
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
from engram.proxy.limits.kept import KeptBytes
from engram.proxy.plan import Plan
from engram.proxy.routing import Matched
from engram.proxy.settings.model import JobSettings

_ID_BYTES: Final = 24
_SWEEP_S: Final = 30.0
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
        self.canceled = False
        self.announced = False
        """Whether its id has been given: its result is fetched, and is no answer any more."""
        self.ending = False
        """Whether its result is known and being noted."""

    def cancel(self) -> None:
        """Cut it, because its client left before it was given the id."""
        self.canceled = True
        self.scope.cancel()


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
        self._ledger = ledger
        self._clock = clock
        self._ids = ids
        self._settings = settings
        self._nursery: trio.Nursery | None = None
        self._running: dict[str, RunningJob] = {}
        self._kept = KeptBytes(settings.kept_bytes)

    def change(self, settings: JobSettings) -> None:
        """Apply other settings to jobs that begin from now on."""
        self._settings = settings
        self._kept.in_all = settings.kept_bytes

    @property
    def kept_bytes(self) -> int:
        """Bytes of the results that are kept."""
        return len(self._kept)

    def __len__(self) -> int:
        return len(self._running)

    async def run(self, context: Context) -> None:
        """Note what the last process left running, then hold the jobs until stopped."""
        interrupted = await self._ledger.write(lambda connection: records.interrupt(connection, self._clock.now()))
        if interrupted:
            _log.warning("jobs_unknown", jobs=interrupted, reason="the process ended while they ran")
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            context.ready()
            try:
                while True:
                    await self._expire()
                    await trio.sleep(_SWEEP_S)
            finally:
                self._nursery = None

    async def _expire(self) -> None:
        now, keep_s = self._clock.now(), self._settings.keep_s
        await self._ledger.write(lambda connection: records.expire(connection, now - keep_s, now - _FETCHED_KEPT_S))
        self._kept.replace(await self._ledger.read(records.kept_bytes))

    async def begin(self, plan: Plan, undertaking: Undertaking, idempotency_key: str | None) -> RunningJob | Job:
        """Run a request as a job; return the job of before where its Idempotency-Key was used already.

        The undertaking's body and slots are the job's once this returns a RunningJob. Raises Refusal (jobs_full,
        job_conflict) and LedgerError.
        """
        request = undertaking.request
        if self._nursery is None or len(self._running) >= self._settings.open:
            raise Refusal("jobs_full", "The miner runs as many jobs as it may", retry_after_s=5)
        assert request.caller is not None
        if not self._kept.has_room(request.caller):
            text = "Results of your jobs take up their room: fetch them, or wait until they expire"
            raise Refusal("jobs_full", text, reason="results_full", retry_after_s=_FETCHED_KEPT_S)
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
            known = await self._ledger.write(lambda connection: records.begin(connection, job, idempotency_key))
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

        Raises Refusal (job_conflict) and LedgerError.
        """
        caller = request.caller
        assert caller is not None
        job = await self._ledger.read(lambda connection: records.under(connection, caller, idempotency_key))
        return None if job is None else self._same(job, request)

    def _same(self, known: Job, request: Incoming) -> RunningJob | Job:
        if known.request_hash != _hash_of(request):
            raise Refusal("job_conflict", "This Idempotency-Key was used for another request")
        return self._running.get(known.id) or known

    def _start(self, plan: Plan, undertaking: Undertaking, running: RunningJob) -> None:
        if self._nursery is None:
            del self._running[running.job.id]
            raise Refusal("draining", "The miner is stopping", retry_after_s=5)
        self._nursery.start_soon(self._work, plan, undertaking, running)

    async def _work(self, plan: Plan, undertaking: Undertaking, running: RunningJob) -> None:
        try:
            result = await self._result(plan, undertaking, running)
            kill_points.point("proxy_job:answered")
            running.ending = True
            at, job = self._clock.now(), running.job
            fetched_at = None if running.announced or running.keyed else at
            with trio.CancelScope(shield=True):
                await self._ledger.write(lambda connection: records.end(connection, job.id, result, at, fetched_at))
            self._kept.add(job.owner, len(result.body) + len(result.headers))
            running.result = result
        except Exception:  # noqa: BLE001 -- one job's fault ends no other: it stays `running` until the next start
            _log.exception("job_failed", job_id=running.job.id)
        finally:
            undertaking.body.close()
            for slot in undertaking.slots:
                slot.release()
            del self._running[running.job.id]
            running.ended.set()

    async def _result(self, plan: Plan, undertaking: Undertaking, running: RunningJob) -> JobResult:
        request, settings = undertaking.request, self._settings
        route = undertaking.matched.route
        buffer = Buffer(settings.max_result_bytes)
        transfer = Transfer(
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
                if buffer.too_large:
                    failed = Refusal("job_result_too_large", "The backend's answer is too large to be kept")
                else:
                    return JobResult("done", buffer.status, _encoded(buffer.lines), bytes(buffer.body), "done")
        if running.canceled:
            return JobResult("canceled", 499, b"[]", b"", "client_gone")
        body = body_of(failed, request.request_id)
        return JobResult("failed", failed.status, b"[]", body, failed.code)

    async def find(self, job_id: str, request: Incoming) -> Job | None:
        """Return a job of the request's caller."""
        caller = request.caller
        assert caller is not None
        return await self._ledger.read(lambda connection: records.of(connection, job_id, caller))

    async def note_fetched(self, job_id: str) -> None:
        """Note that a result has been sent."""
        at = self._clock.now()
        await self._ledger.write(lambda connection: records.fetched(connection, job_id, at))


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
