"""Backend `docker`: each node is a container of one engine.

Every decision is made by looking at the container, which this draws:

    (none) -- create --> created -- orders put, start --> running -- ends, or is stopped --> exited
      ^                                                      ^                                 |
      |                                                      +------- orders put, start -------+
      +-- kill, remove: from every state, until none is seen

What a node stores is in a volume of its container: it is there until the container is removed. The engine restarts
nothing; the saga does.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, final

import msgspec
import structlog
import trio

from config.model import Settings
from engram import kill_points
from engram.nodes.launch import LaunchFileError
from engram.provisioning import capacity
from engram.provisioning.docker import container, orders
from engram.provisioning.docker.container import Place
from engram.provisioning.docker.endings import tell_endings
from engram.provisioning.docker.engine import Engine
from engram.provisioning.docker.engine_model import About, Container
from engram.provisioning.docker.images import ImageKeeper
from engram.provisioning.errors import NoCapacity, Rejected, Unavailable, Unknown
from engram.provisioning.model import Node, NodeSpec, Offers
from engram.provisioning.records import is_ours
from engram.sessions import TierName

PORT_COUNT: Final = 1_000
LAUNCH_S: Final = 90.0
REMOVE_S: Final = 60.0
"""A container that was told to go and is still seen after this: the outcome is unknown."""
LOOK_EVERY_S: Final = 0.1
_REFUSALS: Final = 3
"""A container that was refused so often, and is not there, is not created."""

_log = structlog.get_logger("engram.provisioning.docker")


class DockerSetup(msgspec.Struct, frozen=True, kw_only=True):
    """What the backend is built with."""

    settings: Settings
    ledger_id: str
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
        self._images = ImageKeeper(engine, setup.settings.provisioning.miner_image)
        self._label = container.of_ledger(setup.ledger_id)
        self._about: About | None = None
        self._locks: dict[str, trio.Lock] = {}

    async def offers(self) -> Offers:
        await self._engine.ping()
        await self._images.require()
        about, docker = await self._known(), self._setup.settings.docker
        return Offers(
            backend=self.name,
            places=capacity.places(docker.places, about.memory_bytes, about.cpus, self._setup.lite_memory_bytes),
            first_port=docker.first_port,
            port_count=PORT_COUNT,
            not_enforced=container.not_enforced(about),
            hourly_usd_micros=self._setup.hourly_usd_micros,
        )

    async def launch(self, spec: NodeSpec) -> Node:
        if spec.port is None:
            raise Rejected("a container needs a port of the ledger")
        if not is_ours(spec.token, self._setup.ledger_id):
            raise Rejected("the token is of another ledger")
        async with self._turn(spec.token):
            with trio.move_on_after(LAUNCH_S):
                return await self._launch(spec)
        raise Unknown(f"the container of {spec.token} was not seen to run within {LAUNCH_S:g} s")

    async def inspect(self, token: str) -> Node | None:
        found = await self._look(token)
        return None if found is None else self._node(found)

    async def extend(self, token: str, ends_at: float) -> None:
        async with self._turn(token):
            found = await self._look(token)
            if found is None:
                return
            name, path = container.name_of(token), f"{container.FOLDER}/{container.ORDERS}"
            archive = await self._engine.get(name, path)
            changed = None if archive is None else orders.with_end(archive, ends_at)
            if changed is not None and (refusal := await self._put(found, changed)):
                raise Unknown(f"the end of {token} was not moved: {refusal}")

    async def stop(self, token: str) -> None:
        name, grace_s = container.name_of(token), self._setup.settings.provisioning.destroy_grace_s
        async with self._turn(token):
            with trio.move_on_after(grace_s + REMOVE_S):
                while (found := await self._look(token)) is not None and found.state.running:
                    if found.state.paused:
                        await self._engine.unpause(name)
                    if not await self._engine.stop(name, grace_s):
                        continue
                    await trio.sleep(LOOK_EVERY_S)
                return
        raise Unknown(f"the container {name} does not stop")

    async def destroy(self, token: str) -> None:
        async with self._turn(token):
            await self._remove(token)

    async def list(self) -> Sequence[Node]:
        found = await self._engine.list(self._label)
        nodes = [(each, each.labels or {}) for each in found]
        return [
            self._described(each.id, labels, alive=each.state == "running")
            for each, labels in nodes
            if is_ours(labels.get(container.TOKEN, ""), self._setup.ledger_id)
        ]

    async def watch(self, exited: Callable[[str], None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._images.run)
            nursery.start_soon(tell_endings, self._engine, self._label, exited)

    # Steps, each followed by a look.

    async def _launch(self, spec: NodeSpec) -> Node:
        name = container.name_of(spec.token)
        refusals = 0
        while True:
            found = await self._engine.inspect(name)
            if found is None:
                await self._remove_others(spec)
                if refusal := await self._create(spec):
                    refusals += 1
                    await self._explain(spec, refusal, last=refusals >= _REFUSALS)
                kill_points.point("container:created")
            elif not container.is_node(found.labels, spec.token, self._setup.ledger_id):
                raise Rejected(f"a container {name} is there that is not ours")
            elif container.is_alive(found):
                return self._node(found)
            elif found.state.status == "removing":
                await trio.sleep(LOOK_EVERY_S)
            elif found.state.paused:
                await self._engine.unpause(name)
            else:
                return await self._start(spec, found)

    async def _create(self, spec: NodeSpec) -> str:
        setup = self._setup
        body = container.body(
            spec,
            image=self._images.name,
            ledger_id=setup.ledger_id,
            place=setup.place,
            about=await self._known(),
            grace_s=setup.settings.provisioning.destroy_grace_s,
        )
        return await self._engine.create(container.name_of(spec.token), body)

    async def _explain(self, spec: NodeSpec, refusal: str, *, last: bool) -> None:
        """After a creation that was refused: return to look again, or say why there is no container."""
        if await self._engine.inspect(container.name_of(spec.token)) is not None:
            return
        await self._images.require()
        if refusal.startswith("400"):
            raise Rejected(f"the engine: {refusal}")
        if last:
            raise Unavailable(f"the engine: {refusal}")
        await trio.sleep(LOOK_EVERY_S)

    async def _start(self, spec: NodeSpec, found: Container) -> Node:
        name = container.name_of(spec.token)
        try:
            files = await trio.to_thread.run_sync(self._files, spec)
        except (OSError, LaunchFileError) as error:
            raise Unavailable(f"the orders of {spec.token}: {error}") from error
        if refusal := await self._put(found, files):
            raise Unavailable(f"the orders of {spec.token} could not be put into its container: {refusal}")
        refusal = await self._engine.start(name)
        kill_points.point("container:started")
        seen = await self._look(spec.token)
        if seen is None:
            raise Unknown(f"the container {name} was there, and is not any more")
        if refusal and not container.is_alive(seen):
            raise NoCapacity(f"the engine starts no container: {seen.state.error or refusal}")
        return self._node(seen)

    def _files(self, spec: NodeSpec) -> dict[str, bytes]:
        return orders.files(spec, self._setup.settings, with_hotkey=self._setup.with_hotkey)

    async def _put(self, found: Container, files: dict[str, bytes]) -> str:
        owner = container.owner_of(found.config.user)
        if owner is None:
            raise Rejected(f"the image runs as {found.config.user!r}; its user must be a number")
        return await self._engine.put(found.id, container.FOLDER, orders.packed(files, owner))

    async def _remove_others(self, spec: NodeSpec) -> None:
        """Remove what an earlier launch of the session left."""
        for each in await self._engine.list(f"{container.SESSION}={spec.session_id}"):
            labels = each.labels or {}
            token = labels.get(container.TOKEN, "")
            if token != spec.token and labels.get(container.LEDGER) == self._setup.ledger_id:
                await self._remove(token)

    async def _remove(self, token: str) -> None:
        """Kill first: Podman's forced removal waits for the whole grace."""
        name = container.name_of(token)
        with trio.move_on_after(REMOVE_S):
            while (found := await self._look(token)) is not None:
                if found.state.paused:
                    await self._engine.unpause(name)
                if found.state.running:
                    await self._engine.kill(name)
                if found.state.status != "removing" and not await self._engine.remove(name):
                    continue
                await trio.sleep(LOOK_EVERY_S)
            return
        raise Unknown(f"the container {name} does not go")

    # Looking.

    async def _look(self, token: str) -> Container | None:
        """Return the node's container; None when there is none, or one of that name that is not ours."""
        found = await self._engine.inspect(container.name_of(token))
        if found is None or not container.is_node(found.labels, token, self._setup.ledger_id):
            return None
        return found

    async def _known(self) -> About:
        if self._about is None:
            self._about = await self._engine.about()
        return self._about

    def _node(self, found: Container) -> Node:
        return self._described(found.id, found.labels, alive=container.is_alive(found))

    def _described(self, container_id: str, labels: dict[str, str], *, alive: bool) -> Node:
        return Node(
            token=labels.get(container.TOKEN, ""),
            session_id=labels.get(container.SESSION, ""),
            endpoint=f"http://{self._setup.place.host}:{labels.get(container.PORT, '')}",
            alive=alive,
            reference=msgspec.json.encode({"container": container_id[:12]}).decode(),
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
