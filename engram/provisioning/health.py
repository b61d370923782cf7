"""Is this the node we launched, and does it answer? Asked before anything of a tenant is sent to an address."""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from engram.http.client import HttpClient, HttpError

TIMEOUT_S: Final = 2.0
MAX_BYTES: Final = 65_536


class _Health(msgspec.Struct, frozen=True):
    status: str = ""
    launch_token: str = ""


def health_check(http: HttpClient) -> Callable[[str, str], Awaitable[bool]]:
    """Returns `is_healthy(endpoint, token)`: GET /health answers `ok` and echoes the launch token.

    A reused port with another process behind it, or another node, is not healthy. Raises nothing for what the other
    side does.
    """

    async def is_healthy(endpoint: str, token: str) -> bool:
        try:
            answer = await http.request(
                "GET",
                endpoint + "/health",
                connect_s=TIMEOUT_S,
                read_s=TIMEOUT_S,
                total_s=TIMEOUT_S,
                max_bytes=MAX_BYTES,
                fresh=True,
            )
            health = answer.decode(_Health)
        except HttpError:
            return False
        return answer.status == 200 and health.status == "ok" and health.launch_token == token

    return is_healthy
