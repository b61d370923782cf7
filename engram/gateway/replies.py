"""JSON in and out of the handlers."""

from collections.abc import Iterable

import msgspec
import structlog
from quart import Response, request

from engram.http.errors import ApiError
from engram.ledger import CommitUnknown, LedgerError

_log = structlog.get_logger("engram.gateway")

_OBJECT = msgspec.json.Decoder(dict[str, object])

INVALID_JSON = "Invalid JSON body."
_SHOWN = 300


def reply(answer: object, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """A JSON answer that no cache keeps."""
    response = Response(msgspec.json.encode(answer), status=status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    for name, value in headers:
        response.headers[name] = value
    return response


def json_object(body: bytes) -> dict[str, object]:
    """A request's body as a JSON object. Raises ApiError 400."""
    try:
        return _OBJECT.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ApiError(400, "invalid_json", INVALID_JSON) from None


async def body_bytes() -> bytes:
    """The request's whole body."""
    body = await request.get_data(as_text=False)
    assert isinstance(body, bytes)
    return body


def ledger_refusal(error: LedgerError) -> ApiError:
    """What is answered when the ledger cannot be asked: not the client's fault, and no failure of what it began."""
    _log.error("ledger_unavailable", error=str(error))
    if isinstance(error, CommitUnknown):
        code, text = "outcome_unknown", "It is not known whether this was done; ask for the state."
    else:
        code, text = "unavailable", "Not now; try again."
    return ApiError(503, code, text, (("Retry-After", "2"),))


def shortened(text: str) -> str:
    """`text`, cut when it repeats something long that a client sent."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
