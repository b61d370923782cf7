"""Routes requests: from the Edge straight to their handlers, or through the framework of a surface that has one.

A handler takes a `Request` and returns an `Answer` or a `Stream`; it knows neither ASGI nor a framework. With one,
every route is in its table, which answers HEAD, other methods and unusual spellings with the same handler; hot routes
are also matched before it. Without one all routes are hot, and what is answered beside them is decided here. A
parameter `{name}` is one segment of the path, `{name...}` is the rest of it, slashes included.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Final, final

import msgspec

from engram.http.app import App
from engram.http.asgi import AsgiApp, HeaderLines, Receive, Scope, Send, header_lines, respond
from engram.http.edge import FastAnswer
from engram.http.errors import CODES, TEXTS, ApiError
from engram.http.request import Answer, Handler, Request, Stream

_PARAMETER: Final = re.compile(r"\{(\w+)(\.\.\.)?\}")
_NONE: Final[Mapping[str, str]] = {}


class _Entry(msgspec.Struct, frozen=True):
    path: str
    """The path in the syntax of Quart, whether one is there or not: it is the label in metrics."""
    pattern: re.Pattern[str]
    handler: Handler
    hot: bool
    in_parts: bool = False


@final
class Router:
    """An ASGI layer behind a surface's Edge."""

    def __init__(self, surface: App) -> None:
        self._surface = surface
        self._exact: dict[tuple[str, str], _Entry] = {}
        self._by_depth: defaultdict[tuple[str, int, str], list[_Entry]] = defaultdict(list)
        """By method, number of slashes and first segment; paths with leading fixed parts first."""
        self._deep: defaultdict[str, list[_Entry]] = defaultdict(list)
        self._inner: AsgiApp | None = None
        self._framed = False
        self._methods: set[str] = set()
        surface.edge.put_behind(self._behind)

    def _behind(self, inner: AsgiApp) -> AsgiApp:
        self._inner = inner
        return self

    def add(self, method: str, path: str, handler: Handler, *, hot: bool = False, in_parts: bool = False) -> None:
        """Answer `method` of `path`, whose first segment is no parameter, with `handler`.

        With `in_parts` the handler reads the body as it comes, which the framework cannot: such a route is hot.
        """
        if in_parts:
            self._surface.edge.leave_bodies(self._is_in_parts)
        rule = _PARAMETER.sub(lambda found: f"<{'path:' if found[2] else ''}{found[1]}>", path)
        pattern = re.compile(_PARAMETER.sub(_group, path) + r"\Z")
        self._framed = self._surface.add_view(rule, method, f"{method} {path}", handler)
        hot = hot or in_parts or not self._framed
        self._methods.add(method)
        entry = _Entry(rule, pattern, handler, hot, in_parts)
        if not pattern.groups:
            self._exact[method, path] = entry
        else:
            shape = method, path.count("/"), path[1:].partition("/")[0]
            known = self._deep[method] if "..." in path else self._by_depth[shape]
            known.append(entry)
            known.sort(key=lambda each: [part.startswith("<") for part in each.path.split("/")])

    def add_probe(self, path: str, handler: Handler) -> None:
        """Answer GET and HEAD of `path` before rate limits and the framework, without a log line."""

        async def answer(scope: Scope) -> FastAnswer:
            answered = await handler(Request(scope, _NONE))
            assert isinstance(answered, Answer), "a probe is answered at once"
            return answered.status, answered.body, _lines(answered)

        self._surface.edge.fast(path, answer)

    def add_fixed(self, path: str, answer: Answer) -> None:
        """Answer GET and HEAD of `path` always the same, before rate limits and the framework, without a log line."""
        self._surface.edge.fixed(path, (answer.status, answer.body, _lines(answer)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._find(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if found is None:
            found = None if self._framed else self._found_otherwise(scope["method"], scope["path"])
        if found is None:
            assert self._inner is not None
            await self._inner(scope, receive, send)
            return
        entry, parameters = found
        request = Request(scope, parameters)
        request.exchange.route = entry.path
        answered = await entry.handler(request)
        if isinstance(answered, Stream):
            await self._surface.stream(answered, scope["method"], receive, send)
        else:
            await respond(send, answered.status, answered.body, _lines(answered))

    def _is_in_parts(self, scope: Scope) -> bool:
        return (found := self._find(scope["method"], scope["path"])) is not None and found[0].in_parts

    def _found_otherwise(self, method: str, path: str) -> tuple[_Entry, Mapping[str, str]] | None:
        """Return the route that answers a HEAD, None where nothing is at the path. Raises ApiError 405."""
        if method == "HEAD" and (found := self._find("GET", path)) is not None:
            return found
        known = {each for each in self._methods if self._find(each, path) is not None}
        if known:
            allowed = ", ".join(sorted(known | {"HEAD"} if "GET" in known else known))
            raise ApiError(405, CODES[405], TEXTS[405], (("Allow", allowed),))
        return None

    def _find(self, method: str, path: str) -> tuple[_Entry, Mapping[str, str]] | None:
        """Return the hot route of a request, None where there is none."""
        if (exact := self._exact.get((method, path))) is not None:
            return (exact, _NONE) if exact.hot else None
        shape = method, path.count("/"), path[1:].partition("/")[0]
        for known in (self._by_depth.get(shape, ()), self._deep.get(method, ())):
            for entry in known:
                if (match := entry.pattern.match(path)) is not None:
                    return (entry, match.groupdict()) if entry.hot else None
        return None


def _group(found: re.Match[str]) -> str:
    return f"(?P<{found[1]}>{'[^/].*?' if found[2] else '[^/]+'})"


def _lines(answer: Answer) -> HeaderLines:
    lines = header_lines(answer.headers) if answer.headers else []
    return [(b"content-type", answer.media.encode("ascii")), *lines] if answer.media else lines
