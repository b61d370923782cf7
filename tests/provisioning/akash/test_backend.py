"""The contract of every backend, kept by the one on Akash."""

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from engram.http.client import HttpClient
from engram.provisioning import NodeSpec
from engram.provisioning.health import health_probe
from tests.doubles.akash.workloads import TOKEN_VARIABLE, Workload, environment_of
from tests.provisioning import contract
from tests.provisioning.akash.worlds import World, world


class AkashBench(contract.Bench):
    starts_after_stop = 1

    def __init__(self, made: World) -> None:
        super().__init__(made.backend)
        self.world = made
        self.is_healthy = health_probe(HttpClient())

    async def spec(self, session_id: str = "s1", word: str = "t1") -> NodeSpec:
        return self.world.spec(session_id, word)

    async def until_healthy(self, endpoint: str, node_token: str) -> None:
        with trio.fail_after(10.0):
            while not await self.is_healthy(endpoint, node_token):  # noqa: ASYNC110  # another machine's doing
                await trio.sleep(0.05)

    def workload(self, node_token: str) -> Workload:
        for provider in self.world.double.providers.values():
            for tenancy in provider.tenancies.values():
                if tenancy.manifest is not None and tenancy.workload is not None:
                    environment = environment_of(tenancy.manifest[0]["services"][0])
                    if environment[TOKEN_VARIABLE] == node_token:
                        return tenancy.workload
        raise AssertionError(f"no provider runs {node_token}")

    async def kill(self, node_token: str) -> None:
        await self.workload(node_token).stop()

    async def starts(self, endpoint: str, node_token: str) -> int:
        return self.workload(node_token).starts


class TestAkash(contract.ProvisionerContract):
    @pytest.fixture
    def clock(self, virtual_time: MockClock) -> MockClock:
        return virtual_time

    @pytest.fixture
    async def bench(self) -> AsyncIterator[AkashBench]:
        async with world() as made:
            yield AkashBench(made)
