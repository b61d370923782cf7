"""A request as the proxy sees it: what its head says, who sent it, and what has become of it so far."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast, final

import trio

from engram.hotkeys import PublicKey, ss58
from engram.http.asgi import HeaderLines, Receive, Scope, Send
from engram.http.cycle import HUNG_UP
from engram.http.framing import Headers
from engram.proxy.endings import Phase
from engram.proxy.exchange.heads import Origin, first

Sign: TypeAlias = Callable[[str], Headers]
"""Returns the headers that sign a body of this SHA-256 (hex)."""


@final
class Incoming:
    """One request."""

    __slots__ = (
        "_phase",
        "_phase_began_s",
        "_spent",
        "answered",
        "backend",
        "body_hash",
        "bucket",
        "caller",
        "client",
        "code",
        "cors",
        "detail",
        "headers",
        "hung_up",
        "is_websocket",
        "method",
        "query",
        "raw_path",
        "read_to_end",
        "receive",
        "received_bytes",
        "request_id",
        "route",
        "scheme",
        "secure",
        "send",
        "sent_bytes",
        "sign",
        "started_s",
        "status",
        "uuid",
    )

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, client: str, bucket: str, started_s: float
    ) -> None:
        self.headers = cast(Headers, scope["headers"])
        self.method: str = scope.get("method", "GET")
        self.raw_path = bytes(scope["raw_path"]).partition(b"?")[0]
        self.query = bytes(scope["query_string"])
        self.is_websocket = scope["type"] == "websocket"
        self.secure = scope["scheme"] in ("https", "wss")
        self.receive = receive
        self.hung_up: Callable[[], Awaitable[None]] = scope.get("extensions", {}).get(HUNG_UP, trio.sleep_forever)
        """Waits until the client has left, also while the rest of its body is not read."""
        self.send = send
        self.request_id = request_id
        self.client = client
        self.bucket = bucket
        """What limits count the client by: its address, or an IPv6 address's /64."""
        self.started_s = started_s
        self.cors: HeaderLines = ()
        """What every answer tells the browser of a page that calls."""
        self.route = "other"
        self.caller: PublicKey | None = None
        """The key, once it is proven."""
        self.scheme = ""
        self.body_hash = ""
        """SHA-256 (hex) of the body, once it is proven."""
        self.uuid = ""
        self.sign: Sign | None = None
        """Signs what is answered, once the caller is proven; None where answers are not signed."""
        self._phase: Phase = "admission"
        self._phase_began_s = started_s
        self._spent: dict[Phase, float] = {}
        self.code = ""
        """How it ended."""
        self.status = 0
        self.answered = False
        """Whether a whole answer was sent."""
        self.backend = ""
        self.detail = ""
        self.received_bytes = 0
        self.read_to_end = False
        """Whether the whole body has been read."""
        self.sent_bytes = 0

    @property
    def phase(self) -> Phase:
        """What is done for it now."""
        return self._phase

    @phase.setter
    def phase(self, phase: Phase) -> None:
        now = trio.current_time()
        self._spent[self._phase] = self._spent.get(self._phase, 0.0) + now - self._phase_began_s
        self._phase, self._phase_began_s = phase, now

    def spent(self) -> dict[Phase, float]:
        """Return the seconds that it has spent in each phase until now."""
        self.phase = self._phase
        return self._spent

    @property
    def caller_address(self) -> str:
        """The proven key's SS58 address, or empty."""
        return "" if self.caller is None else ss58.encode(self.caller)

    @property
    def origin(self) -> Origin:
        """What a backend is told of it."""
        host = first(self.headers, b"host") or b""
        return Origin(self.client, self.secure, host, self.request_id, self.caller_address)

    @property
    def declared_length(self) -> int | None:
        """The body's length where it is declared; None for chunks."""
        for name, value in self.headers:
            if name == b"content-length":
                return int(value)
            if name == b"transfer-encoding":
                return None
        return 0
