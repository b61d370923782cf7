"""Active health checks: each server of a group with a `health_path` is asked in turn, at its interval."""

from collections.abc import Callable
from typing import Final

import structlog
import trio

from actors import Context
from engram.http.errors import NoPlace, NotSent
from engram.http.forwarding import Failed, head
from engram.proxy.backends.group import Group
from engram.proxy.backends.rules import Server
from engram.proxy.plan import Plan

_TICK_S: Final = 0.5
_WAIT_S: Final = 3.0
_MOST_BYTES: Final = 65_536

_log = structlog.get_logger("engram.proxy")


class Checks:
    """Asks the servers of the plan in force."""

    def __init__(self, plan: Callable[[], Plan]) -> None:
        self._plan = plan
        self._due: dict[Server, float] = {}

    async def run(self, context: Context) -> None:
        """Check until cancelled."""
        context.ready()
        while True:
            now = trio.current_time()
            due: dict[Server, float] = {}
            async with trio.open_nursery() as nursery:
                for group in self._plan().groups.values():
                    if not group.settings.health_path:
                        continue
                    for server in group.servers:
                        due[server] = self._due.get(server, now)
                        if due[server] <= now:
                            due[server] = now + group.settings.health_interval_s
                            nursery.start_soon(self._check, group, server)
            self._due = due
            await trio.sleep(_TICK_S)

    async def _check(self, group: Group, server: Server) -> None:
        error = await check(group, server)
        if group.checked(server, error):
            _log.warning("backend_health", backend=group.name, url=server.url, healthy=not error, error=error)


async def check(group: Group, server: Server) -> str:
    """Ask one server for its health; return why it is unhealthy, or nothing."""
    target = group.target(server)
    request = head("GET", group.settings.health_path.encode("ascii"), [(b"host", target.authority.encode("ascii"))])
    try:
        async with group.upstream.connection(target, _WAIT_S, _WAIT_S, bodyless=False) as forwarding:
            await forwarding.send(request)
            forwarding.sent()
            answer = await forwarding.head(_WAIT_S)
            read = 0
            while (part := await forwarding.part(_WAIT_S)) is not None and read < _MOST_BYTES:
                read += len(part)
    except NoPlace:
        return server.last_error if server.unhealthy else ""  # it is busy, of which nothing follows
    except NotSent as error:
        return f"{error}"
    except Failed as error:
        return f"{error}"
    return "" if 200 <= answer.status < 400 else f"{group.settings.health_path} answers {answer.status}"
