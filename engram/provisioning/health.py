"""Whether a node can work, and is the one that was launched: a reused port must never receive a tenant's data."""

from collections.abc import Awaitable, Callable

from engram.api import node
from engram.api.node_model import Health
from engram.http.client import HttpClient
from engram.http.errors import HttpError

CONNECT_S = 2.0
TOTAL_S = 4.0


def health_probe(http: HttpClient) -> Callable[[str, str], Awaitable[bool]]:
    """Return (endpoint, token) -> True when /health answers `ok` and `ready` and echoes that token.

    Never raises HttpError.
    """

    async def is_healthy(endpoint: str, token: str) -> bool:
        try:
            answer = await http.request(
                "GET",
                endpoint + node.HEALTH.path,
                connect_s=CONNECT_S,
                read_s=TOTAL_S,
                total_s=TOTAL_S,
                max_bytes=65_536,
                fresh=True,
            )
            health = answer.decode(Health)
        except HttpError:
            return False
        return answer.status == 200 and health.status == "ok" and health.ready and health.launch_token == token

    return is_healthy
