"""Keeps one connection to the orchestrator, again and again; takes jobs from it and delivers results to it.

    waiting --backoff over--> connecting --> authenticating --> serving
       ^                          |                |               |
       +------ refused, lost -----+----------------+---------------+

Each connection is authenticated once. What an orchestrator sends is a hint: it is asked at each connection, and every
`reconcile_s`, for jobs that it has sent in vain, unless acknowledgements of jobs alone carry results. Results that are
not acknowledged are sent again at each connection and after `resend_s`; the first one counts, for they bear the
job's id.
"""

import random
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from typing import Any, Final, Literal, final

import msgspec
import structlog
import trio

from actors import Backoff
from config.model import WorkerSettings
from engram import kill_points, wire
from engram.clock import Clock
from engram.http.client import HttpClient
from engram.ledger import Ledger, LedgerError
from engram.worker import records, rules
from engram.worker.connection import Connection, open_connection
from engram.worker.errors import LinkLost
from engram.worker.introduction import AUTHENTICATE, Introducer
from engram.worker.packets import SocketEvent
from engram.worker.rules import RefusedJob
from engram.worker.runner import JobRunner, Respond
from engram.worker.session import Session

RESULT: Final = "job_result"
RECONCILE: Final = "reconcile"
_PAGE: Final = 16
_NAMES_BYTES: Final = 16_384
"""Of ids of running jobs, which the orchestrator is told when it is asked for others."""
_MOST_DOUBLINGS: Final = 6
_MOST_PAGES: Final = 64
"""Answers to `reconcile` that are asked for in a row, each because the one before had jobs not heard of yet."""
_NOTE_S: Final = 0.2
"""Seconds for which acknowledgements are gathered: one that is lost with the process costs a resend."""
_JITTER: Final = 0.5

Phase = Literal["waiting", "connecting", "authenticating", "serving"]
ReadGpu = Callable[[], Awaitable[object]]
"""Returns the `gpu_info` of this machine: JSON."""
_unpack: Final = wire.msgpack_decoder(object)

_log = structlog.get_logger("engram.worker")


class LinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the connection is doing."""

    phase: Phase
    since: float
    """Unix seconds of the change to this phase."""
    connections: int
    """Sessions that were opened since the start."""
    failures: int
    """Attempts in a row that led to no steady connection."""
    last_loss: str
    ignored_events: int
    oversized_messages: int = 0
    """Messages that were dropped because they had more than `max_message_bytes`."""


@final
class Link:
    """The supervised loop."""

    def __init__(
        self,
        http: HttpClient,
        introducer: Introducer,
        ledger: Ledger,
        clock: Clock,
        rng: random.Random,
        settings: WorkerSettings,
        runner: JobRunner,
        gpu: ReadGpu,
        connected: Callable[[str], None],
    ) -> None:
        """Take `connected`, which is told of each attempt how it ended: `open`, `lost` or `refused`."""
        self._http = http
        self._introducer = introducer
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._by = rules.orchestrator_of(settings.orchestrator_url)
        self._runner = runner
        self._gpu = gpu
        self._connected = connected
        self._backoff = Backoff(settings.backoff_min_s, settings.backoff_max_s, jitter=_JITTER)
        self._session: Session | None = None
        self._acknowledged: list[str] = []
        self._to_note = trio.Event()
        self._phase: Phase = "waiting"
        self._since = clock.now()
        self._connections = 0
        self._failures = 0
        self._last_loss = ""
        self._ignored = 0
        self._oversized = 0

    @property
    def status(self) -> LinkStatus:
        """How it is doing."""
        return LinkStatus(
            phase=self._phase,
            since=self._since,
            connections=self._connections,
            failures=self._failures,
            last_loss=self._last_loss,
            ignored_events=self._ignored,
            oversized_messages=self._oversized,
        )

    async def run(self) -> None:
        """Connect, serve, and again, until cancelled. Raises LedgerError."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._note_acknowledged)
            while True:
                wait_s = await self._once()
                self._enter("waiting")
                await trio.sleep(wait_s)

    async def deliver(self, job_id: str, result: Any) -> None:
        """Send a result that was just kept, if there is a connection; it is sent again until it is acknowledged."""
        session = self._session
        if session is not None and session.authenticated.is_set():
            await self._send_result(session, job_id, result)

    async def flush(self) -> None:
        """Return when every result that was sent is acknowledged, or there is no connection; note those in the ledger.

        Raises LedgerError.
        """
        while (session := self._session) is not None and session.sent and not session.connection.lost:
            await session.settled.wait()
        await self._write_acknowledged()

    async def close(self) -> None:
        """End the session in order, if there is one."""
        if self._session is not None:
            await self._session.connection.close()

    # ---------------------------------------------------------------------------------------- connecting

    async def _once(self) -> float:
        """Connect and serve until the connection is lost; return seconds to wait before the next."""
        refused, began, opened = False, trio.current_time(), False
        try:
            self._enter("connecting")
            gpu_info = await self._gpu()
            connection = await open_connection(self._http, self._settings, self._introducer.hotkey)
            opened, began = True, trio.current_time()
            self._connections += 1
            self._connected("open")
            await self._serve(connection, gpu_info)
        except LinkLost as lost:
            self._last_loss, refused = str(lost), lost.refused
            self._connected("refused" if refused else "lost")
            _log.warning("orchestrator_lost" if opened else "orchestrator_not_reached", reason=str(lost))
        if opened and not refused and trio.current_time() - began >= self._settings.steady_s:
            self._failures = 0
        wait_s = self._backoff.max_s if refused else self._backoff.delay_s(self._failures, self._rng.random())
        self._failures += 1
        return wait_s

    async def _serve(self, connection: Connection, gpu_info: object) -> None:
        session = Session(connection, waits=self._settings.auth_s > 0)
        self._enter("authenticating")
        try:
            await self._introduce(connection, gpu_info)
            async with trio.open_nursery() as nursery:
                self._session = session
                nursery.start_soon(self._begin_serving, session)
                nursery.start_soon(self._send_results, session)
                nursery.start_soon(self._reconcile, session)
                lost = await self._read(session)
                nursery.cancel_scope.cancel()
            raise lost
        finally:
            self._session = None
            connection.abort("closed here")

    async def _introduce(self, connection: Connection, gpu_info: object) -> None:
        try:
            await connection.emit(AUTHENTICATE, self._introducer.introduction(gpu_info))
        except ValueError as error:
            raise LinkLost(f"this worker cannot be introduced: {error}") from error

    async def _begin_serving(self, session: Session) -> None:
        with trio.move_on_after(self._settings.auth_s or inf):
            await session.authenticated.wait()
        if session.authenticated.is_set():
            self._enter("serving")
            _log.info("orchestrator_connected", url=self._settings.orchestrator_url)
        else:
            session.connection.abort(f"the orchestrator did not answer auth_success within {self._settings.auth_s:g} s")

    async def _read(self, session: Session) -> LinkLost:
        async def on_event(event: SocketEvent) -> None:
            match event.name:
                case "job":
                    await self._take(session, event)
                case "auth_success":
                    session.authenticated.set()
                case "auth_failed":
                    reason = _error_of(event.arguments)
                    raise LinkLost(f"the orchestrator refused the hotkey: {reason}", refused=True)
                case _:
                    self._ignored += 1

        try:
            await session.connection.serve(on_event, partial(self._drop, session))
        except LinkLost as lost:
            return lost

    def _enter(self, phase: Phase) -> None:
        if phase != self._phase:
            self._phase, self._since = phase, self._clock.now()

    # ---------------------------------------------------------------------------------------- jobs

    async def _drop(self, session: Session, event: SocketEvent | None) -> None:
        self._oversized += 1
        most = self._settings.max_message_bytes
        _log.warning("message_too_large", most_bytes=most, reason="the orchestrator sent more; it was dropped")
        if event is not None and event.name == "job":
            await self._runner.refuse(RefusedJob(f"Job has more than {most} bytes"), _respond_to(session, event))

    async def _take(self, session: Session, event: SocketEvent) -> None:
        respond = _respond_to(session, event)
        job = rules.read_job(event.arguments)
        if isinstance(job, RefusedJob):
            await self._runner.refuse(job, respond)
        else:
            await self._runner.offer(job, respond)

    async def _reconcile(self, session: Session) -> None:
        # A job that came by no event has no acknowledgement to carry its result.
        if not self._settings.reconcile_s or self._settings.results == "ack":
            return
        await session.authenticated.wait()
        misses = 0
        while True:
            heard: set[str] = set()
            for _ in range(_MOST_PAGES):
                answer = await self._answer_to_reconcile(session)
                misses = misses + 1 if answer is None else 0
                before = len(heard)
                await self._take_all(_jobs_of(answer), heard)
                if len(heard) == before or not self._runner.has_room:
                    break
            await trio.sleep(self._settings.reconcile_s * 2 ** min(misses, _MOST_DOUBLINGS))

    async def _take_all(self, entries: list[Any], heard: set[str]) -> None:
        """Take jobs that were asked for while there is room, and add their ids to `heard`."""
        for entry in entries:
            if not self._runner.has_room:
                break
            job = rules.read_job([entry])
            if isinstance(job, RefusedJob) or job.id is None:  # without an id it would run at each asking
                self._ignored += 1
            else:
                heard.add(job.id)
                await self._runner.offer(job, _unheard)

    async def _answer_to_reconcile(self, session: Session) -> list[Any] | None:
        answers: list[list[Any]] = []
        answered = trio.Event()

        def on_ack(arguments: list[Any]) -> None:
            answers.append(arguments)
            answered.set()

        names = self._runner.names(_NAMES_BYTES)
        limits = {"limit": self._runner.room_beside(names), "max_bytes": self._settings.max_message_bytes}
        await session.connection.emit(RECONCILE, {"jobs": names, **limits}, on_ack=on_ack)
        with trio.move_on_after(self._settings.ack_s):
            await answered.wait()
        return answers[0] if answers else None

    # ---------------------------------------------------------------------------------------- results

    async def _send_results(self, session: Session) -> None:
        """Send all results that wait for their acknowledgement, then again those that still do."""
        await session.authenticated.wait()
        in_vain = seen = 0
        while self._settings.results == "event":
            sent = await self._send_all(session)
            if session.acknowledged > seen:
                in_vain, seen = 0, session.acknowledged
            elif sent:
                in_vain += 1
            with trio.move_on_after(rules.resend_after_s(self._settings.resend_s, in_vain)):
                if in_vain:
                    await session.settled.wait()  # the orchestrator takes results again: all others are due now
                else:
                    await trio.sleep_forever()

    async def _send_all(self, session: Session) -> int:
        """Send what is due, and give each page its time to be acknowledged; return how many were sent."""
        after = sent = 0
        await self._write_acknowledged()  # what the ledger knows of is not due
        while page := await self._page(after):
            fresh = trio.current_time() - self._settings.resend_s
            due = [(number, row) for number, row in page if session.sent.get(row.id, -inf) <= fresh]
            for _, row in due:
                await self._send_result(session, row.id, _unpack.decode(row.result))
            after, sent = page[-1][0], sent + len(due)
            names = {row.id for _, row in due}
            with trio.move_on_after(self._settings.ack_s):
                while names & session.sent.keys():
                    await session.settled.wait()
        return sent

    async def _page(self, after: int) -> list[tuple[int, Any]]:
        by = self._by
        try:
            return await self._ledger.read(lambda c: records.unacknowledged(c, by, after, _PAGE))
        except LedgerError as error:
            _log.warning("results_not_read", reason=str(error))
            return []

    async def _send_result(self, session: Session, job_id: str, result: Any) -> None:
        def on_ack(arguments: list[Any]) -> None:
            del arguments
            session.note_acknowledged(job_id)
            self._acknowledged.append(job_id)
            self._to_note.set()

        session.sent[job_id] = trio.current_time()
        try:
            await session.connection.emit(RESULT, {"id": job_id, "result": result}, on_ack=on_ack)
        except ValueError as error:
            unsent = rules.unknown(str(error)).result
            await session.connection.emit(RESULT, {"id": job_id, "result": unsent}, on_ack=on_ack)
        kill_points.point("worker_result:sent")

    async def _note_acknowledged(self) -> None:
        while True:
            await self._to_note.wait()
            await trio.sleep(_NOTE_S)  # several are noted by one commit
            self._to_note = trio.Event()
            await self._write_acknowledged()

    async def _write_acknowledged(self) -> None:
        names, self._acknowledged = self._acknowledged, []
        if not names:
            return
        by, at = self._by, self._clock.now()
        try:
            noted = await self._ledger.write(lambda c: records.acknowledge(c, by, names, at))
        except LedgerError as error:  # sent once more, acknowledged once more
            _log.warning("acknowledgements_not_noted", results=len(names), reason=str(error))
        else:
            self._runner.note_acknowledged(noted)


def _respond_to(session: Session, event: SocketEvent) -> Respond:
    async def respond(result: Any) -> bool:
        return event.ack_id is not None and await session.connection.acknowledge(event.ack_id, result)

    return respond


async def _unheard(result: Any) -> bool:
    """Answer a job that came by no event: its result is delivered as an event."""
    del result
    return False


def _jobs_of(answer: list[Any] | None) -> list[Any]:
    """Return the jobs of an acknowledgement `{"jobs": […]}`; none for any other."""
    first = answer[0] if answer else None
    jobs = first.get("jobs") if isinstance(first, dict) else None
    return jobs if isinstance(jobs, list) else []


def _error_of(arguments: list[Any]) -> str:
    first = arguments[0] if arguments else None
    return str(first.get("error", first) if isinstance(first, dict) else first)[:200]
