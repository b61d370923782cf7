"""Which route a request takes: an exact path first, then the longest prefix. Pure.

A path that two routers could read differently (an empty segment, an encoded slash or dot, a dot segment) has no route:
what the proxy authorizes must be what the backend runs.
"""

import re
from collections.abc import Iterable
from typing import Final, final

import msgspec

from engram.proxy.settings.model import RouteSettings

_TWO_READINGS: Final = re.compile(rb"//|%2[FfEe]|%5[Cc]|\\|/\.{1,2}(?:/|\Z)|%00|;")


class Matched(msgspec.Struct, frozen=True):
    """A route and the path for its backend."""

    route: RouteSettings
    path: bytes
    """Raw, without the query."""


class NoRoute(msgspec.Struct, frozen=True):
    """There is no route: 404, or 405 with the methods that the path takes."""

    status: int
    methods: tuple[str, ...] = ()


@final
class Routes:
    """The routing table."""

    def __init__(self, routes: Iterable[RouteSettings]) -> None:
        self._exact: dict[bytes, RouteSettings] = {}
        self._prefixes: list[tuple[bytes, RouteSettings]] = []
        for route in routes:
            if route.path.endswith("/*"):
                self._prefixes.append((route.path[:-1].encode("ascii"), route))
            else:
                self._exact[route.path.encode("ascii")] = route
        self._prefixes.sort(key=lambda each: len(each[0]), reverse=True)

    def find(self, method: str, raw_path: bytes) -> Matched | NoRoute:
        """Return the route of a request; HEAD is taken where GET is."""
        if _TWO_READINGS.search(raw_path):
            return NoRoute(404)
        route = self._exact.get(raw_path)
        if route is None:
            route = next((each for prefix, each in self._prefixes if raw_path.startswith(prefix)), None)
        if route is None:
            return NoRoute(404)
        if method not in route.methods and not (method == "HEAD" and "GET" in route.methods):
            return NoRoute(405, route.methods)
        prefix = route.strip_prefix.encode("ascii")
        path = raw_path[len(prefix) :] if prefix and raw_path.startswith(prefix) else raw_path
        return Matched(route, path if path.startswith(b"/") else b"/" + path)
