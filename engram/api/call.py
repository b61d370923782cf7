"""A handler's view of its request, its answers with headers, and what a surface adds to both."""

from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar, final
from urllib.parse import parse_qsl

import msgspec
import trio

from engram import wire
from engram.api.route import Route
from engram.http.errors import ApiError
from engram.http.exchange import Exchange
from engram.http.parts import BodyParts
from engram.http.request import Answer, HeaderPairs, Request, refusal

A_co = TypeVar("A_co", covariant=True)
C = TypeVar("C")
Q = TypeVar("Q")

_UNREAD: Final = object()


@final
class Call(Generic[Q, C]):
    """One request to an endpoint that takes `Q`, from a caller `C`."""

    arrived_s = 0.0
    """The time of arrival on trio's clock, for answers that may be padded."""
    is_private = False
    """Whether the request is about private data; set as soon as that is known, before any refusal for it."""
    _caller: C | None = None
    _query: Mapping[str, str] | None = None
    _request: object = _UNREAD

    def __init__(self, route: Route[Q, Any], surface: "Surface[C]", http: Request) -> None:
        self.route = route
        self.http = http
        """The raw request, which signatures and hashes cover."""
        self._surface = surface
        if route.private:
            self.arrived_s = trio.current_time()

    @property
    def request(self) -> Q:
        """The body, decoded at the first access. Raises ApiError if it cannot be decoded."""
        if self._request is _UNREAD:
            self._request = self._surface.decode(self, self.route.request)
        return self._request  # type: ignore[return-value]  # _UNREAD stands for what is not there yet

    @property
    def caller(self) -> C:
        """The verified caller. Raises LookupError where anyone may call, since the surface does not check then."""
        if self._caller is None:
            raise LookupError(f"{self.route.id} is open to anyone: no caller was identified")
        return self._caller

    @property
    def exchange(self) -> Exchange:
        """The request's state in the layer in front of the application: id, client, body."""
        return self.http.exchange

    @property
    def parts(self) -> BodyParts:
        """The body as it comes, of a row with `upload`. Raises LookupError for other rows."""
        return self.http.parts

    def path(self, name: str) -> str:
        """Return a path parameter."""
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
        """Record the caller."""
        self._caller = caller


class Reply(msgspec.Struct, Generic[A_co], frozen=True):
    """An answer with headers, or another status than the row's."""

    body: A_co
    headers: HeaderPairs = ()
    status: int = 0
    """The status; 0 for the row's."""


class Surface(Generic[C]):
    """The behavior that all endpoints of a surface share."""

    async def identify(self, call: Call[Any, C]) -> C | None:
        """Return the caller of a row with `callers`; None leaves the check to the handler. Raises ApiError."""
        raise NotImplementedError

    def decode(self, call: Call[Any, C], kind: type[Q]) -> Q:
        """Decode the body as the row's request. Raises ApiError 400 `bad_json`, 422 `invalid`."""
        try:
            return wire.decode(call.http.body, kind)
        except msgspec.ValidationError as error:
            raise ApiError(422, "invalid", f"{error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ApiError(400, "bad_json", "Invalid JSON body.") from None

    def refuse(self, call: Call[Any, C], error: Exception) -> Reply[object] | Answer | None:
        """Return the answer to a handler's exception; None for a bug, which is a 500."""
        return refusal(call.http, error) if isinstance(error, ApiError) else None

    async def finish(self, call: Call[Any, C], given: Reply[object] | Answer) -> Answer:
        """Complete an answer before it is sent, errors included."""
        return given if isinstance(given, Answer) else encoded(call.route, given)


def encoded(route: Route[Any, Any], reply: Reply[object]) -> Answer:
    """Return a row's reply, encoded."""
    headers = (("Cache-Control", route.cache), *reply.headers) if route.cache else reply.headers
    return Answer(reply.status or route.success.status, msgspec.json.encode(reply.body), headers)
