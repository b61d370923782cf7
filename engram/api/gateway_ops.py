"""The operator's endpoints of a gateway besides /health and /ready, one row each. Never reachable from outside."""

from typing import Final

from engram.api.gateway import HEALTH, READY
from engram.api.route import NoBody, Response, Route

STATUS: Final = Route(
    "status", "GET", "/status", "What runs, and how it does", NoBody, Response(200, "The status.", object)
)
METRICS: Final = Route(
    "metrics", "GET", "/metrics", "Every metric, for Prometheus", NoBody, Response(200, "The metrics.", str)
)

RELAY_STATUS: Final = Route(
    "relayStatus", "GET", "/relay/status", "How the relay stands", NoBody, Response(200, "The status.", object)
)

ROUTES: Final = (HEALTH, READY, STATUS, METRICS, RELAY_STATUS)
