"""What every backend must do, whatever it speaks to. A backend's test module subclasses ProvisionerContract."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import trio
import trio.testing
from trio.testing import MockClock

from engram.provisioning import NodeBackend, NodeSpec
from engram.sessions import Tier, TierName, rules

LEDGER_ID = "0123abcd"
TIERS = rules.tiers(0.10)


def token(word: str, ledger_id: str = LEDGER_ID) -> str:
    return f"{ledger_id}-{word}"


class Bench:
    """A backend under test and the means to look at it from outside."""

    starts_after_stop = 2
    """How often a node was started that is launched after a stop; 1: where a stop leaves it running, out of service."""

    def __init__(self, backend: NodeBackend) -> None:
        self.backend = backend

    async def spec(self, session_id: str = "s1", word: str = "t1") -> NodeSpec:
        raise NotImplementedError

    async def until_healthy(self, endpoint: str, node_token: str) -> None:
        raise NotImplementedError

    async def kill(self, node_token: str) -> None:
        """Kill the node from outside."""
        raise NotImplementedError

    async def starts(self, endpoint: str, node_token: str) -> int:
        """How often the node was started on what it stores."""
        raise NotImplementedError


@asynccontextmanager
async def watched(backend: NodeBackend) -> AsyncIterator[trio.MemoryReceiveChannel[str]]:
    """The backend's watch running; yields the tokens of nodes that ended."""
    send, receive = trio.open_memory_channel[str](100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.watch, send.send_nowait)
        await trio.testing.wait_all_tasks_blocked(0.01)
        yield receive
        nursery.cancel_scope.cancel()


class ProvisionerContract:
    """Tests that every backend passes; `bench` and `clock` are fixtures of the subclass."""

    async def test_it_says_what_it_can_hold(self, clock: MockClock | None, bench: Bench) -> None:
        offers = await bench.backend.offers()
        assert offers.backend == bench.backend.name
        assert offers.places >= 1

    async def test_a_launched_node_becomes_healthy_and_is_listed(self, clock: MockClock | None, bench: Bench) -> None:
        spec = await bench.spec()
        node = await bench.backend.launch(spec)
        assert (node.token, node.session_id, node.alive) == (spec.token, "s1", True)
        await bench.until_healthy(node.endpoint, spec.token)
        assert await bench.backend.inspect(spec.token) == node
        assert [n.token for n in await bench.backend.list()] == [spec.token]

    async def test_launching_a_token_twice_starts_one_node(self, clock: MockClock | None, bench: Bench) -> None:
        spec = await bench.spec()
        first = await bench.backend.launch(spec)
        await bench.until_healthy(first.endpoint, spec.token)
        assert await bench.backend.launch(spec) == first
        assert await bench.starts(first.endpoint, spec.token) == 1

    async def test_racing_launches_of_one_token_start_one_node(self, clock: MockClock | None, bench: Bench) -> None:
        spec = await bench.spec()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(bench.backend.launch, spec)
        node = await bench.backend.launch(spec)
        await bench.until_healthy(node.endpoint, spec.token)
        assert await bench.starts(node.endpoint, spec.token) == 1

    async def test_a_destroyed_node_is_gone_and_destroying_again_is_no_error(
        self, clock: MockClock | None, bench: Bench
    ) -> None:
        spec = await bench.spec()
        await bench.backend.launch(spec)
        await bench.backend.destroy(spec.token)
        assert await bench.backend.inspect(spec.token) is None
        assert await bench.backend.list() == []
        await bench.backend.destroy(spec.token)

    async def test_calls_for_a_node_nobody_started_have_no_effect(self, clock: MockClock | None, bench: Bench) -> None:
        for call in (bench.backend.destroy, bench.backend.stop):
            await call(token("nobody"))
        await bench.backend.extend(token("nobody"), 1.0)
        assert await bench.backend.inspect(token("nobody")) is None

    async def test_a_node_that_died_is_told_of_and_started_again_on_what_it_stored(
        self, clock: MockClock | None, bench: Bench
    ) -> None:
        spec = await bench.spec()
        node = await bench.backend.launch(spec)
        await bench.until_healthy(node.endpoint, spec.token)
        async with watched(bench.backend) as exits:
            await bench.kill(spec.token)
            limit = trio.fail_after(2.0) if clock is None else nullcontext()
            with limit:
                assert await exits.receive() == spec.token
            dead = await bench.backend.inspect(spec.token)
            assert dead is not None
            assert not dead.alive
            again = await bench.backend.launch(spec)
            assert again.endpoint == node.endpoint
            await bench.until_healthy(again.endpoint, spec.token)
            assert await bench.starts(again.endpoint, spec.token) == 2

    async def test_a_stopped_node_keeps_what_it_stored(self, clock: MockClock | None, bench: Bench) -> None:
        spec = await bench.spec()
        node = await bench.backend.launch(spec)
        await bench.until_healthy(node.endpoint, spec.token)
        await bench.backend.stop(spec.token)
        stopped = await bench.backend.inspect(spec.token)
        assert stopped is not None
        assert not stopped.alive
        await bench.backend.stop(spec.token)
        await bench.backend.launch(spec)
        await bench.until_healthy(node.endpoint, spec.token)
        assert await bench.starts(node.endpoint, spec.token) == bench.starts_after_stop

    async def test_a_node_can_be_extended(self, clock: MockClock | None, bench: Bench) -> None:
        spec = await bench.spec()
        await bench.backend.launch(spec)
        await bench.backend.extend(spec.token, spec.ends_at + 3600.0)

    async def test_nodes_of_two_sessions_do_not_meet(self, clock: MockClock | None, bench: Bench) -> None:
        one, two = await bench.spec("s1", "t1"), await bench.spec("s2", "t2")
        first, second = await bench.backend.launch(one), await bench.backend.launch(two)
        assert first.endpoint != second.endpoint
        await bench.backend.destroy(one.token)
        await bench.until_healthy(second.endpoint, two.token)
        assert [n.token for n in await bench.backend.list()] == [two.token]


def tier(name: TierName = TierName.LITE) -> Tier:
    return TIERS[name]
