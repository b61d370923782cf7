"""The whole double: a chain with its nodes, providers with their gateways, blocks by the clock, and its control."""

import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from tests.doubles.akash import addresses, certificates
from tests.doubles.akash.certificates import Certificate
from tests.doubles.akash.chain import Chain
from tests.doubles.akash.control import Control
from tests.doubles.akash.faults import Faults, NodeFaults, ProviderFaults
from tests.doubles.akash.gateway import Gateway
from tests.doubles.akash.provider import Provider, Script
from tests.doubles.akash.rest import Node
from tests.doubles.akash.serving import Handler, serve
from tests.doubles.akash.store import Params
from tests.doubles.akash.waits import Waits
from tests.doubles.akash.workloads import SESSION_VARIABLE, ChildProcess, Stub, Workload

AUDITOR: Final = "akash1365yvmc4s7awdyj3n2sav7xfx76adc6dnmlx63"
_RICH: Final = 10**15
NODE_COMMAND: Final = (sys.executable, "-m", "engram.miner")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How the double runs."""

    block_s: float = 1.0
    """Real seconds between blocks; 0: blocks are made by the control endpoint alone."""
    step_s: float = 0.0
    """A virtual clock: the chain's time moves on by so much for each block; 0: it is the machine's time."""
    index_lag: int = 1
    nodes: int = 2
    providers: int = 3
    window_s: int | None = 86_400
    """The notice of all providers but the last, which gives none."""
    stub_nodes: bool = True
    real_sessions: tuple[str, ...] = ()
    """Sessions whose nodes are real where the others are stubs."""
    node_command: tuple[str, ...] = NODE_COMMAND
    pull_s: float = 0.0
    unstable_after_s: float = 450.0
    withdraw_every_blocks: int = 10
    watch_s: float = 2.0
    """Real seconds between two looks of a provider at its workloads."""
    funded: tuple[str, ...] = ()
    """Accounts with 1,000 AKT and 1,000 ACT at genesis."""
    port: int = 0
    """Of the first node; the others and the rest have ports of their own."""
    control_port: int = 0
    params: Params = Params()
    certificates: str = ""
    """A folder of certificates that are used again; none: they are made each time."""


class Double:
    """What `running` yields."""

    def __init__(self, options: Options, folder: Path, now: Callable[[], float]) -> None:
        self.options = options
        self._now = now
        self._folder = folder
        self.certificates = Path(options.certificates or folder)
        self.chain = Chain(options.params, time_s=now(), index_lag=options.index_lag)
        names = ("ada", "brunel", "curie", "darwin", "euler", "faraday", "gauss", "hopper")[: options.providers]
        self.faults = Faults(
            nodes=[NodeFaults() for _ in range(options.nodes)],
            providers={name: ProviderFaults() for name in names},
            chain=self.chain.faults,
        )
        self.providers = {name: self._provider(index, name) for index, name in enumerate(names)}
        self.nodes = [
            Node(self.chain, list(self.providers.values()), faults, self.faults.chain) for faults in self.faults.nodes
        ]
        self.gateways = {name: Gateway(each, self.chain, self.now) for name, each in self.providers.items()}
        self.control = Control(
            self.chain, self.faults, self.nodes, self.providers, self.gateways, self.make_blocks, self.rotate
        )
        self.control_url = ""
        for address in options.funded:
            self.chain.fund(address, uakt=10**9, uact=10**9)

    def now(self) -> float:
        """Return the time that providers go by (unix seconds)."""
        return self.chain.state.time_s if self.options.step_s or not self.options.block_s else self._now()

    @property
    def endpoints(self) -> list[str]:
        """Base URLs of the chain's nodes."""
        return self.control.endpoints

    def make_blocks(self, count: int, step_s: float | None = None) -> None:
        """Make blocks now; each moves the chain's clock on by `step_s`, or to the machine's time."""
        for _ in range(count):
            time_s = self._now() if step_s is None else self.chain.state.time_s + step_s
            if self.faults.chain.drop_waiting:
                self.chain.lose_waiting()
            self.chain.make_block(time_s)

    def rotate(self, name: str) -> None:
        """Give a provider a new certificate; the one before is revoked."""
        provider = self.providers[name]
        provider.certificate = certificates.make(provider.address, self._folder, f"{name}-{self.chain.state.height}")

    def _provider(self, index: int, name: str) -> Provider:
        address = addresses.of_name(f"provider/{name}")
        self.chain.fund(address, uact=_RICH)
        last = index == self.options.providers - 1
        script = Script(
            name=name,
            address=address,
            attributes={"region": "us-west" if index % 2 == 0 else "eu-central", "host": "akash", "tier": "community"},
            auditors=frozenset({AUDITOR}),
            factor=1.0 + index / 10,
            window_s=None if last else self.options.window_s,
            pull_s=self.options.pull_s,
            unstable_after_s=self.options.unstable_after_s,
            withdraw_every_blocks=self.options.withdraw_every_blocks,
        )
        certificate = certificates.make(address, self.certificates, name)
        faults = self.faults.providers[name]
        return Provider(script, self.chain, certificate, faults, partial(self._make_workload, faults))

    def _make_workload(self, faults: ProviderFaults, environment: dict[str, str], name: str) -> Workload:
        is_real = environment.get(SESSION_VARIABLE) in self.options.real_sessions or not self.options.stub_nodes
        if faults.answers_itself or not is_real:
            return Stub(environment)
        folder = self._folder / "workloads" / name
        folder.mkdir(parents=True, exist_ok=True)
        return ChildProcess(list(self.options.node_command), environment, folder)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve and make blocks for ever."""
        async with trio.open_nursery() as nursery:
            for index, node in enumerate(self.nodes):
                port = await self._listen(nursery, node.handle, self.options.port if index == 0 else 0)
                self.control.endpoints.append(f"http://127.0.0.1:{port}")
            for name, provider in self.providers.items():
                port = await self._listen_secure(nursery, provider, self.gateways[name])
                provider.host_uri = f"https://127.0.0.1:{port}"
                self.chain.after_block.append(provider.on_block)
                nursery.start_soon(provider.run)
                nursery.start_soon(provider.watch, self.options.watch_s)
            self.control.waits = Waits(self.chain, self.providers.values())
            control = await self._listen(nursery, self.control.handle, self.options.control_port)
            self.control_url = f"http://127.0.0.1:{control}"
            task_status.started()
            if self.options.block_s:
                await self._make_blocks_for_ever()
            await trio.sleep_forever()

    async def _make_blocks_for_ever(self) -> None:
        due = trio.current_time()
        while True:
            due += self.options.block_s
            await trio.sleep_until(due)
            if not self.faults.chain.no_blocks:
                self.make_blocks(1, self.options.step_s or None)

    async def _listen(self, nursery: trio.Nursery, handler: Handler, port: int) -> int:
        (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
        nursery.start_soon(serve, handler, listener)
        return int(listener.socket.getsockname()[1])

    async def _listen_secure(self, nursery: trio.Nursery, provider: Provider, gateway: Gateway) -> int:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        presented = _Presented(provider, self.certificates)
        nursery.start_soon(partial(serve, gateway.handle, listener, presented.context))
        return int(listener.socket.getsockname()[1])


class _Presented:
    """The certificate a gateway presents: the one on the chain, or an impostor's with the same name."""

    def __init__(self, provider: Provider, folder: Path) -> None:
        self._provider = provider
        self._folder = folder
        self._contexts: dict[int, ssl.SSLContext] = {}
        self._other: Certificate | None = None

    def context(self) -> ssl.SSLContext:
        found = self._provider.certificate
        if self._provider.faults.impostor:
            name = f"{self._provider.script.name}-impostor"
            found = self._other = self._other or certificates.make(self._provider.address, self._folder, name)
        if found.serial not in self._contexts:
            self._contexts[found.serial] = found.context()
        return self._contexts[found.serial]


@asynccontextmanager
async def running(options: Options | None = None, now: Callable[[], float] = time.time) -> AsyncIterator[Double]:
    """Run a double in this process; what it started is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="akash-double-") as folder:
        double = Double(options or Options(), Path(folder), now)
        async with trio.open_nursery() as nursery:
            await nursery.start(double.run)
            yield double
            nursery.cancel_scope.cancel()


__all__ = ["AUDITOR", "Double", "Options", "running"]
