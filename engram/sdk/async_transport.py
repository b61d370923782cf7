"""The HTTP seam of the client for trio; the promises are those of transport.py."""

from typing import final

import httpx2
import trio

from engram.sdk.errors import MalformedAnswer, OutcomeUnknown
from engram.sdk.transport import MAX_ANSWER_BYTES, Answer, translated


@final
class AsyncTransport:
    """Requests to one base URL over kept-alive connections, several at once. Follows no redirects."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout_s, connect=min(5.0, timeout_s)),
            follow_redirects=False,
            trust_env=False,
            headers={"user-agent": "engram-sdk"},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def request(self, method: str, path: str, *, body: bytes | None = None) -> Answer:
        """Send a request and read the whole answer, whatever its status.

        Raises NotReached (nothing was sent), OutcomeUnknown, MalformedAnswer (more than 4 MiB).
        """
        lines = {"content-type": "application/json"} if body is not None else {}
        received = bytearray()
        with translated(method, self.url), trio.move_on_after(self._timeout_s):
            async with self._client.stream(method, self.url + path, content=body, headers=lines) as response:
                async for part in response.aiter_bytes():
                    received += part
                    if len(received) > MAX_ANSWER_BYTES:
                        raise MalformedAnswer(f"{method} {path} answered more than {MAX_ANSWER_BYTES} bytes")
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status_code, headers, bytes(received))
        raise OutcomeUnknown(f"{method} {path}: the answer had not ended after {self._timeout_s:g} s")
