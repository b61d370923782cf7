"""Turns a row and its handler into a function for the router: identify, decode, handle, encode, finish.

The surface defines what its rows share: how callers are identified, how bodies are decoded, how errors are answered,
and how an answer is completed (a signature, padding). A row states which of these apply. Nothing here depends on a
framework.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, final

from engram.api.call import Call, Reply, Surface, encoded
from engram.api.route import Route
from engram.http.request import Answer, Handler, Request, Stream

A = TypeVar("A")
C = TypeVar("C")
Q = TypeVar("Q")

Given: TypeAlias = A | Reply[A] | Answer | Stream
"""What a handler returns: the answer, an answer with headers, an encoded answer, or a stream."""


class AddRoute(Protocol):
    """Accepts routes; implemented by `engram.http.router.Router`."""

    def add(self, method: str, path: str, handler: Handler, *, hot: bool = False, in_parts: bool = False) -> None:
        """Answer `method` of `path` with `handler`, bypassing the framework if `hot` or `in_parts`."""

    def add_probe(self, path: str, handler: Handler) -> None:
        """Answer `path` before rate limits and without a log line."""

    def add_fixed(self, path: str, answer: Answer) -> None:
        """Answer `path` always the same, before rate limits and without a log line."""


@final
class Endpoints(Generic[C]):
    """Binds the rows of a table to their handlers."""

    def __init__(self, router: AddRoute, surface: Surface[C]) -> None:
        self._router = router
        self._surface = surface
        self._bound: set[str] = set()

    def bind(self, route: Route[Q, A], handler: Callable[[Call[Q, C]], Awaitable[Given[A]]]) -> None:
        """Answer a row with a handler. Raises ValueError for a row that has one already, or decodes what it streams."""
        self._enter(route)
        if route.upload and route.takes_body:
            raise ValueError(f"{route.id} reads its body as it comes: nothing of it can be decoded before")
        served = _served(route, handler, self._surface)
        if route.probe:
            self._router.add_probe(route.path, served)
        else:
            self._router.add(route.method, route.path, served, hot=route.hot, in_parts=bool(route.upload))

    def bind_fixed(self, route: Route[Any, A], answer: A) -> None:
        """Answer the row of a probe always the same. Raises ValueError for a row that has an answer already."""
        self._enter(route)
        self._router.add_fixed(route.path, encoded(route, Reply(answer)))

    def _enter(self, route: Route[Any, Any]) -> None:
        if route.id in self._bound:
            raise ValueError(f"{route.id} is bound twice")
        self._bound.add(route.id)

    def require_all(self, routes: Iterable[Route[Any, Any]]) -> None:
        """Raise ValueError unless exactly these rows have handlers."""
        if difference := self._bound ^ {route.id for route in routes}:
            raise ValueError(f"the table and the handlers differ in {', '.join(sorted(difference))}")


def _served(route: Route[Q, A], handler: Callable[[Call[Q, C]], Awaitable[Given[A]]], surface: Surface[C]) -> Handler:
    async def serve(request: Request) -> Answer | Stream:
        call: Call[Q, C] = Call(route, surface, request)
        given: Answer | Reply[object]
        try:
            if route.callers:
                call.identified(await surface.identify(call))
            found = await handler(call)
            if isinstance(found, Stream):
                return found
            given = found if isinstance(found, (Answer, Reply)) else Reply(found)
        except Exception as error:
            refused = surface.refuse(call, error)
            if refused is None:
                raise
            given = refused
        return await surface.finish(call, given)

    return serve
