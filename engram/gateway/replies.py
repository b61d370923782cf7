"""Decodes bodies as JSON objects, and maps errors of the ledger to answers."""

import json

import msgspec
import structlog

from engram import wire
from engram.http.errors import ApiError
from engram.ledger import CommitUnknown, LedgerError

_log = structlog.get_logger("engram.gateway")

_OBJECT = wire.decoder(dict[str, object])

INVALID_JSON = "Invalid JSON body."
_SHOWN = 300


def json_object(body: bytes, most_values: int) -> dict[str, object]:
    """Return a request's body as a JSON object; duplicate keys are refused. Raises ApiError 400.

    `most_values` bounds the commas and brackets in the body, also those within strings: 256 KiB of empty objects would
    block the loop for 157 ms.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") > most_values:
        detail = f"The body has more than {most_values} values."
        raise ApiError(400, "invalid_json", INVALID_JSON, extra={"detail": detail})
    if b"\\u0000" in body:
        raise ApiError(400, "invalid_json", INVALID_JSON, extra={"detail": "No text here contains NUL (\\u0000)."})
    try:
        found = _OBJECT.decode(body)
        json.loads(body, object_pairs_hook=_pairs, parse_int=str, parse_float=str)
    except _KeyTwice as twice:
        raise ApiError(400, "invalid_json", INVALID_JSON, extra={"detail": shortened(str(twice))}) from None
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise ApiError(400, "invalid_json", INVALID_JSON) from None
    return found


class _KeyTwice(Exception):
    """A key occurs twice: two parsers could read the object differently."""


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise _KeyTwice(f"The key {key!r} stands twice in one object.")
        found[key] = value
    return found


def ledger_refusal(error: LedgerError) -> ApiError:
    """Return the 503 for an error of the ledger; it never says that the client's request has failed."""
    _log.error("ledger_unavailable", error=str(error))
    if isinstance(error, CommitUnknown):
        code, text = "outcome_unknown", "It is not known whether this was done; ask for the state."
    else:
        code, text = "unavailable", "Not now; try again."
    return ApiError(503, code, text, (("Retry-After", "2"),))


def shortened(text: str) -> str:
    """Return `text`, truncated when it quotes something long that a client sent."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
