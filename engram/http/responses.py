"""What the outbound client returns: whole answers, and answers that are read as they arrive."""

import zlib
from typing import Any, TypeVar, final

import msgspec

from engram import wire
from engram.http.answers import AnswerHead
from engram.http.errors import BadAnswer, TooLarge
from engram.http.framing import Headers
from engram.http.sending import Exchange

T = TypeVar("T")


class Response(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    """Lower-case names; repeated lines are joined by `, `."""
    content: bytes

    def json(self) -> Any:
        """Return the content as JSON. Raises BadAnswer when it is not JSON."""
        return self.decode(object)

    def decode(self, type_: type[T]) -> T:
        """Return the content as JSON of this msgspec type. Raises BadAnswer when it does not fit."""
        try:
            return wire.decode(self.content, type_)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadAnswer(f"the answer ({self.status}) is not the JSON it should be: {error}") from None


@final
class Answer:
    """An answer that is read as it arrives: `async for part in answer`, with back-pressure."""

    __slots__ = ("_exchange", "headers", "status")

    def __init__(self, head: AnswerHead, exchange: Exchange) -> None:
        self.status = head.status
        self.headers: Headers = head.headers
        """Names in lower case, one entry per line, in the order received."""
        self._exchange = exchange

    def __aiter__(self) -> "Answer":
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes, as they were sent (no content encoding is undone). Raises Interrupted."""
        part = await self._exchange.part()
        if part is None:
            raise StopAsyncIteration
        return part

    @property
    def trailers(self) -> Headers:
        """The trailers of a chunked body, once it has ended."""
        return self._exchange.trailers


async def whole(exchange: Exchange, max_bytes: int) -> Response:
    """Return the answer of an exchange, with its content decoded. Raises Interrupted, TooLarge, BadAnswer."""
    head = await exchange.head()
    received = bytearray()
    while head.length <= max_bytes and len(received) <= max_bytes:
        part = await exchange.part()
        if part is None:
            headers = _joined(head.headers)
            return Response(head.status, headers, _decoded(bytes(received), headers, max_bytes, head.status))
        received += part
    raise TooLarge(f"the answer has more than {max_bytes} bytes", head.status)


def _joined(raw: Headers) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _decoded(raw: bytes, headers: dict[str, str], max_bytes: int, status: int) -> bytes:
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding in ("identity", "") or not raw:
        return raw
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise BadAnswer(f"the answer is encoded as {encoding!r}, which nobody asked for")
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        content = inflater.decompress(raw, max_bytes + 1)
    except zlib.error as error:
        raise BadAnswer(f"the answer is not the {encoding} it says: {error}") from None
    if len(content) > max_bytes:
        raise TooLarge(f"the answer has more than {max_bytes} bytes", status)
    if not inflater.eof:
        raise BadAnswer(f"the answer's {encoding} ends early")
    if inflater.unused_data:
        raise BadAnswer(f"the answer has {len(inflater.unused_data)} bytes behind the end of its {encoding}")
    return content
