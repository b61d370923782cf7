"""One HTTP surface's place in the tree: its server is restarted on the address that it had."""

from collections.abc import Callable
from typing import Final, final

import trio

from actors import Backoff, ChildSpec, Context, DrainingJob
from config.model import HttpSettings
from engram.http.app import App
from engram.http.server import Address, serve

SLACK_S: Final = 2.0
"""A server that has drained for its whole time still gets this long to close."""


@final
class Listener:
    """Where a surface listens. `port` 0 takes a free one at the first start, and keeps it over restarts."""

    def __init__(self, host: str, port: int, settings: HttpSettings, drain_s: float) -> None:
        self._host, self._port = host, port
        self._settings, self._drain_s = settings, drain_s
        self.bound: Address | None = None
        """None until it serves for the first time."""

    @property
    def url(self) -> str:
        """Base URL without a slash at its end."""
        return (self.bound or Address(self._host, self._port)).url

    def child(self, name: str, app: Callable[[], App]) -> ChildSpec:
        """The server as a child of the tree; `app` makes its application anew at each start."""

        async def run(context: Context) -> None:
            port = self._port if self.bound is None else self.bound.port
            host = _Told(context, self)
            await serve(app(), self._host, port, context=host, settings=self._settings, drain_s=self._drain_s)

        return ChildSpec(name, lambda: DrainingJob(run), shutdown=self._drain_s + SLACK_S, backoff=Backoff(0.1, 5.0))


@final
class _Told:
    """A job's context that tells its listener, too, where it listens."""

    def __init__(self, context: Context, listener: Listener) -> None:
        self._context = context
        self._listener = listener

    @property
    def stop_requested(self) -> trio.Event:
        return self._context.stop_requested

    def ready(self, info: object = None) -> None:
        if isinstance(info, Address):
            self._listener.bound = info
        self._context.ready(info)
