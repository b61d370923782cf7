"""Turns results and errors of a node into answers, and disguises private ones.

Clients of the original expect HTTP 200 with a filled `error` for a request that breaks a rule, at the endpoints whose
table row says so; elsewhere that is 400. A malformed request is always 400, missing rights are 401 or 403, and a node
that cannot answer now returns 503 with Retry-After. Never 500.
"""

from __future__ import annotations

from typing import Any, Final, final

import msgspec
import trio
from prometheus_client import Counter, Histogram

from engram.api import node
from engram.api.call import Call, Reply, Surface
from engram.http.errors import ApiError
from engram.http.request import Answer, refusal
from engram.memory.errors import (
    EmbedderUnavailable,
    IndexUnavailable,
    InvalidInput,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    RecordDamaged,
    TruthUnavailable,
    WriteUnknown,
)
from engram.memory.store.attestations import AttestedByAnother
from engram.memory.store.key_shares import ShareExists
from engram.miner.auth import Caller
from engram.miner.disguise import Disguise, timed
from engram.miner.errors import Refused
from engram.telemetry.metrics import Metrics

RETRY: Final = (("Retry-After", "2"),)
BROKEN_RULE: Final = 200
"""Placeholder for the status that the endpoint's row gives to a broken rule."""


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to an error."""

    status: int
    error: str
    code: str | None = None
    field: str | None = None


class _Counted(msgspec.Struct, frozen=True):
    outcomes: Counter
    seconds: Histogram
    good: str


@final
class NodeSurface(Surface[Caller]):
    """Makes the answers of a node."""

    def __init__(self, disguise: Disguise, metrics: Metrics) -> None:
        self._disguise = disguise
        self._counted = {
            node.INGEST.id: _Counted(metrics.ingests, metrics.ingest_seconds, "stored"),
            node.QUERY.id: _Counted(metrics.queries, metrics.query_seconds, "answered"),
        }

    def refuse(self, call: Call[Any, Caller], error: Exception) -> Reply[object] | Answer | None:
        """Return the answer to an error in the endpoint's form; None for an internal error."""
        if isinstance(error, ApiError):
            return refusal(call.http, error)
        if isinstance(error, Refused) and error.names_private:
            call.is_private = call.route.private
        refused = refusal_of(error)
        if refused is None:
            return None
        status = call.route.rule_status if refused.status == BROKEN_RULE else refused.status
        more = {} if refused.code is None else {"code": refused.code}
        if refused.field is not None:
            more["field"] = refused.field
        body = {**call.route.failed, "error": refused.error, **more}
        return Reply(body, RETRY if status == 503 else (), status)

    async def finish(self, call: Call[Any, Caller], given: Reply[object] | Answer) -> Answer:
        """Return the encoded answer, disguised when it is private."""
        if isinstance(given, Answer):
            return given
        if call.is_private:
            content = await self._disguise.encoded(given.body, call.arrived_s)
        else:
            body = timed(given.body, trio.current_time() - call.arrived_s) if call.route.private else given.body
            content = msgspec.json.encode(body)
        status = given.status or call.route.success.status
        if (counted := self._counted.get(call.route.id)) is not None:
            outcome = "failed" if status >= 500 else "refused" if isinstance(given.body, dict) else counted.good
            counted.outcomes.labels(outcome).inc()
            counted.seconds.observe(trio.current_time() - call.arrived_s)
        return Answer(status, content, given.headers)


def refusal_of(error: Exception) -> Refusal | None:
    """Return the answer to an expected error; None for any other."""
    match error:
        case QuotaExceeded():
            return Refusal(BROKEN_RULE, str(error), "over_quota")
        case InvalidInput():
            return Refusal(BROKEN_RULE, str(error))
        case InvalidRequest():
            return Refusal(400, str(error), "malformed")
        case Refused():
            return Refusal(error.status, str(error), error.code, error.field)
        case NotFound():
            return Refusal(404, str(error) or "not found", "not_found")
        case ShareExists():
            return Refusal(409, str(error), "share_exists")
        case AttestedByAnother():
            return Refusal(403, str(error), "not_owner")
        case EmbedderUnavailable():
            return Refusal(503, str(error), "embedder_unavailable")
        case RecordDamaged():
            return Refusal(503, str(error), "record_damaged")
        case TruthUnavailable() | IndexUnavailable():
            return Refusal(503, f"{error}; try again.", "store_unavailable")
        case WriteUnknown():
            text = f"{error}; it may have been stored: try again, nothing is stored twice."
            return Refusal(503, text, "unknown")
        case _:
            return None
