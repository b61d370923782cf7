"""A request's body: in memory, spooled, or still arriving from a client whose signature covers its digest."""

import hashlib
from collections.abc import AsyncGenerator
from typing import TypeAlias, final

import trio

from engram.http.framing import CHUNKED, Headers
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.refusing import Gone, Refusal
from engram.proxy.exchange.spool import MemoryShare, SpoolFile
from engram.proxy.limits.pace import LEAST_BYTES_PER_S, Pace


@final
class MemoryBody:
    """A whole body in memory."""

    live = False

    def __init__(self, content: bytes, share: MemoryShare | None = None, *, present: bool = True) -> None:
        """Take the memory that the content takes up; `present` is False for a request that has no body at all."""
        self._share = share
        self.content = content
        self.length: int | None = len(content) if present or content else None
        self.trailers: Headers = []

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """Yield the body."""
        if self.content:
            yield self.content

    def close(self) -> None:
        """Give its memory back."""
        if self._share is not None:
            self._share.close()


@final
class SpooledBody:
    """A whole body in a file."""

    live = False

    def __init__(self, file: SpoolFile) -> None:
        self._file = file
        self.length: int | None = file.size
        self.trailers: Headers = []

    def parts(self) -> AsyncGenerator[bytes, None]:
        """Yield the body."""
        return self._file.parts()

    def close(self) -> None:
        """Give its room back."""
        self._file.close()


@final
class LiveBody:
    """A body that is passed on while it arrives; its last part is held back until its digest is known to be right."""

    live = True

    def __init__(self, request: Incoming, digest: str, limit: int) -> None:
        declared = request.declared_length
        self.length: int | None = CHUNKED if declared is None else declared
        self.trailers: Headers = []
        self._request = request
        self._digest = digest
        self._limit = limit

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives. Raises Refusal (digest_mismatch, body_too_large, body_late) and Gone."""
        hashed, held, more = hashlib.sha256(), b"", True
        while more:
            data, more, self.trailers = await next_part(self._request, self._limit)
            if not data:
                continue
            hashed.update(data)
            if held:
                yield held
            held = data
        if hashed.hexdigest() != self._digest:
            raise Refusal("digest_mismatch", "The body is not the one that Content-Digest names", reason="bad_digest")
        if held:
            yield held

    def close(self) -> None:
        """Do nothing: the server discards what was not read."""


Body: TypeAlias = MemoryBody | SpooledBody | LiveBody


async def next_part(request: Incoming, limit: int) -> tuple[bytes, bool, Headers]:
    """Return the next bytes of the body, whether more follow, and the trailers after the last.

    Raises Refusal (body_late, body_too_large, bad_request), and Gone when the client left.
    """
    message = await request.receive()
    if message["type"] == "http.disconnect":
        refused = message.get("refused")
        if refused is None or refused.code == "incomplete_body":
            raise Gone
        code = "body_late" if refused.status == 408 else "bad_request"
        raise Refusal(code, refused.message, reason=refused.code)
    data: bytes = message.get("body", b"")
    request.received_bytes += len(data)
    if request.received_bytes > limit:
        raise too_large(limit)
    trailers: Headers = message.get("trailers", [])
    more: bool = message.get("more_body", False)
    request.read_to_end = not more
    return data, more, trailers


def too_large(limit: int) -> Refusal:
    """Return the refusal of a body that is longer than `limit`."""
    return Refusal("body_too_large", f"A request body may have {limit} bytes here")


def require_pace(request: Incoming, pace: Pace) -> None:
    """Refuse a body that arrives too slowly to wait for its proof. Raises Refusal (body_late)."""
    if not pace.holds(request.received_bytes, trio.current_time()):
        raise Refusal("body_late", f"The body arrives at less than {LEAST_BYTES_PER_S} bytes a second")
