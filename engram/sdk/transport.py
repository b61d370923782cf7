"""The client's HTTP transport: one request, one bounded answer, and errors that say whether anything was sent."""

import ssl
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Final, final

import httpx2
import msgspec

from engram import wire
from engram.hotkeys import content_digest
from engram.hotkeys.certificates import HEADER
from engram.sdk.errors import ApiError, MalformedAnswer, NotReached, OutcomeUnknown

MAX_ANSWER_BYTES: Final = 4_194_304
MAX_EVENT_BYTES: Final = 262_144


class Answer(msgspec.Struct, frozen=True):
    """A whole answer. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class ErrorBody(msgspec.Struct, frozen=True):
    """`{"error","code","request_id"}`; all may be missing in answers of proxies in front of the gateway."""

    error: str = ""
    code: str = ""
    request_id: str = ""


@final
class Transport:
    """Requests to one base URL over kept-alive connections. Follows no redirects. Not thread-safe."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(timeout_s, connect=min(5.0, timeout_s)),
            follow_redirects=False,
            verify=tls_context(self.url),
            trust_env=False,
            headers={"user-agent": "engram-sdk", HEADER: "1"},
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and read the whole answer, whatever its status.

        Raises NotReached (nothing was sent), OutcomeUnknown, MalformedAnswer (more than 4 MiB).
        """
        lines = dict(headers or {}) | (body_lines(body) if body is not None else {})
        with (
            translated(method, self.url),
            self._client.stream(method, self.url + path, content=body, headers=lines) as response,
        ):
            received = bytearray()
            deadline = time.monotonic() + self._timeout_s
            for part in response.iter_bytes():
                received += part
                if time.monotonic() > deadline:
                    raise OutcomeUnknown(f"{method} {path}: the answer had not ended after {self._timeout_s:g} s")
                if len(received) > MAX_ANSWER_BYTES:
                    raise MalformedAnswer(f"{method} {path} answered more than {MAX_ANSWER_BYTES} bytes")
            return Answer(response.status_code, _headers(response), bytes(received))

    @contextmanager
    def parts(self, path: str, body: bytes, *, silence_s: float) -> Generator[tuple[Answer, Iterator[bytes]]]:
        """Send a request and open its long answer; `Answer.body` is empty when its status is 200, else it is the error.

        One that is silent for `silence_s` raises OutcomeUnknown.
        """
        lines = body_lines(body)
        timeout = httpx2.Timeout(silence_s, connect=5.0)
        with (
            translated("POST", self.url),
            self._client.stream("POST", self.url + path, content=body, headers=lines, timeout=timeout) as response,
        ):
            if response.status_code != 200:
                yield Answer(response.status_code, _headers(response), _bounded(response.iter_bytes())), iter(())
                return
            yield Answer(200, _headers(response), b""), response.iter_bytes()

    @contextmanager
    def lines(
        self, path: str, headers: Mapping[str, str], *, silence_s: float
    ) -> Generator[tuple[Answer, Iterator[str]]]:
        """Open a stream of text lines; the answer's body is empty when its status is 200, else it is the error.

        A stream that is silent for `silence_s` raises OutcomeUnknown.
        """
        timeout = httpx2.Timeout(silence_s, connect=5.0)
        with (
            translated("GET", self.url),
            self._client.stream("GET", self.url + path, headers=dict(headers), timeout=timeout) as response,
        ):
            if response.status_code != 200:
                yield Answer(response.status_code, _headers(response), response.read()), iter(())
                return
            yield Answer(200, _headers(response), b""), _bounded_lines(response.iter_text())


def body_lines(body: bytes) -> dict[str, str]:
    """Return the headers of a JSON body; a proxy that knows its digest can prove the request before it has the body."""
    return {"content-type": "application/json"} | content_digest.lines_of(body)


def error_of(answer: Answer, *, verified: bool = False) -> ApiError:
    """Return the error in an unexpected answer."""
    try:
        body = wire.decode(answer.body, ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = ErrorBody(error=answer.body[:200].decode("utf-8", "replace"))
    retry_after = answer.headers.get("retry-after", "")
    return ApiError(
        answer.status,
        body.code or "error",
        body.error or "no reason was given",
        request_id=body.request_id or answer.headers.get("x-request-id", ""),
        retry_after_s=float(retry_after) if retry_after.isdecimal() and len(retry_after) < 10 else None,
        verified=verified,
    )


def tls_context(url: str) -> ssl.SSLContext:
    """Return the TLS context for this URL; an empty one for plain HTTP, since reading certificates takes 30 ms."""
    return _trusting() if url.lower().startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@cache
def _trusting() -> ssl.SSLContext:
    return httpx2.create_ssl_context(trust_env=False)


def _headers(response: httpx2.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _bounded(parts: Iterator[bytes]) -> bytes:
    received = bytearray()
    for part in parts:
        received += part
        if len(received) > MAX_ANSWER_BYTES:
            break
    return bytes(received)


def _bounded_lines(parts: Iterator[str]) -> Iterator[str]:
    rest = ""
    for part in parts:
        *whole, rest = (rest + part).split("\n")
        yield from (line.removesuffix("\r") for line in whole)
        if len(rest) > MAX_EVENT_BYTES:
            raise MalformedAnswer(f"a line of an event stream has more than {MAX_EVENT_BYTES} characters")


@contextmanager
def translated(method: str, url: str) -> Generator[None]:
    """Raise the client's own errors for those of the HTTP library."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
        raise NotReached(f"{url} cannot be reached ({error}); is it running, and is the address right?") from error
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise NotReached(f"{url!r} is no http(s) address: {error}") from error
    except (httpx2.TransportError, httpx2.DecodingError) as error:
        raise OutcomeUnknown(f"{method} to {url} was sent, but no whole answer came: {error!r}") from error
