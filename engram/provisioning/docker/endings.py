"""Tells of nodes that have ended: by the engine's events, and by looking each time the stream begins."""

from collections.abc import Callable
from typing import Final

import structlog
import trio

from engram.provisioning.docker import container
from engram.provisioning.docker.engine import Engine
from engram.provisioning.docker.engine_model import Event
from engram.provisioning.errors import Unavailable

RETRY_S: Final = 1.0
RETRY_MOST_S: Final = 15.0
EXPECTED: Final = frozenset({"0", "137", "143"})
"""Exit statuses of a node that ended as it should, or by KILL or TERM."""
MOST_SAID: Final = 600
"""Characters of its last words that are logged."""

_log = structlog.get_logger("engram.provisioning.docker")


async def tell_endings(engine: Engine, label: str, ended: Callable[[str], None]) -> None:
    """Call `ended(token)` soon after a node has ended. Runs for ever; an engine that restarts is waited for."""
    wait_s = RETRY_S
    while True:
        began = trio.current_time()
        try:
            await _listen(engine, label, ended)
        except Unavailable as error:
            _log.info("events_ended", backend="docker", reason=str(error))
        wait_s = RETRY_S if trio.current_time() - began > RETRY_MOST_S else min(wait_s * 2, RETRY_MOST_S)
        await trio.sleep(wait_s)


async def _listen(engine: Engine, label: str, ended: Callable[[str], None]) -> None:
    async with engine.events(label) as events:
        for found in await engine.list(label):  # what ended while nobody listened
            token = (found.labels or {}).get(container.TOKEN)
            if token and found.state in ("exited", "dead"):
                ended(token)
        async for event in events:
            name = event.actor.attributes.get("name", "")
            token = container.token_of(name)
            if event.action == "die" and token:
                ended(token)
                await _log_ending(engine, name, token, event)


async def _log_ending(engine: Engine, name: str, token: str, event: Event) -> None:
    attributes = event.actor.attributes
    code = attributes.get("exitCode") or attributes.get("containerExitCode", "")
    if code in EXPECTED:
        _log.info("node_ended", node=token, exit_code=code)
    else:
        said = (await engine.last_words(name))[-MOST_SAID:]
        _log.warning("node_ended", node=token, exit_code=code, said=said)
