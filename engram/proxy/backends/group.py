"""One group of servers: their connections, their health, and the choice among them."""

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import final

import trio

from engram.http import targets
from engram.http.errors import NoPlace, NotSent
from engram.http.forwarding import Forwarding, Upstream
from engram.http.targets import Target
from engram.proxy.backends import rules
from engram.proxy.backends.breaker import Breaker
from engram.proxy.backends.rules import Server
from engram.proxy.settings.model import BackendSettings

Monotonic = Callable[[], float]


@final
class Group:
    """The servers that answer the same requests. It outlives a change of settings that leaves it as it is."""

    def __init__(self, name: str, settings: BackendSettings, monotonic: Monotonic, tls: ssl.SSLContext | None) -> None:
        """`tls` is the context for https; make it by `tls_of`, off the loop."""
        self.name = name
        self.settings = settings
        self.breaker = Breaker()
        self.servers = tuple(Server(url.rstrip("/")) for url in settings.urls)
        self.upstream = Upstream(settings.connections, settings.keep_alive_s, tls)
        self._targets = {server.url: targets.target(server.url) for server in self.servers}
        self._now = monotonic
        self.retired = trio.Event()
        """Set when the settings no longer name it: it ends with its last request."""

    def target(self, server: Server) -> Target:
        """Return where a server is; its path is what requests' paths are put behind."""
        return self._targets[server.url]

    def wait_s(self) -> float:
        """Return 0 when a request may be sent, else the seconds until the breaker lets one try."""
        return self.breaker.wait_s(self._now())

    async def acquire(self, connect_s: float, total_s: float, *, bodyless: bool) -> tuple[Server, Forwarding]:
        """Return the least busy server and a connection to it, to be given back by `release`; a server that cannot be
        reached is followed by the next.

        Raises NotSent when none can be reached, and NoPlace when all that might be are in use up to their bound.
        """
        tried: list[Server] = []
        full: NoPlace | None = None
        while True:
            server = rules.choose(self.servers, self.settings, self._now(), tried)
            server.in_flight += 1
            try:
                target = self.target(server)
                return server, await self.upstream.acquire(target, connect_s, total_s, bodyless=bodyless)
            except BaseException as error:
                server.in_flight -= 1
                match error:
                    case NoPlace():
                        full = error
                    case NotSent():
                        self._note_failure(server, str(error))
                    case _:
                        self.breaker.left()
                        raise
                tried.append(server)
                if len(tried) >= len(self.servers):
                    if full is not None:
                        self.breaker.left()
                        raise full from None
                    self.breaker.failed(self.settings.breaker_failures, self.settings.breaker_open_s, self._now())
                    raise

    def release(self, server: Server, forwarding: Forwarding) -> None:
        """Give a connection back, whatever became of it."""
        server.in_flight -= 1
        self.breaker.left()
        self.upstream.release(forwarding)

    @asynccontextmanager
    async def connected(
        self, connect_s: float, total_s: float, *, bodyless: bool
    ) -> AsyncIterator[tuple[Server, Forwarding]]:
        """Yield what `acquire` returns, and release it afterwards."""
        server, forwarding = await self.acquire(connect_s, total_s, bodyless=bodyless)
        try:
            yield server, forwarding
        finally:
            self.release(server, forwarding)

    def retire(self) -> None:
        """Take no new requests: the settings no longer name this group."""
        self.retired.set()
        self.upstream.retire()

    def succeeded(self, server: Server) -> None:
        """Note that a server answered."""
        rules.succeeded(server, self._now())
        self.breaker.succeeded()

    def failed(self, server: Server, error: str) -> None:
        """Note that a server failed a request."""
        self._note_failure(server, error)
        self.breaker.failed(self.settings.breaker_failures, self.settings.breaker_open_s, self._now())

    def _note_failure(self, server: Server, error: str) -> None:
        rules.failed(server, self.servers, self.settings, self._now(), error)

    def checked(self, server: Server, error: str) -> bool:
        """Note an active check; return whether the server's state changed."""
        return rules.checked(server, self._now(), error)

    def words(self) -> Sequence[tuple[str, str, int, str]]:
        """Return URL, state, requests in progress and the last error of each server."""
        now, slow_start_s = self._now(), self.settings.slow_start_s
        return [(each.url, each.word(now, slow_start_s), each.in_flight, each.last_error) for each in self.servers]

    @property
    def breaker_word(self) -> str:
        """The breaker's state in a word."""
        return self.breaker.word(self._now())

    @property
    def in_flight(self) -> int:
        """Requests in progress."""
        return sum(server.in_flight for server in self.servers)


def tls_of(settings: BackendSettings) -> ssl.SSLContext | None:
    """Return the TLS context of a group with https servers. Blocks. Raises OSError for a file that does not load."""
    if not any(url.startswith("https://") for url in settings.urls):
        return None
    return ssl.create_default_context(cafile=settings.ca_file or None)
