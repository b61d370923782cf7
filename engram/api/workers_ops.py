"""The operator's endpoints of the parent of several gateways (`engram gateway --workers`), on loopback: a row each."""

from typing import Final

import msgspec

from engram.api import gateway_ops
from engram.api.route import NoBody, Response, Route


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker."""

    number: int
    state: str
    """up, or starting."""
    pid: int | None
    ops_url: str
    """Where its own /status and /metrics are; empty until it serves."""
    restarts: int
    status: object = None
    """Its own /status; null where it does not answer."""


class WorkersStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    url: str
    workers: list[WorkerStatus]


class WorkersUp(msgspec.Struct, frozen=True, kw_only=True):
    """How many serve."""

    status: str
    """ok, degraded (some are starting) or down."""
    up: int
    workers: int


_DOWN: Final = Response(503, "No worker serves.", WorkersUp, headers=("Retry-After",))
HEALTH: Final = Route(
    "health", "GET", "/health", "Whether a worker serves", NoBody, Response(200, "One does.", WorkersUp), (_DOWN,)
)
READY: Final = Route(
    "ready", "GET", "/ready", "Whether a worker is ready", NoBody, Response(200, "One is.", WorkersUp), (_DOWN,)
)
STATUS: Final = Route(
    "status", "GET", "/status", "Each worker, with its own status", NoBody, Response(200, "The status.", WorkersStatus)
)
METRICS: Final = gateway_ops.METRICS

ROUTES: Final = (HEALTH, READY, STATUS, METRICS)
