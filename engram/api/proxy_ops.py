"""The operator's endpoints of a proxy, one row each. Never reachable from outside."""

from typing import Final

from engram.api.route import NoBody, Response, Route

HEALTH: Final = Route(
    "health", "GET", "/health", "The process answers", NoBody, Response(200, "It does.", object), probe=True
)
READY: Final = Route(
    "ready",
    "GET",
    "/ready",
    "Whether callers can be authorized and a backend takes requests",
    NoBody,
    Response(200, "It is ready.", object),
    (Response(503, "It is not, and why.", object),),
    probe=True,
)
STATUS: Final = Route(
    "status", "GET", "/status", "What runs, and how it does", NoBody, Response(200, "The status.", object)
)
METRICS: Final = Route(
    "metrics", "GET", "/metrics", "Every metric, for Prometheus", NoBody, Response(200, "The metrics.", str)
)
WHY: Final = Route(
    "why",
    "GET",
    "/why/{request_id}",
    "How a request ended, in words",
    NoBody,
    Response(200, "How it ended.", object),
    (Response(404, "It is not known (any more).", object),),
)

ROUTES: Final = (HEALTH, READY, STATUS, METRICS, WHY)
