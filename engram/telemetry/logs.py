"""Structured logs on standard error: one line per event, as JSON or for people, never with secrets.

An event is a word (`payment_settled`) with its facts as keywords. `request_id` is added to everything that is logged
while a request is answered. The lines of answered requests are written in batches: made and written one by one, each
would cost a tenth of a search.
"""

import contextlib
import datetime as dt
import json as json_of
import logging
import re
import sys
import time
from collections import deque
from collections.abc import Hashable, MutableMapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final, Protocol, TextIO, cast, final

import msgspec
import structlog

REDACTED: Final = "[redacted]"

_SECRET: Final = frozenset(
    {
        "apikey",
        "authorization",
        "cookie",
        "mnemonic",
        "passphrase",
        "password",
        "payload",
        "payment",
        "phrase",
        "private",
        "secret",
        "seed",
        "sig",
        "signature",
        "ticket",
        "token",
    }
)
"""Words in a key's name that mark its value as a secret …"""

_HARMLESS: Final = frozenset(["bytes", "count", "hash", "id", "ids", "network", "state", "status", "tx"])
"""… unless the name ends in one of these: `payment_id` identifies a payment without revealing it."""

_WORD: Final = re.compile("[a-z0-9]+")

_HELD: Final = 64
"""Lines of requests that are written in one batch."""

_UNWRITABLE: Final = (OSError, ValueError)
"""Exceptions of a stream that is full, broken or closed."""

_TELLING: Final = (str, bytes, list, tuple, dict)
"""Types whose value would reveal a secret."""


class Identified(Protocol):
    """A request."""

    request_id: str


answering: Final = ContextVar[Identified | None]("engram.answering", default=None)
"""The request that this task answers."""


def configure(level: str, json: bool, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records of `level` and above to `stream` (standard error).

    What cannot be written there (a full disk, a reader that has gone) is dropped without an error.
    `json` chooses one JSON object a line over colored text. Called once, by the composition root.
    """
    number = logging.getLevelNamesMapping()[level]
    lossy = _Lossy(stream or sys.stderr)
    target = cast(TextIO, lossy)
    _requests.wanted = number <= logging.INFO
    _requests.held_by = lossy if json and _requests.wanted else None
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _name_module,
        _identify,
        structlog.processors.add_log_level,
        _stamp,
        redact,
    ]
    renderer: Any
    if json:
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)  # locals hold secrets
        shared.append(structlog.processors.ExceptionRenderer(tracebacks))
        renderer = structlog.processors.JSONRenderer(serializer=_encode)
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *names: _Logger(target, names),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[_unmeta, renderer]))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.WARNING))


@final
class _Logger(structlog.WriteLogger):
    """A logger that knows by which name it was made."""

    def __init__(self, stream: TextIO, names: tuple[str, ...]) -> None:
        super().__init__(stream)
        self.name = names[0] if names else ""


def _name_module(logger: Any, _: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Say which part of the program speaks."""
    record = event.get("_record")
    if name := record.name if record is not None else getattr(logger, "name", ""):
        event.setdefault("module", name)
    return event


@final
class _Lossy:
    """A stream for loggers that never raises: a lost line must not end a request or an actor."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._held: deque[str] = deque()
        self._cut = False
        """The last write failed, perhaps in the middle of a line."""

    def write(self, text: str) -> int:
        self.write_held()
        self._put(text)
        return len(text)

    def hold(self, line: str) -> None:
        self._held.append(line)
        if len(self._held) >= _HELD:
            self.write_held()

    def write_held(self) -> None:
        lines: list[str] = []
        with contextlib.suppress(IndexError):  # other threads may write too
            while True:
                lines.append(self._held.popleft())
        if lines:
            self._put("\n".join(lines) + "\n")
            self.flush()

    def flush(self) -> None:
        try:
            self._stream.flush()
        except _UNWRITABLE:
            self._cut = True

    def _put(self, text: str) -> None:
        """Write whole lines, on a line of their own whatever was written of those before."""
        try:
            self._stream.write("\n" + text if self._cut else text)
            self._cut = False
        except _UNWRITABLE:
            self._cut = True

    def isatty(self) -> bool:
        return self._stream.isatty()


class _RequestLine(msgspec.Struct, frozen=True):
    surface: str
    method: str
    path: str
    status: int
    took_ms: float
    client: str
    event: str
    request_id: str
    module: str
    level: str
    timestamp: str


@final
class _Requests:
    """The batch of request lines; None where they are written like all others."""

    held_by: _Lossy | None = None
    wanted: bool = True
    """Whether the log level admits them."""


_requests: Final = _Requests()
_MODULE: Final = "engram.http"
_log = structlog.get_logger(_MODULE)


def request(surface: str, *, method: str, path: str, status: int, took_ms: float, client: str, request_id: str) -> None:
    """Note an answered request. As JSON the line is held until `write_held` or any other line."""
    held_by = _requests.held_by
    if held_by is None:
        if not _requests.wanted:
            return
        _log.info(
            "request",
            surface=surface,
            method=method,
            path=path,
            status=status,
            took_ms=took_ms,
            client=client,
            request_id=request_id,
        )
        return
    line = _RequestLine(surface, method, path, status, took_ms, client, "request", request_id, _MODULE, "info", _now())
    try:
        held_by.hold(msgspec.json.encode(line).decode("utf-8"))
    except UnicodeEncodeError:
        held_by.hold(json_of.dumps(msgspec.structs.asdict(line)))


def batched(line: msgspec.Struct) -> None:
    """Note a line of any other kind as `request` does; it has the fields `event`, `level` and `timestamp`."""
    held_by = _requests.held_by
    if held_by is None:
        if _requests.wanted:
            fields = msgspec.structs.asdict(line)
            known = {name: value for name, value in fields.items() if name not in ("event", "level", "timestamp")}
            _log.info(fields["event"], **known)
        return
    try:
        held_by.hold(msgspec.json.encode(line).decode("utf-8"))
    except UnicodeEncodeError:
        held_by.hold(json_of.dumps(msgspec.structs.asdict(line)))


def now() -> str:
    """Return the time as lines have it."""
    return _now()


def write_held() -> None:
    """Write the held lines of requests; call it a few times a second, and at the end."""
    if _requests.held_by is not None:
        _requests.held_by.write_held()


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the values of secret keys, at any depth of mappings (a structlog processor)."""
    for key, value in event.items():
        if _is_secret(key):
            if isinstance(value, _TELLING):
                event[key] = REDACTED
        elif isinstance(value, dict):
            event[key] = redact(None, "", dict(value))
    return event


def _identify(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the id of the request that is being answered (a structlog processor)."""
    if (request := answering.get()) is not None:
        event.setdefault("request_id", request.request_id)
    return event


def _stamp(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the time of an event (a structlog processor)."""
    event["timestamp"] = _now()
    return event


def _now() -> str:
    """Return the time, UTC, as ISO 8601 has it."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds // 1_000:06d}Z"


@lru_cache(maxsize=1)
def _second(unix_s: int) -> str:
    return dt.datetime.fromtimestamp(unix_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=1_024)
def _is_secret(key: Hashable) -> bool:
    words = _WORD.findall(str(key).lower())  # a header's name may be bytes, a status a number
    return _HARMLESS.isdisjoint(words[-1:]) and not _SECRET.isdisjoint(words)


def _encode(event: object, **_: Any) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=repr).decode("utf-8")
    except UnicodeEncodeError:  # an unpaired surrogate from a client
        return json_of.dumps(event, default=repr)


def _unmeta(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event
