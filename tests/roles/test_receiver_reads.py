"""What a receiver reads on the chain: each sort of reading has room of its own, so that none keeps another waiting."""

from collections.abc import Awaitable, Callable, Sequence
from unittest.mock import MagicMock

import pytest
import trio

from config.model import Settings
from engram.chain.read.node import Json, RpcCall
from engram.hotkeys import Keypair
from engram.roles import xeris
from engram.roles.shared import Shared
from engram.xeris.chain_views import READS_AT_ONCE
from engram.xeris.receiver import XerisReceiver

NETUID, BLOCK = 450, 1_000


class Hangs:
    """An endpoint of the chain that answers nothing; counts who waits for it."""

    name = "hangs"
    waiting = 0

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        self.waiting += 1
        await trio.sleep_forever()
        raise AssertionError


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Hangs:
    endpoint = Hangs()
    monkeypatch.setattr(xeris, "open_endpoints", lambda chain, http, clock: [endpoint])
    return endpoint


@pytest.fixture
def receiver(endpoint: Hangs, monkeypatch: pytest.MonkeyPatch) -> XerisReceiver:
    made: list[XerisReceiver] = []

    def make(*arguments: object, **named: object) -> XerisReceiver:
        made.append(XerisReceiver(*arguments, **named))  # type: ignore[arg-type]  # of the role
        return made[-1]

    monkeypatch.setattr(xeris, "XerisReceiver", make)
    shared = MagicMock(spec=Shared)
    for name in ("ledger", "clock", "ids", "metrics", "rng", "http", "folder"):
        setattr(shared, name, MagicMock())
    shared.settings = Settings()
    monkeypatch.setattr(xeris, "agents_of", lambda p: None)
    xeris.tree(shared, Keypair.from_seed(bytes([9]) * 32))
    return made[0]


async def test_a_flood_of_one_sort_of_readings_keeps_no_other_sort_from_the_chain(
    receiver: XerisReceiver, endpoint: Hangs
) -> None:
    for_holders, for_others = receiver._read_permits, receiver._read_permits_for_others
    root, head = receiver._read_root, receiver._read_head
    assert for_holders is not None
    assert for_others is not None
    assert root is not None
    assert head is not None
    sorts: list[Callable[[], Awaitable[object]]] = [
        lambda: for_holders(NETUID, BLOCK),
        lambda: for_others(NETUID, BLOCK),
        lambda: root(NETUID, bytes(32), BLOCK),
        lambda: head(),
    ]
    async with trio.open_nursery() as nursery:

        async def flood(read: Callable[[], Awaitable[object]]) -> None:
            await read()

        for number, read in enumerate(sorts, 1):
            for _ in range(READS_AT_ONCE):
                nursery.start_soon(flood, read)
            await trio.testing.wait_all_tasks_blocked()
            assert endpoint.waiting == number * READS_AT_ONCE, "all of this sort reach the chain"
        assert await for_holders(NETUID, BLOCK) is None, "there is no more room for this one"
        assert endpoint.waiting == len(sorts) * READS_AT_ONCE
        nursery.cancel_scope.cancel()
