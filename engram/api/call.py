"""What a handler sees of its request, what it may give back besides a plain answer, and what a surface adds to both."""

from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar, final
from urllib.parse import parse_qsl

import msgspec
import trio

from engram import wire
from engram.api.route import Route
from engram.http.errors import ApiError
from engram.http.exchange import Exchange
from engram.http.request import Answer, HeaderPairs, Request, refusal

A_co = TypeVar("A_co", covariant=True)
C = TypeVar("C")
Q = TypeVar("Q")

_UNREAD: Final = object()


@final
class Call(Generic[Q, C]):
    """One request to an endpoint that takes `Q`, from a caller `C`."""

    arrived_s = 0.0
    """On trio's clock, where the answer may have to be padded."""
    is_private = False
    """Whether it names something private; set by whoever finds out, before anything is refused for it."""
    _caller: C | None = None
    _query: Mapping[str, str] | None = None
    _request: object = _UNREAD

    def __init__(self, route: Route[Q, Any], surface: "Surface[C]", http: Request) -> None:
        self.route = route
        self.http = http
        """The request as it came, for what signatures and hashes cover."""
        self._surface = surface
        if route.private:
            self.arrived_s = trio.current_time()

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
        """Return a parameter of the path."""
        return self.http.parameters[name]

    def query(self, name: str) -> str | None:
        """Return the first value of a query parameter that the row names, None when it is not there."""
        if self._query is None:
            pairs = parse_qsl(
                self.http.query_string.decode("latin-1"), keep_blank_values=True, encoding="utf-8", errors="replace"
            )
            self._query = dict(reversed(pairs))
        return self._query.get(name)

    def header(self, name: str) -> str | None:
        """Return the first header of that name, None when it is not there."""
        return self.http.header(name.lower().encode("latin-1"))

    def identified(self, caller: C | None) -> None:
        """Note who calls."""
        self._caller = caller


class Reply(msgspec.Struct, Generic[A_co], frozen=True):
    """An answer with headers, or another status than the row's."""

    body: A_co
    headers: HeaderPairs = ()
    status: int = 0
    """0: the row's."""


class Surface(Generic[C]):
    """What all endpoints of a surface share."""

    async def identify(self, call: Call[Any, C]) -> C | None:
        """Return who calls a row that has `callers`; None: the handler is to find out. Raises ApiError."""
        raise NotImplementedError

    def decode(self, call: Call[Any, C], kind: type[Q]) -> Q:
        """Return the body as the row's request. Raises ApiError 400 `bad_json`, 422 `invalid`."""
        try:
            return wire.decode(call.http.body, kind)
        except msgspec.ValidationError as error:
            raise ApiError(422, "invalid", f"{error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ApiError(400, "bad_json", "Invalid JSON body.") from None

    def refuse(self, call: Call[Any, C], error: Exception) -> Reply[object] | Answer | None:
        """Return what an exception of a handler is answered with; None: it is a fault of ours."""
        return refusal(call.http, error) if isinstance(error, ApiError) else None

    async def finish(self, call: Call[Any, C], given: Reply[object] | Answer) -> Answer:
        """Return what goes out, errors included."""
        return given if isinstance(given, Answer) else encoded(call.route, given)


def encoded(route: Route[Any, Any], reply: Reply[object]) -> Answer:
    """Return a reply of a row, encoded."""
    headers = (("Cache-Control", route.cache), *reply.headers) if route.cache else reply.headers
    return Answer(reply.status or route.success.status, msgspec.json.encode(reply.body), headers)
