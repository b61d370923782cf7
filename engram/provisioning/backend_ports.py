"""The dependencies a backend may be made from, composed in engram/roles."""

from pathlib import Path
from random import Random

import msgspec

from config.model import Settings
from engram.clock import Clock, Ids
from engram.http.client import HttpClient
from engram.ledger import Ledger
from engram.telemetry.metrics import Metrics


class BackendPorts(msgspec.Struct, frozen=True, kw_only=True):
    """What every factory gets; most need few of them."""

    settings: Settings
    data_dir: Path
    """The locked data folder."""
    ledger_id: str
    """Begins the token of every node of this ledger."""
    ledger: Ledger
    http: HttpClient
    clock: Clock
    ids: Ids
    metrics: Metrics
    rng: Random
