"""What the play-money facilitator is given from outside, and what it serves."""

from collections.abc import Callable

import msgspec

from config.model import Settings
from config.pricing import units_of
from engram.clock import Clock, Ids
from engram.facilitator.service import PlayFacilitator
from engram.facilitator.surface import facilitator_app
from engram.http.app import App
from engram.ledger import Ledger
from engram.telemetry.metrics import Metrics


class FacilitatorPorts(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of the facilitator."""

    settings: Settings
    ledger: Ledger
    clock: Clock
    ids: Ids
    metrics: Metrics


def application(ports: FacilitatorPorts) -> Callable[[], App]:
    """Return what makes the application at each start of its server.

    Raises ValueError outside `local`: play money must never be taken where real things are sold.
    """
    settings = ports.settings
    if settings.environment != "local":
        raise ValueError(f"the play-money facilitator does not run in {settings.environment!r}")
    facilitator = PlayFacilitator(ports.ledger, ports.clock, units_of(settings.facilitator.opening_balance_usd))
    return lambda: facilitator_app(
        facilitator, settings=settings.http, clock=ports.clock, ids=ports.ids, metrics=ports.metrics
    )
