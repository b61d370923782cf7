"""The operator's endpoints of a receiver, on loopback: one row each."""

from typing import Final

from engram.api import gateway_ops
from engram.api.node_model import Health
from engram.api.route import NoBody, Response, Route

HEALTH: Final = Route("health", "GET", "/health", "Whether it is up", NoBody, Response(200, "It is.", Health))
METRICS: Final = gateway_ops.METRICS
STATUS: Final = Route(
    "status", "GET", "/status", "What is kept, what is overdue, and the chain", NoBody, Response(200, "It is.", object)
)

ROUTES: Final = (HEALTH, STATUS, METRICS)
