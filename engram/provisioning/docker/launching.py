"""One launch of a container, step by step, each followed by a look."""

from typing import Final, final

import msgspec
import trio

from config.model import Settings
from engram import kill_points
from engram.nodes.launch import LaunchFileError
from engram.provisioning.docker import container, holdings, orders
from engram.provisioning.docker.container import Place
from engram.provisioning.docker.engine import Engine
from engram.provisioning.docker.engine_model import About, Container
from engram.provisioning.docker.holdings import Holdings
from engram.provisioning.docker.images import ImageKeeper
from engram.provisioning.docker.removing import Remover
from engram.provisioning.docker.volumes import VolumeKeeper
from engram.provisioning.errors import NoCapacity, Rejected, Unavailable, Unknown
from engram.provisioning.model import NodeSpec

REFUSALS: Final = 3
"""A container that was asked for so often, and is not there, is not created."""


class LaunchPorts(msgspec.Struct, frozen=True, kw_only=True):
    """What a launch needs."""

    settings: Settings
    ledger_id: str
    place: Place
    with_hotkey: bool
    engine: Engine
    images: ImageKeeper
    holdings: Holdings
    volumes: VolumeKeeper
    remover: Remover


@final
class ContainerLaunch:
    """Brings the node of a spec to run. `run` is called once, alone for its token."""

    def __init__(self, ports: LaunchPorts, about: About, spec: NodeSpec, *, limits_storage: bool) -> None:
        self._p = ports
        self._about = about
        self._limits_storage = limits_storage
        self._spec = spec
        self._files: dict[str, bytes] = {}
        self._is_begun = False
        """Something may have been made: an engine that cannot be reached any more leaves the outcome unknown."""

    async def run(self) -> Container:
        """Return the container, which was seen to run or was started. Raises as `NodeBackend.launch` does."""
        try:
            return await self._run()
        except Unavailable as error:
            if self._is_begun:
                raise Unknown(f"the launch of {self._spec.token} was begun: {error}") from error
            raise

    async def _run(self) -> Container:
        engine, asked_for = self._p.engine, 0
        while True:
            found = await self._p.holdings.container(self._spec.token)
            if found is None:
                if asked_for:
                    await trio.sleep(holdings.LOOK_EVERY_S)
                asked_for += 1
                await self._create(is_last=asked_for >= REFUSALS)
            elif container.is_alive(found):
                return found
            elif found.state.status == "removing":
                await trio.sleep(holdings.LOOK_EVERY_S)
            elif found.state.status == "dead":  # its removal failed half-way; its volume is there all the same
                await self._p.remover.remove_container(self._spec.token)
            elif found.state.paused:
                await engine.unpause(found.id)
                await trio.sleep(holdings.LOOK_EVERY_S)
            else:
                return await self._start(found)

    async def _create(self, *, is_last: bool) -> None:
        spec, name = self._spec, container.name_of(self._spec.token)
        await self._p.images.require()
        await self._read_orders()
        await self._remove_others()
        self._is_begun = True
        volume = await self._p.volumes.provide(spec, limited=self._limits_storage)
        kill_points.point("container:volume")
        body = container.body(
            spec,
            image=self._p.images.name,
            ledger_id=self._p.ledger_id,
            volume=volume,
            place=self._p.place,
            about=self._about,
            grace_s=self._p.settings.provisioning.destroy_grace_s,
        )
        refusal = await self._p.engine.create(name, body)
        kill_points.point("container:created")
        if (refusal or is_last) and await self._p.holdings.container(spec.token) is None:
            await self._explain(refusal, is_last=is_last)

    async def _explain(self, refusal: str, *, is_last: bool) -> None:
        """There is no container: return to ask for it again, or say why there will be none."""
        name = container.name_of(self._spec.token)
        if await self._p.engine.inspect(name) is not None:
            raise Rejected(f"a container {name} is there that is not ours")
        await self._p.images.require()
        if refusal.startswith("400"):
            raise Rejected(f"the engine: {refusal}")
        if is_last:
            raise NoCapacity(f"the engine creates no container: {refusal or 'it said that it did'}")

    async def _start(self, found: Container) -> Container:
        await self._read_orders()
        owner = container.owner_of(found.config.user)
        if owner is None:
            raise Rejected(f"the image runs as {found.config.user!r}; its user must be a number")
        self._is_begun = True
        if refusal := await self._p.engine.put(found.id, container.FOLDER, orders.packed(self._files, owner)):
            raise NoCapacity(f"the engine puts no orders into {container.name_of(self._spec.token)}: {refusal}")
        refusal = await self._p.engine.start(found.id)
        kill_points.point("container:started")
        seen = await self._p.holdings.container(self._spec.token)
        if seen is None:
            raise Unknown(f"the container {container.name_of(self._spec.token)} was there, and is not any more")
        if refusal and not container.is_alive(seen):
            raise NoCapacity(f"the engine starts no container: {seen.state.error or refusal}")
        return seen

    async def _read_orders(self) -> None:
        spec, settings, with_hotkey = self._spec, self._p.settings, self._p.with_hotkey
        if self._files:
            return
        try:
            self._files = await trio.to_thread.run_sync(
                lambda: orders.files(spec, settings, with_hotkey=with_hotkey),
            )
        except (OSError, LaunchFileError) as error:
            raise Unavailable(f"the orders of {spec.token}: {error}") from error

    async def _remove_others(self) -> None:
        """Remove what an earlier launch of the session left."""
        for held in await self._p.holdings.all_of(self._spec.session_id):
            if (token := held.labels.get(container.TOKEN, "")) != self._spec.token:
                self._is_begun = True
                await self._p.remover.remove(token)
