"""Answers of a node: their shape, what errors become, and how private ones are made to look alike.

Clients of the original rely on HTTP 200 with a filled `error` where what they send breaks a rule; malformed
requests get 400, missing rights 401 or 403, a node that cannot answer now 503 with Retry-After. Never 500.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, final

import msgspec
import trio

from engram.hotkeys.python_json import JsonValue
from engram.memory import padding
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
from engram.miner.errors import Refused

RETRY = (("Retry-After", "2"),)
PADDING = "_p"
LATENCY = "latency_ms"


class Answer(msgspec.Struct, frozen=True):
    """What goes back: status, JSON body, extra headers."""

    status: int
    body: dict[str, object]
    headers: tuple[tuple[str, str], ...] = ()


class Form(Protocol):
    """How an endpoint tells an error."""

    def __call__(self, status: int, error: str | None, **more: object) -> Answer:
        """Returns the answer; `status` 200 is for a broken rule."""
        ...


@final
class Asked:
    """A request while it is answered."""

    def __init__(self) -> None:
        self.arrived_s = trio.current_time()
        self.is_private = False
        """Whether it named a private namespace, whoever sent it and whether or not there is one."""


class Disguise(msgspec.Struct, frozen=True):
    """How private answers are disguised; `late` is called for one that took longer than a bucket."""

    bucket_s: float
    late: Callable[[], None]

    async def of(self, asked: Asked, answer: Answer) -> Answer:
        """Returns the answer padded in size, at the time when it may go out; of its latency it tells no more."""
        body: dict[str, object] = {**answer.body, PADDING: ""}
        out_at = now = trio.current_time()
        if self.bucket_s > 0:
            out_at = padding.answer_at(asked.arrived_s, now, self.bucket_s)
            if LATENCY in body:
                body[LATENCY] = round((out_at - asked.arrived_s) * 1000, 3)
        size = len(msgspec.json.encode(body))
        body[PADDING] = "x" * (padding.padded_size(size) - size)
        if self.bucket_s > 0:
            if now - asked.arrived_s > self.bucket_s:
                self.late()
            await trio.sleep_until(out_at)
        return msgspec.structs.replace(answer, body=body)


async def told(disguise: Disguise, act: Callable[[Asked], Awaitable[Answer]], form: Form) -> Answer:
    """Turns what can go wrong into the endpoint's own form of an error, and disguises what is private."""
    asked = Asked()

    async def noted() -> Answer:
        try:
            return await act(asked)
        except Refused as refused:
            asked.is_private = asked.is_private or refused.names_private
            raise

    answer = await told_openly(noted, form)
    return await disguise.of(asked, answer) if asked.is_private else answer


async def told_openly(act: Callable[[], Awaitable[Answer]], form: Form) -> Answer:
    """Turns what can go wrong into the endpoint's own form of an error."""
    try:
        return await act()
    except (InvalidInput, InvalidRequest, QuotaExceeded) as error:
        status, text, more = error_of(error)
        return form(status, text, **more)
    except Refused as error:
        more = {} if error.field is None else {"field": error.field}
        return form(error.status, str(error), code=error.code, **more)
    except NotFound as error:
        return form(404, str(error) or "not found", code="not_found")
    except ShareExists as error:
        return form(409, str(error), code="share_exists")
    except AttestedByAnother as error:
        return form(403, str(error), code="not_owner")
    except EmbedderUnavailable as error:
        return form(503, str(error), code="embedder_unavailable")
    except RecordDamaged as error:
        return form(503, str(error), code="record_damaged")
    except (TruthUnavailable, IndexUnavailable) as error:
        return form(503, f"{error}; try again.", code="store_unavailable")
    except WriteUnknown as error:
        return form(503, f"{error}; it may have been stored: try again, nothing is stored twice.", code="unknown")


def plain(status: int, error: str | None, **more: object) -> Answer:
    """The form of endpoints that have no 200 with an error."""
    status = 400 if status == 200 else status
    return Answer(status, {"error": error, **more}, RETRY if status == 503 else ())


def error_of(error: InvalidInput | InvalidRequest | QuotaExceeded) -> tuple[int, str, dict[str, object]]:
    """Returns status, text and further fields for what a client did wrong."""
    match error:
        case QuotaExceeded():
            return 200, str(error), {"code": "over_quota"}
        case InvalidInput():
            return 200, str(error), {}
        case InvalidRequest():
            return 400, str(error), {"code": "malformed"}


def string(fields: Mapping[str, JsonValue], name: str) -> str:
    """Returns a field of ASCII text. Raises InvalidRequest."""
    value = fields.get(name)
    if not isinstance(value, str) or not value.isascii():
        raise InvalidRequest(f"{name} must be a string of ASCII characters.")
    return value


def hex32(fields: Mapping[str, JsonValue], name: str) -> bytes:
    """Returns a field of 32 bytes in hex. Raises InvalidRequest."""
    text = string(fields, name).removeprefix("0x")
    try:
        decoded = bytes.fromhex(text)
    except ValueError:
        decoded = b""
    if len(decoded) != 32:
        raise InvalidRequest(f"{name} must be 64 hex digits.")
    return decoded


def from_parameters(parameters: Mapping[str, str], **path: str) -> bytes:
    """Returns the parameters of a GET as the body that signatures cover: names of the path win."""
    typed: dict[str, JsonValue] = {**parameters, **path}
    for name in ("namespace_timestamp_ms", "namespace_sig_version", "nonce"):
        value = parameters.get(name)
        if value is not None and value.isascii() and value.isdigit() and len(value) <= 16:
            typed[name] = int(value)
    return msgspec.json.encode(typed)
