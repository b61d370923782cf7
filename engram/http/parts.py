"""A request's body that a handler reads as it comes, within the surface's bound and with a deadline for each part."""

from typing import final

from engram.http.asgi import Receive
from engram.http.errors import ApiError
from engram.http.head import Refused

CLOSE = (("connection", "close"),)


@final
class BodyParts:
    """`async for part in parts`: nothing is read from the client before the next part is asked for (back-pressure)."""

    __slots__ = ("_ended", "_most_bytes", "_receive", "_seen")

    def __init__(self, receive: Receive, most_bytes: int, *, ended: bool) -> None:
        self._receive = receive
        self._most_bytes = most_bytes
        self._seen = 0
        self._ended = ended

    def __aiter__(self) -> "BodyParts":
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes, never none. Raises ApiError 413, and what ended the body before its end (400, 408)."""
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise incomplete(message.get("refused"))
            self._ended = not message.get("more_body", False)
            part: bytes = message.get("body", b"")
            self._seen += len(part)
            if self._seen > self._most_bytes:
                raise too_large(self._most_bytes)
            if part:
                return part
        raise StopAsyncIteration

    async def client_left(self) -> None:
        """Wait until the client disconnects, or the answer has been sent; for use after the body's end.

        Raises RuntimeError before it: a client that leaves within the body ends the iteration.
        """
        if not self._ended:
            raise RuntimeError("the body is read to its end before its client is waited for")
        while (await self._receive())["type"] != "http.disconnect":
            pass


def incomplete(refused: Refused | None) -> ApiError:
    """Return the error for a body that did not arrive whole."""
    if refused is None:
        return ApiError(400, "incomplete_body", "the connection ended within the body", CLOSE)
    return ApiError(refused.status, refused.code, f"{refused}", CLOSE)


def too_large(most_bytes: int) -> ApiError:
    """Return the error for a body that is longer than `most_bytes`."""
    return ApiError(413, "body_too_large", f"a body may have {most_bytes} bytes", CLOSE)
