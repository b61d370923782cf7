"""How requests end: one code each, in words. The table is the documentation's, and each row has a test.

A code names the phase in which the request ended and who ended it: the client, the proxy, or the backend.
"""

from collections import OrderedDict
from typing import Final, Literal, final

import msgspec

Who = Literal["client", "proxy", "backend"]
Phase = Literal["head", "admission", "body", "queue", "connect", "upload", "wait", "answer", "job"]


CLIENT_GONE: Final = 499
"""What the log has for a client that left, whatever part of an answer it had received."""


class Ending(msgspec.Struct, frozen=True):
    """A row of the table."""

    code: str
    status: int
    """What the client sees; 0: it varies (the backend's own), 499: nothing, it is in the log only."""
    who: Who
    phase: Phase
    words: str


_ROWS: Final = (
    Ending("done", 0, "backend", "answer", "The backend's answer was passed on whole, whatever its status."),
    Ending("own", 0, "proxy", "admission", "The proxy answered itself (/, /status, /check, /capacity, /jobs)."),
    Ending("no_route", 404, "proxy", "admission", "No route takes this path."),
    Ending("wrong_method", 405, "proxy", "admission", "The route does not take this method."),
    Ending("unsigned", 401, "proxy", "admission", "The request was not signed, or not in a form that is accepted."),
    Ending("wrong_receiver", 401, "proxy", "admission", "The request was signed for another miner."),
    Ending("clock_skew", 401, "proxy", "admission", "The request's timestamp is outside the window."),
    Ending("bad_signature", 401, "proxy", "body", "The signature does not belong to this key and body."),
    Ending("replay", 401, "proxy", "body", "The same signed request was received before."),
    Ending("refused", 403, "proxy", "admission", "The caller is not authorized: lists, permit or stake."),
    Ending("chain_stale", 503, "proxy", "admission", "The metagraph is too old to authorize the caller."),
    Ending("rate", 429, "proxy", "admission", "The address or key sent too many requests."),
    Ending("concurrency", 429, "proxy", "admission", "The address or key has too many requests in progress."),
    Ending("callers_full", 503, "proxy", "admission", "The table of callers is full."),
    Ending("replays_full", 503, "proxy", "body", "The memory for replays is full."),
    Ending("queue_full", 503, "proxy", "queue", "No place was free and the queue was full."),
    Ending("queue_late", 503, "proxy", "queue", "No place became free in time."),
    Ending("bad_request", 400, "client", "head", "The request is not valid HTTP, or its length is ambiguous."),
    Ending("head_too_large", 431, "client", "head", "The request's headers are too large or too many."),
    Ending("head_late", 408, "client", "head", "The headers did not arrive in time."),
    Ending("body_late", 408, "client", "body", "The body did not arrive in time."),
    Ending("body_too_large", 413, "client", "body", "The body is larger than the route takes."),
    Ending("digest_mismatch", 400, "client", "upload", "The body is not the one that Content-Digest names."),
    Ending("spool_full", 503, "proxy", "body", "There is no room to keep the body until it is proven."),
    Ending("breaker_open", 503, "proxy", "connect", "The backend failed too often; it is left alone for a moment."),
    Ending("backend_full", 503, "proxy", "connect", "All connections that the backend may have are in use."),
    Ending("not_connected", 502, "backend", "connect", "No connection to any server of the backend could be made."),
    Ending("backend_cut", 502, "backend", "wait", "The backend closed the connection before its answer."),
    Ending("backend_garbage", 502, "backend", "wait", "The backend's answer is not valid HTTP."),
    Ending("first_byte_late", 504, "backend", "wait", "The backend's answer did not begin in time."),
    Ending("total_late", 504, "backend", "wait", "The whole request took too long."),
    Ending("upload_stuck", 504, "backend", "upload", "The backend took no more of the body."),
    Ending("upstream_cut", 0, "backend", "answer", "The backend's answer broke off; the client's was cut there."),
    Ending("idle_late", 0, "backend", "answer", "The backend sent nothing for too long; the answer was cut there."),
    Ending("client_gone", 499, "client", "wait", "The client left before the answer began."),
    Ending("client_gone_body", 499, "client", "upload", "The client left while it sent its body."),
    Ending("client_gone_queue", 499, "client", "queue", "The client left while it waited for a place."),
    Ending(
        "client_gone_answer",
        499,
        "client",
        "answer",
        "The client left, or stopped reading, within the answer.",
    ),
    Ending("job", 202, "proxy", "job", "The backend was not done in time: the request became a job."),
    Ending("jobs_full", 503, "proxy", "job", "Too many jobs are running."),
    Ending("jobs_not_ready", 503, "proxy", "job", "The ledger has not yet taken note of the last process's jobs."),
    Ending("results_full", 503, "proxy", "job", "Results that were not fetched take up all the room for the caller's."),
    Ending("jobs_unavailable", 503, "proxy", "job", "The ledger did not read or write jobs; nothing was begun."),
    Ending("job_result_too_large", 502, "backend", "job", "The backend's answer is larger than a job's result may be."),
    Ending("job_conflict", 409, "proxy", "job", "The Idempotency-Key was used for another request."),
    Ending("no_job", 404, "proxy", "job", "There is no job of this id, or it is another key's."),
    Ending("own_refused", 0, "client", "admission", "The proxy's own endpoint refused the request."),
    Ending("draining", 503, "proxy", "admission", "The proxy is stopping."),
    Ending("internal", 500, "proxy", "admission", "A fault of the proxy; the log has its cause."),
)

TABLE: Final[dict[str, Ending]] = {row.code: row for row in _ROWS}


class Ended(msgspec.Struct, frozen=True):
    """How one request ended, for the log and `engram proxy why`."""

    request_id: str
    code: str
    status: int
    method: str
    path: str
    route: str
    client: str
    """Its address."""
    caller: str
    """The proven key's SS58 address, or empty."""
    backend: str
    took_s: float
    at: float
    """Unix time."""
    received_bytes: int = 0
    sent_bytes: int = 0
    detail: str = ""


def in_words(ended: Ended) -> str:
    """Explain how a request ended."""
    row = TABLE[ended.code]
    answered = f"the answer was {ended.status}"
    if ended.status == CLIENT_GONE:
        answered = "the client left within the answer" if ended.sent_bytes else "no answer was sent"
    caller = f" from {ended.caller}" if ended.caller else ""
    lines = [
        f"{ended.method} {ended.path}{caller} at {ended.client}: {answered}, after {ended.took_s:.3f} s.",
        f"{row.words} (code {row.code}: ended by the {row.who}, phase {row.phase})",
        f"Received {ended.received_bytes} bytes of its body, sent {ended.sent_bytes} bytes of an answer.",
    ]
    if ended.backend:
        lines.append(f"Backend: {ended.backend}.")
    if ended.detail:
        lines.append(f"Reason: {ended.detail}")
    return "\n".join(lines)


@final
class Endings:
    """The newest endings, by request id."""

    def __init__(self, kept: int = 10_000) -> None:
        self._kept = kept
        self._by_id: OrderedDict[str, Ended] = OrderedDict()

    def note(self, ended: Ended) -> None:
        """Keep an ending; the oldest one is dropped for it when there are too many."""
        self._by_id[ended.request_id] = ended
        if len(self._by_id) > self._kept:
            self._by_id.popitem(last=False)

    def of(self, request_id: str) -> Ended | None:
        """Return how this request ended; None when it is not known (any more)."""
        return self._by_id.get(request_id)
