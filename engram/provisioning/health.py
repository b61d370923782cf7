"""Whether a node can work, and is the one that was launched: a reused port must never receive a tenant's data."""

from collections.abc import Awaitable, Callable

from engram.api import node
from engram.api.node_model import Health
from engram.http.client import HttpClient
from engram.http.errors import HttpError

CONNECT_S = 2.0
TOTAL_S = 4.0
MOST_BYTES = 65_536


async def health_of(http: HttpClient, endpoint: str) -> Health | None:
    """Return what answers there as /health, over a connection of its own; None when it is none. Raises HttpError."""
    answer = await http.request(
        "GET",
        endpoint + node.HEALTH.path,
        connect_s=CONNECT_S,
        read_s=TOTAL_S,
        total_s=TOTAL_S,
        max_bytes=MOST_BYTES,
        fresh=True,
    )
    health = answer.decode(Health)
    return health if answer.status == 200 else None


def is_ready(health: Health) -> bool:
    """Return whether the node can work."""
    return health.status == "ok" and health.ready


def health_probe(http: HttpClient) -> Callable[[str, str], Awaitable[bool]]:
    """Return (endpoint, token) -> True when /health answers `ok` and `ready` and echoes that token.

    It asks for no introduction, which takes a ledger (enrollment.py). Never raises HttpError.
    """

    async def is_healthy(endpoint: str, token: str) -> bool:
        try:
            health = await health_of(http, endpoint)
        except HttpError:
            return False
        return health is not None and is_ready(health) and health.launch_token == token

    return is_healthy
