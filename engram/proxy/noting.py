"""Notes how each request ended: in the log, in the metrics, and for `engram proxy why`."""

import msgspec
import trio

from engram.http.framing import Refused
from engram.proxy.endings import CLIENT_GONE, TABLE, Ended
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.state import State
from engram.telemetry import logs


class _Line(msgspec.Struct, frozen=True):
    module: str
    method: str
    path: str
    route: str
    status: int
    end: str
    ended_by: str
    phase: str
    took_ms: float
    client: str
    caller: str
    backend: str
    received_bytes: int
    sent_bytes: int
    detail: str
    request_id: str
    event: str
    level: str
    timestamp: str


def note(state: State, request: Incoming) -> None:
    """Note how a request ended."""
    took_s = trio.current_time() - request.started_s
    code = request.code or "internal"
    row = TABLE[code]
    path = request.raw_path.decode("latin-1")[:256]
    status = row.status if row.status == CLIENT_GONE else request.status or row.status
    caller = request.caller_address
    state.endings.note(
        Ended(
            request.request_id,
            code,
            status,
            request.method,
            path,
            request.route,
            request.client,
            caller,
            request.backend,
            took_s,
            state.clock.now(),
            request.received_bytes,
            request.sent_bytes,
            request.detail,
        )
    )
    metrics = state.metrics
    metrics.proxy_ends.labels(request.route, code).inc()
    metrics.proxy_seconds.labels(request.route, row.phase).observe(took_s)
    for phase, seconds in request.spent().items():
        metrics.proxy_phase_seconds.labels(request.route, phase).observe(seconds)
    if request.received_bytes:
        metrics.proxy_bytes.labels(request.route, "received").inc(request.received_bytes)
    if request.sent_bytes:
        metrics.proxy_bytes.labels(request.route, "sent").inc(request.sent_bytes)
    logs.batched(
        _Line(
            "engram.proxy",
            request.method,
            path,
            request.route,
            status,
            code,
            row.who,
            row.phase,
            round(took_s * 1000, 1),
            request.client,
            caller,
            request.backend,
            request.received_bytes,
            request.sent_bytes,
            request.detail,
            request.request_id,
            "request_ended",
            "info",
            logs.now(),
        )
    )


ENDINGS_OF_THE_SERVER = {408: "head_late", 429: "rate", 431: "head_too_large"}


def note_refused(state: State, refused: Refused, client: str, request_id: str) -> None:
    """Note a request that was refused while its head was read."""
    code = ENDINGS_OF_THE_SERVER.get(refused.status, "bad_request")
    state.endings.note(
        Ended(
            request_id,
            code,
            refused.status,
            "?",
            "?",
            "other",
            client,
            "",
            "",
            0.0,
            state.clock.now(),
            detail=str(refused),
        )
    )
    state.metrics.proxy_ends.labels("other", code).inc()
