"""Endpoints without a framework: what is asked most goes from the Edge straight to its handler.

A handler takes a `Request` and returns an `Answer`; it knows neither ASGI nor Quart. `bind` puts it on the direct way
and into Quart's table as well, which answers HEAD, other methods and odd spellings by the same handler.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias, cast, final

import msgspec
from quart import Response, g
from quart import request as quart_request

from engram.http import exchange
from engram.http.app import App
from engram.http.asgi import AsgiApp, Receive, Scope, Send, error_body, respond
from engram.http.errors import ApiError
from engram.http.exchange import Exchange

_PARAMETER: Final = re.compile(r"<(\w+)>")
_JSON: Final = ("Content-Type", "application/json")

HeaderPairs: TypeAlias = tuple[tuple[str, str], ...]


@final
class Request:
    """A request whose body has been read."""

    __slots__ = ("exchange", "parameters", "scope", "signed_at", "surface")

    def __init__(self, scope: Scope, parameters: tuple[str, ...], surface: App) -> None:
        self.scope = scope
        self.exchange: Exchange = exchange.of(scope)
        self.parameters = parameters
        """Of the path, in its order."""
        self.surface = surface
        self.signed_at: str | None = None
        """The stamp of a signed request: its answer is signed for it."""

    @property
    def method(self) -> str:
        """In capitals."""
        return cast(str, self.scope["method"])

    @property
    def raw_path(self) -> bytes:
        """The path's bytes as sent, without the query."""
        return cast(bytes, self.scope["raw_path"]).partition(b"?")[0]

    @property
    def lines(self) -> list[tuple[bytes, bytes]]:
        """The header lines in the order received, names in lower case."""
        return cast("list[tuple[bytes, bytes]]", self.scope["headers"])

    @property
    def body(self) -> bytes:
        """The whole body."""
        return self.exchange.body


class Answer(msgspec.Struct, frozen=True):
    """What goes back: JSON, encoded."""

    status: int
    body: bytes
    headers: HeaderPairs = ()


Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]
Finish: TypeAlias = Callable[[Request, Answer], Answer]
"""Completes every answer of a surface: signs it."""
Translate: TypeAlias = Callable[[Exception], ApiError | None]
"""What an exception of a handler is answered as; None: it is a fault of ours."""


@final
class Direct:
    """An ASGI layer in front of a surface's Quart application."""

    def __init__(self, surface: App, finish: Finish, translate: Translate) -> None:
        self._surface = surface
        self._finish = finish
        self._translate = translate
        self._exact: dict[tuple[str, str], tuple[str, Handler]] = {}
        self._patterns: list[tuple[str, re.Pattern[str], str, Handler]] = []
        self._inner: AsgiApp | None = None
        surface.edge.put_behind(self._behind)

    def _behind(self, inner: AsgiApp) -> AsgiApp:
        self._inner = inner
        return self

    def bind(self, method: str, path: str, handler: Handler) -> None:
        """Answer `method` of `path` (Quart's spelling; a parameter is one segment) by `handler`."""
        pattern = re.compile(_PARAMETER.sub(r"([^/]+)", path) + r"\Z")
        if pattern.groups:
            self._patterns.append((method, pattern, path, handler))
        else:
            self._exact[method, path] = (path, handler)
        self._surface.add_url_rule(path, f"{method} {path}", self._view(path, handler), methods=[method])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._find(scope) if scope["type"] == "http" else None
        if found is None:
            assert self._inner is not None
            await self._inner(scope, receive, send)
            return
        route, parameters, handler = found
        request = Request(scope, parameters, self._surface)
        request.exchange.route = route
        answer = await self._answer(request, handler)
        lines = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in (_JSON, *answer.headers)]
        await respond(send, answer.status, answer.body, lines)

    def _find(self, scope: Scope) -> tuple[str, tuple[str, ...], Handler] | None:
        method, path = scope["method"], scope["path"]
        if (exact := self._exact.get((method, path))) is not None:
            return exact[0], (), exact[1]
        for wanted, pattern, route, handler in self._patterns:
            if wanted == method and (match := pattern.match(path)) is not None:
                return route, match.groups(), handler
        return None

    async def _answer(self, request: Request, handler: Handler) -> Answer:
        try:
            answer = await handler(request)
        except Exception as error:
            refused = error if isinstance(error, ApiError) else self._translate(error)
            if refused is None:
                raise
            answer = _refusal(request, refused)
        return self._finish(request, answer)

    def _view(self, path: str, handler: Handler) -> Callable[..., Awaitable[Response]]:
        names = _PARAMETER.findall(path)

        async def view(**parameters: str) -> Response:
            scope: Any = quart_request.scope
            request = Request(scope, tuple(parameters[name] for name in names), self._surface)
            try:
                answer = await handler(request)
            finally:
                if request.signed_at is not None:
                    g.signed_at = request.signed_at
            response = Response(answer.body, answer.status, content_type=_JSON[1])
            for name, value in answer.headers:
                response.headers.add(name, value)
            return response

        return view


def json_answer(answer: object, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """A JSON answer that no cache keeps."""
    return Answer(status, msgspec.json.encode(answer), (("Cache-Control", "no-store"), *headers))


def _refusal(request: Request, refused: ApiError) -> Answer:
    body = error_body(refused.message, refused.code, request.exchange.request_id, refused.extra)
    return Answer(refused.status, body, refused.headers)
