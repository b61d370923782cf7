"""The HTTP transport of the trio client, with the guarantees of transport.py."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar, final

import httpx2
import trio

from engram.hotkeys.certificates import HEADER
from engram.sdk.errors import MalformedAnswer, OutcomeUnknown
from engram.sdk.node_calls import Call
from engram.sdk.transport import MAX_ANSWER_BYTES, Answer, body_lines, tls_context, translated

T = TypeVar("T")


@final
class AsyncTransport:
    """Sends requests to one base URL over kept-alive connections, several at once. Follows no redirects."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout_s, connect=min(5.0, timeout_s)),
            follow_redirects=False,
            verify=tls_context(self.url),
            trust_env=False,
            headers={"user-agent": "engram-sdk", HEADER: "1"},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def ask(self, call: Call[T]) -> T:
        """Send a node's call and read its answer. Raises like `request`, and what the call names."""
        return call.read(await self.request(call.method, call.path, body=call.body))

    @asynccontextmanager
    async def parts(
        self, path: str, body: bytes, *, silence_s: float
    ) -> AsyncGenerator[tuple[Answer, AsyncIterator[bytes]]]:
        """Send a request and open its long answer; `Answer.body` is empty when its status is 200, else it is the error.

        One that is silent for `silence_s` raises OutcomeUnknown.
        """
        lines = body_lines(body)
        timeout = httpx2.Timeout(silence_s, connect=5.0)
        with translated("POST", self.url):
            async with (
                self._client.stream("POST", self.url + path, content=body, headers=lines, timeout=timeout) as response,
                _body(response) as parts,
            ):
                headers = {name.lower(): value for name, value in response.headers.items()}
                if response.status_code == 200:
                    yield Answer(200, headers, b""), parts
                    return
                content = bytearray()
                async for part in parts:
                    content += part
                    if len(content) > MAX_ANSWER_BYTES:
                        break
                yield Answer(response.status_code, headers, bytes(content)), parts

    async def request(self, method: str, path: str, *, body: bytes | None = None) -> Answer:
        """Send a request and read the whole answer, whatever its status.

        Raises NotReached (nothing was sent), OutcomeUnknown, MalformedAnswer (more than 4 MiB).
        """
        lines = body_lines(body) if body is not None else {}
        received = bytearray()
        with translated(method, self.url), trio.move_on_after(self._timeout_s):
            async with (
                self._client.stream(method, self.url + path, content=body, headers=lines) as response,
                _body(response) as parts,
            ):
                async for part in parts:
                    received += part
                    if len(received) > MAX_ANSWER_BYTES:
                        raise MalformedAnswer(f"{method} {path} answered more than {MAX_ANSWER_BYTES} bytes")
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status_code, headers, bytes(received))
        raise OutcomeUnknown(f"{method} {path}: the answer had not ended after {self._timeout_s:g} s")


@asynccontextmanager
async def _body(response: httpx2.Response) -> AsyncGenerator[AsyncGenerator[bytes]]:
    """Yield the parts of an answer; the reader may stop at any of them.

    httpx2 closes an abandoned stream but leaves the generator under it to the garbage collector. Reading from the
    closed stream ends that generator too.
    """
    parts = response.aiter_bytes()
    try:
        yield parts
    finally:
        await response.aclose()
        with suppress(httpx2.TransportError, httpx2.StreamError):
            async for _ in parts:
                pass
