"""The in-memory double keeps the contract of the real backends."""

import pytest
import trio
from trio.testing import MockClock

from engram.provisioning import NodeSpec
from tests.fakes.nodes import InMemoryProvisioner
from tests.provisioning import contract


class DoubleBench(contract.Bench):
    def __init__(self, double: InMemoryProvisioner) -> None:
        super().__init__(double)
        self.double = double

    async def spec(self, session_id: str = "s1", word: str = "t1") -> NodeSpec:
        return NodeSpec(
            token=contract.token(word),
            session_id=session_id,
            tier=contract.tier(),
            controller=b"\1" * 32,
            hotkey=b"\2" * 32,
            hotkey_file="key",
            port=20_000 + int(word[1:]),
            ends_at=1e9,
        )

    async def until_healthy(self, endpoint: str, node_token: str) -> None:
        while not await self.double.is_healthy(endpoint, node_token):  # noqa: ASYNC110  # virtual time
            await trio.sleep(0.1)

    async def kill(self, node_token: str) -> None:
        self.double.kill(node_token)

    async def starts(self, endpoint: str, node_token: str) -> int:
        return self.double.launches.count(node_token)


class TestDouble(contract.ProvisionerContract):
    @pytest.fixture
    def clock(self, autojump_clock: MockClock) -> MockClock:
        return autojump_clock

    @pytest.fixture
    def bench(self) -> DoubleBench:
        return DoubleBench(InMemoryProvisioner(startup_s=1.0))
