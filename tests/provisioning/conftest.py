"""Fixtures of this folder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from config.model import Settings
from engram.clock import SeededIds, SystemClock
from engram.http.client import HttpClient
from engram.ledger import open_inline
from engram.provisioning.backend_ports import BackendPorts
from engram.telemetry.metrics import Metrics
from tests.crashes import crashes

__all__ = ["crashes"]

MakePorts = Callable[[Settings], BackendPorts]


@pytest.fixture
def backend_ports(tmp_path: Path) -> Iterator[MakePorts]:
    """Makes what a factory gets, for settings: a ledger in memory, `tmp_path` as the data folder."""
    ledger = open_inline()
    yield lambda settings: BackendPorts(
        settings=settings,
        data_dir=tmp_path,
        ledger_id="0123abcd",
        ledger=ledger,
        http=HttpClient(),
        clock=SystemClock(),
        ids=SeededIds(),
        metrics=Metrics(),
        rng=Random(0),
    )
    ledger.close()
