"""The role `facilitator`: the play-money facilitator, as its own process or inside a `local` gateway."""

from pathlib import Path
from typing import final

from actors import Backoff, ChildSpec, Intensity, SupervisorSpec
from config.model import Settings
from engram.facilitator.ports import FacilitatorPorts, application
from engram.roles.process import spare
from engram.roles.shared import LEDGER, Shared
from engram.telemetry.loop_lag import loop_lag_job


def tree(p: Shared) -> SupervisorSpec:
    """Return the whole tree of a facilitator by itself."""
    return SupervisorSpec(
        "root",
        [
            ChildSpec("ledger", p.ledger_actor, name=LEDGER, shutdown=30.0),
            spare("loop_lag", lambda: loop_lag_job(p.metrics)),
            facilitator(p),
        ],
        strategy="one_for_one",
        intensity=Intensity(restarts=10, period_s=60.0),
    )


def facilitator(p: Shared) -> ChildSpec:
    """Return the facilitator's server. Raises ValueError outside `local`."""
    at = p.settings.facilitator
    listener = p.listener("facilitator", at.host, at.port)
    app = application(
        FacilitatorPorts(settings=p.settings, ledger=p.ledger, clock=p.clock, ids=p.ids, metrics=p.metrics)
    )
    return ChildSpec(
        "facilitator",
        lambda: listener.job(app),
        shutdown=p.settings.shutdown.drain_s + 2.0,
        backoff=Backoff(0.1, 5.0),
    )


@final
class FacilitatorRole:
    """The role; see shared.Role."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings

    async def tree(self, shared: Shared) -> SupervisorSpec:
        return tree(shared)

    async def close(self) -> None:
        """Do nothing: the role holds no resources."""


open_role = FacilitatorRole
