"""A handler's input and output, without a framework: a request with its body, and an encoded answer or a stream."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeAlias, cast, final

import msgspec
import trio

from engram.http import exchange
from engram.http.asgi import Receive, Scope, Send, error_body
from engram.http.errors import ApiError
from engram.http.exchange import Exchange
from engram.http.parts import BodyParts

HeaderPairs: TypeAlias = tuple[tuple[str, str], ...]


@final
class Request:
    """A request whose body has been read."""

    __slots__ = ("exchange", "parameters", "scope", "signed_at")

    def __init__(self, scope: Scope, parameters: Mapping[str, str]) -> None:
        self.scope = scope
        self.exchange: Exchange = exchange.of(scope)
        self.parameters = parameters
        """The path's parameters, by name."""
        self.signed_at: str | None = None
        """The timestamp of a signed request, whose answer is signed over it."""

    @property
    def method(self) -> str:
        """The method, in upper case."""
        return cast(str, self.scope["method"])

    @property
    def raw_path(self) -> bytes:
        """The path's bytes as sent, without the query."""
        return cast(bytes, self.scope["raw_path"]).partition(b"?")[0]

    @property
    def query_string(self) -> bytes:
        """The query's bytes as sent."""
        return cast(bytes, self.scope["query_string"])

    @property
    def lines(self) -> list[tuple[bytes, bytes]]:
        """The header lines in the order received, names in lower case."""
        return cast("list[tuple[bytes, bytes]]", self.scope["headers"])

    @property
    def body(self) -> bytes:
        """The whole body."""
        return self.exchange.body

    @property
    def parts(self) -> BodyParts:
        """The body as it comes. Raises LookupError where the route does not read it so."""
        if self.exchange.parts is None:
            raise LookupError(f"the body of {self.method} {self.scope['path']} has been read whole")
        return self.exchange.parts

    def header(self, name: bytes) -> str | None:
        """Return the first header of this name (lower case), None when there is none."""
        for each, value in self.lines:
            if each == name:
                return value.decode("latin-1")
        return None


class Answer(msgspec.Struct, frozen=True):
    """An encoded answer."""

    status: int
    body: bytes
    headers: HeaderPairs = ()
    media: str = "application/json"
    """Content-Type; empty for none."""


class Stream:
    """A 200 answer that is sent while it is produced. It is cancelled when the server drains."""

    headers: dict[str, str]

    async def run(self, receive: Receive, send: Send, draining: trio.Event) -> None:
        """Send the body: until all was sent, the client leaves, or the server drains."""
        raise NotImplementedError

    async def discard(self) -> None:
        """Let go of what the stream holds, where it is not sent after all."""


Handler: TypeAlias = Callable[[Request], Awaitable[Answer | Stream]]


def json_answer(answer: object, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """Return a JSON answer."""
    return Answer(status, msgspec.json.encode(answer), tuple(headers))


def refusal(request: Request, refused: ApiError) -> Answer:
    """Return the answer to an ApiError."""
    body = error_body(refused.message, refused.code, request.exchange.request_id, refused.extra)
    return Answer(refused.status, body, refused.headers)
