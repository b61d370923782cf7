"""Structured logs on standard error: one line an event, JSON or for people, secrets never in either.

An event is a word (`payment_settled`) and its facts as keywords. `request_id` is bound for everything that is logged
while a request is answered.
"""

import contextlib
import json as json_of
import logging
import sys
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any, Final, TextIO, cast, final

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
"""Words in a key's name that make its value a secret."""

_HARMLESS: Final = frozenset(["bytes", "count", "hash", "id", "ids", "network", "state", "status", "tx"])
"""… unless the name ends in one of these: `payment_id` says which, not what."""

_TELLING: Final = (str, bytes, list, tuple)
"""What of a secret would be told by its value."""


def configure(level: str, json: bool, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records of `level` and above to `stream` (standard error).

    What cannot be written there (a full disk, a reader that has gone) is lost, and nobody is troubled by it.
    `json` chooses one JSON object a line over coloured text. Called once, by the composition root.
    """
    number = logging.getLevelNamesMapping()[level]
    target = cast(TextIO, _Lossy(stream or sys.stderr))
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
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
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[_unmeta, renderer]))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.WARNING))


@final
class _Lossy:
    """A stream as loggers use it. To fail with it would end requests, and actors, for the sake of a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: values of secret keys, at any depth of mappings, are replaced."""
    for key, value in event.items():
        if isinstance(value, dict):
            event[key] = REDACTED if _is_secret(key) else redact(None, "", dict(value))
        elif isinstance(value, _TELLING) and _is_secret(key):
            event[key] = REDACTED
    return event


@lru_cache(maxsize=1_024)
def _is_secret(key: str) -> bool:
    words = key.lower().replace("-", "_").split("_")
    return words[-1] not in _HARMLESS and not _SECRET.isdisjoint(words)


def _encode(event: object, **_: Any) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=repr).decode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair that somebody sent
        return json_of.dumps(event, default=repr)


def _unmeta(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event
