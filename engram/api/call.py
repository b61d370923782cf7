"""What a handler sees of its request, and what it may give back besides a plain answer."""

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final
from urllib.parse import parse_qsl

import msgspec
import trio

from engram.api.route import Route
from engram.http.exchange import Exchange
from engram.http.request import HeaderPairs, Request

if TYPE_CHECKING:
    from engram.api.serving import Surface

A_co = TypeVar("A_co", covariant=True)
C = TypeVar("C")
Q = TypeVar("Q")

_UNREAD: Final = object()


@final
class Call(Generic[Q, C]):
    """One request to an endpoint that takes `Q`, from a caller `C`."""

    __slots__ = ("_caller", "_query", "_request", "_surface", "arrived_s", "http", "is_private", "route")

    def __init__(self, route: Route[Q, Any], surface: "Surface[C]", http: Request) -> None:
        self.route = route
        self.http = http
        """The request as it came, for what signatures and hashes cover."""
        self.arrived_s = trio.current_time() if route.private else 0.0
        """On trio's clock, where the answer may have to be padded."""
        self.is_private = False
        """Whether it names something private; set by whoever finds out, before anything is refused for it."""
        self._surface = surface
        self._request: object = _UNREAD
        self._caller: C | None = None
        self._query: dict[str, str] | None = None

    @property
    def request(self) -> Q:
        """The body, decoded when it is first looked at. Raises ApiError for one that cannot be."""
        if self._request is _UNREAD:
            self._request = self._surface.decode(self, self.route.request)
        return self._request  # type: ignore[return-value]  # _UNREAD stands for what is not there yet

    @property
    def caller(self) -> C:
        """Who calls. Raises LookupError where anyone may: the surface has not looked."""
        if self._caller is None:
            raise LookupError(f"{self.route.id} is open to anyone: no caller was identified")
        return self._caller

    @property
    def exchange(self) -> Exchange:
        """The request as the layer in front of the application sees it: id, client, body."""
        return self.http.exchange

    def path(self, name: str) -> str:
        """A parameter of the path."""
        return self.http.parameters[name]

    def query(self, name: str) -> str | None:
        """The first value of a query parameter that the row names, None when it is not there."""
        if self._query is None:
            pairs = parse_qsl(
                self.http.query_string.decode("latin-1"), keep_blank_values=True, encoding="utf-8", errors="replace"
            )
            self._query = dict(reversed(pairs))
        return self._query.get(name)

    def header(self, name: str) -> str | None:
        """The first header of that name, None when it is not there."""
        return self.http.header(name.lower().encode("latin-1"))

    async def identify(self) -> None:
        """Find out who calls. Raises what the surface refuses a stranger with."""
        self._caller = await self._surface.identify(self)


class Reply(msgspec.Struct, Generic[A_co], frozen=True):
    """An answer with headers, or another status than the row's."""

    body: A_co
    headers: HeaderPairs = ()
    status: int = 0
    """0: the row's."""
