"""The facilitator in a supervision tree: embedded in a `local` gateway, or as a role of its own."""

from typing import Final

from actors import ChildSpec
from config.model import Settings
from config.pricing import units_of
from engram.clock import Clock, Ids
from engram.facilitator.service import PlayFacilitator
from engram.facilitator.surface import facilitator_app
from engram.http.app import App
from engram.http.listener import Listener
from engram.ledger import Ledger
from engram.telemetry.metrics import Metrics

FACILITATOR: Final = "facilitator"


def supervision(
    *,
    settings: Settings,
    ledger: Ledger,
    clock: Clock,
    ids: Ids,
    metrics: Metrics,
    listener: Listener,
) -> ChildSpec:
    """Returns the child that serves play money on `listener`.

    Raises ValueError outside `local`: play money must never be taken where real things are sold.
    """
    if settings.environment != "local":
        raise ValueError(f"the play-money facilitator does not run in {settings.environment!r}")
    facilitator = PlayFacilitator(ledger, clock, units_of(settings.facilitator.opening_balance_usd))

    def app() -> App:
        return facilitator_app(facilitator, settings=settings.http, clock=clock, ids=ids, metrics=metrics)

    return listener.child(FACILITATOR, app)
