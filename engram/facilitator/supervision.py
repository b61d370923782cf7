"""The facilitator in a supervision tree: embedded in a `local` gateway, or as a role of its own."""

from collections.abc import Callable
from typing import Final, final

import trio

from actors import ChildSpec, Context, DrainingJob
from config.model import Settings
from engram.clock import Clock, Ids
from engram.http.metrics import Metrics
from engram.http.server import Address, serve
from engram.ledger import Ledger

from .service import PlayFacilitator
from .surface import facilitator_app

FACILITATOR: Final = "facilitator"
_SLACK_S: Final = 1.0


def supervision(
    *,
    settings: Settings,
    ledger: Ledger,
    clock: Clock,
    ids: Ids,
    metrics: Metrics,
    on_bound: Callable[[Address], None],
) -> ChildSpec:
    """Returns the child that serves play money; `on_bound` is told where it listens, at each (re)start.

    Raises ValueError outside `local`: play money must never be taken where real things are sold.
    """
    if settings.environment != "local":
        raise ValueError(f"the play-money facilitator does not run in {settings.environment!r}")
    facilitator = PlayFacilitator(ledger, clock, round(settings.facilitator.opening_balance_usd * 1_000_000))

    async def run(context: Context) -> None:
        app = facilitator_app(facilitator, settings=settings.http, clock=clock, ids=ids, metrics=metrics)
        await serve(
            app,
            settings.facilitator.host,
            settings.facilitator.port,
            context=_Announced(context, on_bound),
            settings=settings.http,
            drain_s=settings.shutdown.drain_s,
        )

    return ChildSpec(FACILITATOR, start=lambda: DrainingJob(run), shutdown=settings.shutdown.drain_s + _SLACK_S)


@final
class _Announced:
    """A context that tells others, too, where the server listens."""

    def __init__(self, context: Context, on_bound: Callable[[Address], None]) -> None:
        self._context = context
        self._on_bound = on_bound

    @property
    def stop_requested(self) -> trio.Event:
        return self._context.stop_requested

    def ready(self, info: object = None) -> None:
        if isinstance(info, Address):
            self._on_bound(info)
        self._context.ready(info)
