"""The play-money facilitator on a loopback socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from actors import ChildSpec, SupervisorSpec, open_system
from config.model import Settings
from engram.clock import SystemClock, SystemIds
from engram.facilitator.ports import FacilitatorPorts, application
from engram.http.listener import Listener
from engram.ledger import Ledger
from engram.telemetry.metrics import Metrics


@asynccontextmanager
async def facilitator_url(ledger: Ledger, opening_balance_usd: float = 1_000.0) -> AsyncIterator[str]:
    """Serve until the context closes; gives the base URL."""
    plain = Settings()
    settings = msgspec.structs.replace(
        plain, facilitator=msgspec.structs.replace(plain.facilitator, opening_balance_usd=opening_balance_usd)
    )
    listener = Listener("127.0.0.1", 0, settings.http, 1.0)
    ports = FacilitatorPorts(settings=settings, ledger=ledger, clock=SystemClock(), ids=SystemIds(), metrics=Metrics())
    app = application(ports)
    async with open_system(SupervisorSpec("root", [ChildSpec("facilitator", lambda: listener.job(app))])):
        yield listener.url
