"""Removes a node: its container, whatever it is called, then its volume. Each step is followed by a look."""

from typing import Final, final

import trio

from engram.provisioning.docker import container, holdings
from engram.provisioning.docker.engine import Engine
from engram.provisioning.docker.holdings import Holdings
from engram.provisioning.errors import Unknown

REMOVE_S: Final = 60.0
"""What was told to go and is still seen after this: the outcome is unknown."""


@final
class Remover:
    """Removes what the engine holds of nodes. Raises Unavailable, Unknown."""

    def __init__(self, engine: Engine, holdings: Holdings) -> None:
        self._engine = engine
        self._holdings = holdings

    async def remove(self, token: str) -> None:
        """Return when nothing of the node is left."""
        await self.remove_container(token)
        await self.remove_volume(token)

    async def remove_container(self, token: str) -> None:
        """Kill first: Podman's forced removal waits for the whole grace."""
        refusal = ""
        with trio.move_on_after(REMOVE_S):
            while (found := await self._holdings.container(token)) is not None:
                if found.state.paused:
                    await self._engine.unpause(found.id)
                if found.state.running:
                    await self._engine.kill(found.id)
                if found.state.status == "removing" or (refusal := await self._engine.remove(found.id)):
                    await trio.sleep(holdings.LOOK_EVERY_S)
            return
        raise Unknown(f"the container {container.name_of(token)} does not go{refusal and f': {refusal}'}")

    async def remove_volume(self, token: str) -> None:
        """Remove it once no container of ours is on it."""
        refusal = ""
        with trio.move_on_after(REMOVE_S):
            while await self._holdings.volume(token) is not None:
                if refusal := await self._engine.remove_volume(container.name_of(token)):
                    await trio.sleep(holdings.LOOK_EVERY_S)
            return
        raise Unknown(f"the volume {container.name_of(token)} does not go{refusal and f': {refusal}'}")
