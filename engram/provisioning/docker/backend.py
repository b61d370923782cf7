"""Backend `docker`: each node is a container of one engine, and a volume with what it stores.

Every decision is made by looking at them, which this draws:

    (none) -- volume, create --> created -- orders put, start --> running -- ends, or is stopped --> exited
      ^                                                              ^                                 |
      |                                                              +------- orders put, start -------+
      +-- kill, remove, remove the volume: from every state, until none is seen

A container that somebody removed by hand is made again on its volume. The engine restarts nothing; the saga does.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, final

import msgspec
import trio

from config.model import Settings
from engram.clock import Ids
from engram.provisioning import capacity
from engram.provisioning.docker import container, holdings, orders
from engram.provisioning.docker.container import Place
from engram.provisioning.docker.endings import tell_endings
from engram.provisioning.docker.engine import Engine
from engram.provisioning.docker.engine_model import About
from engram.provisioning.docker.holdings import HeldNode, Holdings
from engram.provisioning.docker.images import ImageKeeper
from engram.provisioning.docker.launching import ContainerLaunch, LaunchPorts
from engram.provisioning.docker.removing import Remover
from engram.provisioning.docker.volumes import VolumeKeeper
from engram.provisioning.errors import Rejected, Unavailable, Unknown
from engram.provisioning.model import Node, NodeSpec, Offers
from engram.provisioning.records import is_ours
from engram.sessions import TierName

PORT_COUNT: Final = 1_000
LAUNCH_S: Final = 90.0
STOP_S: Final = 60.0
"""A container that is still seen to run so long after its grace: the outcome is unknown."""


class DockerSetup(msgspec.Struct, frozen=True, kw_only=True):
    """What the backend is built with."""

    settings: Settings
    ledger_id: str
    ids: Ids
    place: Place
    with_hotkey: bool
    """Whether nodes get their hotkeys: the engine is on this machine."""
    lite_memory_bytes: int
    hourly_usd_micros: Mapping[TierName, int]


@final
class DockerBackend:
    """The nodes of one engine that belong to one ledger."""

    name = "docker"

    def __init__(self, engine: Engine, setup: DockerSetup) -> None:
        self._engine = engine
        self._setup = setup
        self._label = container.of_ledger(setup.ledger_id)
        self._images = ImageKeeper(engine, setup.settings.provisioning.miner_image)
        self._holdings = Holdings(engine, setup.ledger_id)
        self._volumes = VolumeKeeper(engine, self._holdings, setup.ledger_id, setup.ids)
        self._remover = Remover(engine, self._holdings)
        self._about: About | None = None
        self._limits_storage: bool | None = None
        self._asking = trio.Lock()
        self._locks: dict[str, trio.Lock] = {}

    async def offers(self) -> Offers:
        try:
            await self._engine.ping()
            await self._images.require()
            about, limits_storage = await self._ask()
        except Unavailable:
            self._about, self._limits_storage = None, None  # it may come back as another, on another file system
            raise
        docker = self._setup.settings.docker
        return Offers(
            backend=self.name,
            places=capacity.places(docker.places, about.memory_bytes, about.cpus, self._setup.lite_memory_bytes),
            first_port=docker.first_port,
            port_count=PORT_COUNT,
            not_enforced=container.not_enforced(about, storage=limits_storage),
            hourly_usd_micros=self._setup.hourly_usd_micros,
        )

    async def launch(self, spec: NodeSpec) -> Node:
        if spec.port is None:
            raise Rejected("a container needs a port of the ledger")
        if not is_ours(spec.token, self._setup.ledger_id):
            raise Rejected("the token is of another ledger")
        async with self._turn(spec.token):
            with trio.move_on_after(LAUNCH_S):
                about, limits_storage = await self._ask()
                launch = ContainerLaunch(self._launch_ports(), about, spec, limits_storage=limits_storage)
                return self._node(holdings.of_container(await launch.run()))
        raise Unknown(f"the container of {spec.token} was not seen to run within {LAUNCH_S:g} s")

    async def inspect(self, token: str) -> Node | None:
        found = await self._holdings.find(token)
        return None if found is None else self._node(found)

    async def extend(self, token: str, ends_at: float) -> None:
        async with self._turn(token):
            found = await self._holdings.container(token)
            if found is None:
                return
            archive = await self._engine.get(found.id, f"{container.FOLDER}/{container.ORDERS}")
            changed = None if archive is None else orders.with_end(archive, ends_at)
            owner = container.owner_of(found.config.user)
            if changed is None or owner is None:
                raise Unknown(f"the end of {token} was not moved: its orders cannot be read in its container")
            if refusal := await self._engine.put(found.id, container.FOLDER, orders.packed(changed, owner)):
                raise Unknown(f"the end of {token} was not moved: {refusal}")

    async def stop(self, token: str) -> None:
        grace_s = self._setup.settings.provisioning.destroy_grace_s
        async with self._turn(token):
            with trio.move_on_after(grace_s + STOP_S):
                while (found := await self._holdings.container(token)) is not None and found.state.running:
                    if found.state.paused:
                        await self._engine.unpause(found.id)
                    if await self._engine.stop(found.id, grace_s):
                        await trio.sleep(holdings.LOOK_EVERY_S)
                return
        raise Unknown(f"the container {container.name_of(token)} does not stop")

    async def destroy(self, token: str) -> None:
        async with self._turn(token):
            await self._remover.remove(token)

    async def list(self) -> Sequence[Node]:
        return [self._node(held) for held in await self._holdings.all()]

    async def watch(self, exited: Callable[[str], None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._images.run)
            nursery.start_soon(tell_endings, self._engine, self._label, exited)

    async def _ask(self) -> tuple[About, bool]:
        """Return what the engine is, and whether it limits volumes; each is asked once while it answers.

        What is known stays when the rest takes too long: a slow engine is known after some looks. Raises Unavailable.
        """
        async with self._asking:
            if self._about is None:
                self._about = await self._engine.about()
            if self._limits_storage is None:
                self._limits_storage = await self._volumes.can_limit()
            return self._about, self._limits_storage

    def _launch_ports(self) -> LaunchPorts:
        setup = self._setup
        return LaunchPorts(
            settings=setup.settings,
            ledger_id=setup.ledger_id,
            place=setup.place,
            with_hotkey=setup.with_hotkey,
            engine=self._engine,
            images=self._images,
            holdings=self._holdings,
            volumes=self._volumes,
            remover=self._remover,
        )

    def _node(self, held: HeldNode) -> Node:
        labels = held.labels
        return Node(
            token=labels.get(container.TOKEN, ""),
            session_id=labels.get(container.SESSION, ""),
            endpoint=f"http://{self._setup.place.host}:{labels.get(container.PORT, '')}",
            alive=held.alive,
            reference=msgspec.json.encode({"container": held.container_id[:12]}).decode(),
            store=labels.get(container.VOLUME, ""),
        )

    @contextlib.asynccontextmanager
    async def _turn(self, token: str) -> AsyncIterator[None]:
        """Hold the node alone: what changes it happens one after another."""
        lock = self._locks.setdefault(token, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and self._locks.get(token) is lock:
                del self._locks[token]
