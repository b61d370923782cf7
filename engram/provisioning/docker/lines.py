"""The JSON documents of an answer that comes bit by bit: events, and the progress of a pull."""

from collections.abc import AsyncGenerator
from typing import Final, TypeVar

import msgspec

from engram import wire
from engram.http.client import Answer
from engram.provisioning.errors import Unavailable

T = TypeVar("T")

MOST_LINE_BYTES: Final = 262_144


async def documents(answer: Answer, type_: type[T]) -> AsyncGenerator[T, None]:
    """Yield the documents of a stream, one a line. Raises Unavailable for what is none."""
    held = b""
    async for part in answer:
        *lines, held = (held + part).split(b"\n")
        for line in lines:
            if line.strip():
                yield _document(line, type_)
        if len(held) > MOST_LINE_BYTES:
            raise Unavailable(f"the engine sent a line of more than {MOST_LINE_BYTES} bytes")
    if held.strip():
        yield _document(held, type_)


def _document(line: bytes, type_: type[T]) -> T:
    try:
        return wire.decode(line, type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable(f"the engine sent what is no JSON: {error}") from None
