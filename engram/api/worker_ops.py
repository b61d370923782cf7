"""The operator's endpoints of a worker, on loopback: one row each."""

from typing import Final

from engram.api import gateway_ops
from engram.api.node_model import Health
from engram.api.route import NoBody, Response, Route

HEALTH: Final = Route("health", "GET", "/health", "Whether it is up", NoBody, Response(200, "It is.", Health))
READY: Final = Route(
    "ready",
    "GET",
    "/ready",
    "Whether the orchestrator is connected",
    NoBody,
    Response(200, "It is.", object),
    (Response(503, "It is not, and why.", object),),
    probe=True,
)
STATUS: Final = Route("status", "GET", "/status", "Connection and jobs", NoBody, Response(200, "The status.", object))
JOBS: Final = Route("jobs", "GET", "/jobs", "The newest jobs with an id", NoBody, Response(200, "The jobs.", object))
METRICS: Final = gateway_ops.METRICS

ROUTES: Final = (HEALTH, READY, STATUS, JOBS, METRICS)
