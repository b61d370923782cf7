"""The volume of a node: what it stores, and the limit of it where the engine's file system can set one.

It has the node's name and goes with the node, not with its container: a container that somebody removes by hand takes
no memory with it. Its label `engram.volume` names it for good, so that an empty one in its place is noticed.

Docker limits a volume by the option `size`, and refuses that where its file system is not XFS with project quotas
(`pquota`). Podman says yes to `size` and does nothing; it limits by `o=size=…`, which Docker refuses.
"""

from typing import Final, final

from engram.clock import Ids
from engram.provisioning.docker import container
from engram.provisioning.docker.engine import Engine
from engram.provisioning.docker.holdings import Holdings
from engram.provisioning.errors import NoCapacity, Rejected, Unavailable, Unknown
from engram.provisioning.model import NodeSpec

HEADROOM: Final = 0.25
"""By so much of its tier's storage a volume may be larger: an index that is built again is there twice for a while. The
node itself takes nothing in above its storage."""
_PROBED_BYTES: Final = 16 * 1024**2
_NAME_BYTES: Final = 6


def limits(size: int, *, podman: bool) -> dict[str, str]:
    """Return the options of a volume of at most `size` bytes.

    >>> limits(10, podman=False), limits(10, podman=True)
    ({'size': '10'}, {'o': 'size=10'})
    """
    return {"o": f"size={size}"} if podman else {"size": str(size)}


@final
class VolumeKeeper:
    """The volumes of one ledger's nodes."""

    def __init__(self, engine: Engine, holdings: Holdings, ledger_id: str, ids: Ids) -> None:
        self._engine = engine
        self._holdings = holdings
        self._ledger_id = ledger_id
        self._ids = ids

    async def can_limit(self) -> bool:
        """Return whether the engine limits volumes, which is tried out. Raises Unavailable."""
        name = container.name_of(f"{self._ledger_id}-probe")
        labels = {container.LEDGER: self._ledger_id}
        try:
            options = limits(_PROBED_BYTES, podman=self._engine.is_podman)
            refused = await self._engine.create_volume(name, labels, options)
            if not refused:
                await self._engine.remove_volume(name)
        except Unknown as error:
            raise Unavailable(f"whether volumes can be limited is not known: {error}") from error
        return not refused

    async def provide(self, spec: NodeSpec, *, limited: bool) -> str:
        """Return what names the node's volume for good, which is made unless it is there.

        Raises Rejected for a volume of somebody else with its name, NoCapacity when none can be made.
        """
        name = container.name_of(spec.token)
        refused = ""
        if await self._engine.volume(name) is None:
            unique = self._ids.token(_NAME_BYTES)
            size = round(spec.tier.storage_bytes * (1 + HEADROOM))
            options = limits(size, podman=self._engine.is_podman) if limited else {}
            refused = await self._engine.create_volume(name, container.labels(spec, self._ledger_id, unique), options)
        found = await self._holdings.volume(spec.token)
        if found is not None:
            return (found.labels or {}).get(container.VOLUME, "")
        if await self._engine.volume(name) is not None:
            raise Rejected(f"a volume {name} is there that is not ours")
        raise NoCapacity(f"the engine makes no volume: {refused}")
