"""A miner in its tests: the real application on a real socket, called by signed requests."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, final

import msgspec
import trio

from config.model import HttpSettings
from engram.clock import SystemClock, SystemIds
from engram.hotkeys import Keypair, PublicKey
from engram.http.app import App
from engram.http.client import HttpClient, Response
from engram.http.listener import serve as serve_app
from engram.http.sockets import Address
from engram.kit.miner import Miner
from engram.kit.signing import signed
from engram.proxy.authorization import ChainView
from engram.proxy.chain_view import NoChain
from engram.telemetry.metrics import Metrics

_BEFORE_S: Final = 60.0
"""The miner counts as started this long ago: requests of the moment of a start are refused."""


@final
class Served:
    """A miner that serves."""

    def __init__(self, url: str, hotkey: PublicKey, http: HttpClient) -> None:
        self.url = url
        self._hotkey = hotkey
        self._http = http

    async def post(
        self,
        path: str,
        body: object,
        *,
        signed_by: Keypair | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a JSON body, signed for this miner by a key if one is given; return the whole answer."""
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        lines = {"Content-Type": "application/json", **(headers or {})}
        if signed_by is not None:
            lines |= signed(content, signed_by, self._hotkey)
        return await self._http.request("POST", self.url + path, content=content, headers=lines)

    async def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> Response:
        """Send a GET; return the whole answer."""
        return await self._http.request("GET", self.url + path, headers=headers)


async def serve(
    miner: Miner,
    callers: Sequence[Keypair],
    use: Callable[[Served], Awaitable[None]],
    *,
    chain: ChainView | None = None,
) -> None:
    """Serve the miner on a free port of loopback, let `callers` call, and run `use`.

    `chain` stands for the subnet where the settings name a `chain_endpoint`; None: it has not been read.
    """
    miner.allow(*(key.ss58 for key in callers))
    http, host = HttpClient(), _Host()
    clock = SystemClock()
    started_ms = int((clock.now() - _BEFORE_S) * 1000)
    app = miner.app(clock=clock, ids=SystemIds(), metrics=Metrics(), chain=chain or NoChain(), started_ms=started_ms)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.serve, app)
            await host.is_ready.wait()
            try:
                await use(Served(host.url, miner.settings.hotkey, http))
            finally:
                host.stop_requested.set()
    finally:
        with trio.CancelScope(shield=True):
            await http.aclose()


@final
class _Host:
    """What the server needs of the job that it runs in."""

    def __init__(self) -> None:
        self.stop_requested = trio.Event()
        self.is_ready = trio.Event()
        self.url = ""

    def ready(self, info: object = None) -> None:
        assert isinstance(info, Address)
        self.url = info.url
        self.is_ready.set()

    async def serve(self, app: App) -> None:
        await serve_app(app, "127.0.0.1", 0, context=self, settings=HttpSettings(), drain_s=1.0)
