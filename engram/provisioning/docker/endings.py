"""Tells of nodes that have ended: by the engine's events, and by looking each time the stream begins."""

import contextlib
from collections.abc import Callable
from typing import Final

import msgspec
import structlog
import trio

from engram.provisioning.docker import container
from engram.provisioning.docker.engine import Engine
from engram.provisioning.errors import Unavailable

RETRY_S: Final = 1.0
RETRY_MOST_S: Final = 15.0
EXPECTED: Final = frozenset({"0", "137", "143"})
"""Exit statuses of a node that ended as it should, or by KILL or TERM."""
MOST_SAID: Final = 600
"""Characters of its last words that are logged."""
MOST_UNLOGGED: Final = 100
"""Endings that wait for their last words; more of them at once are told, and not logged."""

_log = structlog.get_logger("engram.provisioning.docker")


async def tell_endings(engine: Engine, label: str, ended: Callable[[str], None]) -> None:
    """Call `ended(token)` soon after a node has ended. Runs for ever; an engine that restarts is waited for."""
    send, receive = trio.open_memory_channel[_Ending](MOST_UNLOGGED)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_log_endings, engine, receive)
        await _listen_for_ever(engine, label, ended, send)


class _Ending(msgspec.Struct, frozen=True):
    token: str
    container_id: str
    code: str


async def _listen_for_ever(
    engine: Engine, label: str, ended: Callable[[str], None], unlogged: trio.MemorySendChannel[_Ending]
) -> None:
    wait_s = RETRY_S
    while True:
        began = trio.current_time()
        try:
            await _listen(engine, label, ended, unlogged)
        except Unavailable as error:
            _log.info("events_ended", backend="docker", reason=str(error))
        wait_s = RETRY_S if trio.current_time() - began > RETRY_MOST_S else min(wait_s * 2, RETRY_MOST_S)
        await trio.sleep(wait_s)


async def _listen(
    engine: Engine, label: str, ended: Callable[[str], None], unlogged: trio.MemorySendChannel[_Ending]
) -> None:
    async with engine.events(label) as events:
        for found in await engine.containers(label):  # what ended while nobody listened
            token = (found.labels or {}).get(container.TOKEN)
            if token and found.state in ("exited", "dead"):
                ended(token)
        async for event in events:
            attributes = event.actor.attributes
            token = attributes.get(container.TOKEN) or container.token_of(attributes.get("name", ""))
            if event.action != "die" or not token:
                continue
            ended(token)
            code = attributes.get("exitCode") or attributes.get("containerExitCode", "")
            with contextlib.suppress(trio.WouldBlock):
                unlogged.send_nowait(_Ending(token, event.actor.id or attributes.get("name", ""), code))


async def _log_endings(engine: Engine, unlogged: trio.MemoryReceiveChannel[_Ending]) -> None:
    """Log each ending with what the node said last: an engine that is slow to say it delays no other ending."""
    async for ending in unlogged:
        if ending.code in EXPECTED:
            _log.info("node_ended", node=ending.token, exit_code=ending.code)
            continue
        try:
            said = (await engine.last_words(ending.container_id))[-MOST_SAID:]
        except Unavailable as error:
            said = f"({error})"
        _log.warning("node_ended", node=ending.token, exit_code=ending.code, said=said)
