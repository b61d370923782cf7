"""An in-memory backend that keeps the Provisioner contract, for virtual time and for benchmarks."""

from collections.abc import Callable, Mapping, Sequence
from typing import final

import msgspec
import trio

from engram.provisioning import Node, NodeSpec, Offers, ProvisioningError
from engram.sessions import TierName


@final
class InMemoryProvisioner:
    """Nodes that exist only here.

    `faults` are raised by the next calls of a name; `launches` and `destroyed` list what was really done, and
    `after_effect` is called right after each of it.
    """

    def __init__(
        self,
        places: int = 50,
        startup_s: float = 0.0,
        name: str = "double",
        *,
        first_port: int = 20_000,
        costs: Mapping[TierName, int] | None = None,
        not_enforced: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.places = places
        self.first_port = first_port
        self.costs = costs or {}
        self.not_enforced = not_enforced
        self.startup_s = startup_s
        self.specs: dict[str, NodeSpec] = {}
        self.alive: dict[str, float] = {}
        self.launches: list[str] = []
        self.destroyed: list[str] = []
        self.faults: dict[str, list[ProvisioningError]] = {}
        self.is_elsewhere = False
        self.sick: set[str] = set()
        self.store = ""
        """What holds the memory of nodes."""
        self.gate: trio.Event | None = None
        self.after_effect: Callable[[], None] = lambda: None
        self.was_watched = False
        self._exited: Callable[[str], None] | None = None

    async def offers(self) -> Offers:
        await self._enter("offers")
        return Offers(
            backend=self.name,
            places=self.places,
            first_port=self.first_port,
            port_count=10_000,
            not_enforced=self.not_enforced,
            is_elsewhere=self.is_elsewhere,
            hourly_usd_micros=self.costs,
        )

    async def launch(self, spec: NodeSpec) -> Node:
        await self._enter("launch")
        if spec.token not in self.alive:
            self.specs[spec.token] = spec
            self.alive[spec.token] = trio.current_time()
            self.launches.append(spec.token)
            self.after_effect()
        return self._node(spec.token)

    async def inspect(self, token: str) -> Node | None:
        await self._enter("inspect")
        return self._node(token) if token in self.specs else None

    async def extend(self, token: str, ends_at: float) -> None:
        await self._enter("extend")
        if token in self.specs:
            self.specs[token] = msgspec.structs.replace(self.specs[token], ends_at=ends_at)

    async def stop(self, token: str) -> None:
        await self._enter("stop")
        self._end(token)

    async def destroy(self, token: str) -> None:
        await self._enter("destroy")
        self._end(token)
        if self.specs.pop(token, None) is not None:
            self.destroyed.append(token)
            self.after_effect()

    async def list(self) -> Sequence[Node]:
        await self._enter("list")
        return [self._node(token) for token in self.specs]

    async def watch(self, exited: Callable[[str], None]) -> None:
        self._exited = exited
        self.was_watched = True
        try:
            await trio.sleep_forever()
        finally:
            self._exited = None

    # What tests do to nodes.

    def kill(self, token: str) -> None:
        """The node dies; what it stored stays."""
        self._end(token)

    def adopt(self, spec: NodeSpec) -> None:
        """A node that runs already when the gateway starts."""
        self.specs[spec.token] = spec
        self.alive[spec.token] = -1e9

    async def is_healthy(self, endpoint: str, token: str) -> bool:
        """The health probe of these nodes."""
        await trio.lowlevel.checkpoint()
        started = self.alive.get(token)
        return started is not None and token not in self.sick and trio.current_time() >= started + self.startup_s

    def _end(self, token: str) -> None:
        if self.alive.pop(token, None) is not None and self._exited is not None:
            self._exited(token)

    async def _enter(self, call: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.faults.get(call):
            raise self.faults[call].pop(0)

    def _node(self, token: str) -> Node:
        spec = self.specs[token]
        return Node(
            token=token,
            session_id=spec.session_id,
            endpoint=f"http://127.0.0.1:{spec.port}",
            alive=token in self.alive,
            reference="{}",
            store=self.store,
        )
