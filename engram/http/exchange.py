"""The state of the request being answered, independent of the framework that answers it."""

from contextvars import ContextVar
from typing import Final, cast, final

from engram.http.asgi import Scope

KEY = "engram.exchange"
"""The key of an ASGI scope that holds it."""


@final
class Exchange:
    """One request and its answer, as the layer in front of the application sees them."""

    __slots__ = ("body", "client", "held_bytes", "origin", "request_id", "route", "status")

    def __init__(self, request_id: str, client: str) -> None:
        self.request_id = request_id
        """The client's X-Request-Id if it sent a valid one, else ours."""
        self.client = client
        """The client's address, as seen behind trusted proxies."""
        self.origin = b""
        """The Origin header."""
        self.body = b""
        self.held_bytes = 0
        """Bytes of the body that are counted against the bound that all bodies share."""
        self.route = "other"
        """The route's pattern, once known: the label for metrics."""
        self.status = 0


_current: Final = ContextVar[Exchange]("engram.http.exchange")


def open_in(scope: Scope, exchange: Exchange) -> None:
    """Make `exchange` the scope's, and the current one of this task."""
    scope[KEY] = exchange
    _current.set(exchange)


def of(scope: Scope) -> Exchange:
    """Return the exchange of an ASGI scope. Raises KeyError outside `new_app`'s applications."""
    return cast(Exchange, scope[KEY])


def current() -> Exchange:
    """Return the exchange being answered by this task. Raises LookupError where none is."""
    return _current.get()


def request_id() -> str:
    """Return the id of the request being answered by this task."""
    return current().request_id
