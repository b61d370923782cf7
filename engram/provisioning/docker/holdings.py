"""What the engine holds of this ledger's nodes: a container, and a volume with what it stores.

Both bear the node's labels. Somebody at the engine may rename a container, or make one that bears the labels of
another (an image that is committed from a container keeps them), so neither name nor labels alone are believed.
"""

from collections.abc import Mapping
from typing import Final, final

import msgspec

from engram.provisioning.docker import container
from engram.provisioning.docker.engine import Engine
from engram.provisioning.docker.engine_model import Container, EngineVolume
from engram.provisioning.records import is_ours

LOOK_EVERY_S: Final = 0.1
"""Between two looks at what is to change."""


class HeldNode(msgspec.Struct, frozen=True):
    """A node that the engine holds something of."""

    labels: Mapping[str, str]
    alive: bool
    container_id: str = ""
    """Empty: its volume is all that is left."""


@final
class Holdings:
    """Containers and volumes of one ledger's nodes."""

    def __init__(self, engine: Engine, ledger_id: str) -> None:
        self._engine = engine
        self._ledger_id = ledger_id
        self._label = container.of_ledger(ledger_id)

    async def container(self, token: str) -> Container | None:
        """Return the node's container, by whatever name; None when there is none."""
        found = await self._engine.inspect(container.name_of(token))
        if found is not None and container.is_node(found, token, self._ledger_id):
            return found
        for each in await self._engine.containers(f"{container.TOKEN}={token}"):
            renamed = await self._engine.inspect(each.id)
            if renamed is not None and container.is_node(renamed, token, self._ledger_id):
                return renamed
        return None

    async def volume(self, token: str) -> EngineVolume | None:
        """Return the node's volume; None when there is none, or one of that name that is not ours."""
        found = await self._engine.volume(container.name_of(token))
        if found is None or not container.has_labels(found.labels or {}, token, self._ledger_id):
            return None
        return found

    async def find(self, token: str) -> HeldNode | None:
        """Return what there is of the node; None when nothing of it is left."""
        found = await self.container(token)
        if found is not None:
            return of_container(found)
        volume = await self.volume(token)
        return None if volume is None else HeldNode(volume.labels or {}, alive=False)

    async def all(self) -> list[HeldNode]:
        """Return every node of the ledger, including those of which a volume is left."""
        return await self._bearing(self._label)

    async def all_of(self, session_id: str) -> list[HeldNode]:
        """Return every node of a session of the ledger."""
        return await self._bearing(f"{container.SESSION}={session_id}")

    async def _bearing(self, label: str) -> list[HeldNode]:
        held: dict[str, HeldNode] = {}
        for each in await self._engine.containers(label):
            labels = each.labels or {}
            token = labels.get(container.TOKEN, "")
            if not is_ours(token, self._ledger_id) or token in held:
                continue
            if f"/{container.name_of(token)}" in (each.names or ()):
                held[token] = HeldNode(labels, each.state == "running", each.id)
            elif (found := await self.container(token)) is not None:
                held[token] = of_container(found)
        for volume in await self._engine.volumes(label):
            labels = volume.labels or {}
            token = labels.get(container.TOKEN, "")
            if is_ours(token, self._ledger_id) and volume.name == container.name_of(token):
                held.setdefault(token, HeldNode(labels, alive=False))
        return list(held.values())


def of_container(found: Container) -> HeldNode:
    """Return what a container says of its node."""
    return HeldNode(found.labels, container.is_alive(found), found.id)
