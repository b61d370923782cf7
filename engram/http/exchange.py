"""The state of the request being answered, independent of the framework that answers it."""

from collections.abc import Awaitable
from typing import Any, cast, final

from engram.http.asgi import HeaderLines, Scope, Send, Sender, respond
from engram.http.parts import BodyParts
from engram.telemetry import logs

KEY = "engram.exchange"
"""The key of an ASGI scope that holds it."""


_UNCACHED = (b"cache-control", b"no-store")
"""Added to answers without Cache-Control: caches would choose a lifetime themselves (RFC 9111, section 4.2.2)."""
_CHALLENGE = (b"www-authenticate", b'Hotkey realm="engram"')
"""Added to every 401 without a challenge (RFC 9110, section 15.5.2): a hotkey signs requests, in headers or bodies."""


@final
class Exchange:
    """One request and its answer, as the layer in front of the application sees them."""

    __slots__ = ("body", "client", "held_bytes", "length", "origin", "parts", "request_id", "route", "status")

    def __init__(self, request_id: str, client: str) -> None:
        self.request_id = request_id
        """The client's X-Request-Id if it sent a valid one, else ours."""
        self.client = client
        """The client's address, as seen behind trusted proxies."""
        self.origin = b""
        """The Origin header."""
        self.length: int | None = 0
        """The body's length as declared, in bytes; None where it is not known."""
        self.body = b""
        self.parts: BodyParts | None = None
        """The body of a route that reads it as it comes; `body` is empty then."""
        self.held_bytes = 0
        """Bytes of the body that are counted against the bound that all bodies share."""
        self.route = "other"
        """The route's pattern, once known: the label for metrics."""
        self.status = 0


@final
class Answering(Sender):
    """Wraps `send` to add our headers to an answer."""

    __slots__ = ("_cors", "_exchange", "_send")

    def __init__(self, send: Send, exchange: Exchange, cors: HeaderLines) -> None:
        self._send = send
        self._exchange = exchange
        self._cors = cors

    def __call__(self, message: Any) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            status = self._exchange.status = message["status"]
            message = {**message, "headers": self._completed(status, message["headers"])}
        return self._send(message)

    def respond(self, status: int, headers: HeaderLines, body: bytes) -> Awaitable[None]:
        """Send a whole answer."""
        self._exchange.status = status
        return respond(self._send, status, body, self._completed(status, headers))

    def _completed(self, status: int, headers: HeaderLines) -> HeaderLines:
        lines = [*headers, (b"x-request-id", self._exchange.request_id.encode("ascii")), *self._cors]
        if b"cache-control" not in dict(lines):
            lines.append(_UNCACHED)
        if status == 401 and not any(name.lower() == _CHALLENGE[0] for name, _ in lines):
            lines.append(_CHALLENGE)
        return lines


def open_in(scope: Scope, exchange: Exchange) -> None:
    """Make `exchange` the scope's, and the current one of this task."""
    scope[KEY] = exchange
    logs.answering.set(exchange)


def of(scope: Scope) -> Exchange:
    """Return the exchange of an ASGI scope. Raises KeyError outside `new_app`'s applications."""
    return cast(Exchange, scope[KEY])


def current() -> Exchange:
    """Return the exchange being answered by this task. Raises LookupError where none is."""
    exchange = logs.answering.get()
    if exchange is None:
        raise LookupError("this task answers no request")
    return cast(Exchange, exchange)


def request_id() -> str:
    """Return the id of the request being answered by this task."""
    return current().request_id
