"""The operator's endpoints of a validator, on loopback: one row each."""

from typing import Final

from engram.api import gateway_ops
from engram.api.node_model import Health
from engram.api.route import NoBody, Response, Route

HEALTH: Final = Route("health", "GET", "/health", "Whether it is up", NoBody, Response(200, "It is.", Health))
METRICS: Final = gateway_ops.METRICS
STATUS: Final = Route(
    "status", "GET", "/status", "Rounds, scores and weights", NoBody, Response(200, "The status.", object)
)
RELAY_STATUS: Final = gateway_ops.RELAY_STATUS

ROUTES: Final = (HEALTH, STATUS, METRICS, RELAY_STATUS)
