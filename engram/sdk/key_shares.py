"""A namespace's key split over several nodes: any `threshold` of them restore it, fewer learn nothing about it.

The blocking form of async_key_shares.py, which it runs in a separate thread: late calls are cancelled there, and
nothing is left running. share_rules.py describes how lying nodes are detected.
"""

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar, final

import trio

from engram.sdk.async_key_shares import Keeper, async_collect_key_shares, async_distribute_key_shares
from engram.sdk.async_transport import AsyncTransport
from engram.sdk.node import NodeClient
from engram.sdk.shamir import Share
from engram.sdk.share_rules import NodeFault

T = TypeVar("T")


def distribute_key_shares(
    secret: bytes, nodes: Sequence[NodeClient], threshold: int, *, within_s: float = 30.0, replace: bool = False
) -> bytes:
    """Store one share with each node, all at once; return the secret's SHA-256, to be kept for `collect_key_shares`.

    Doing it again with the same secret, nodes and threshold completes it: shares that are there stay, and nodes that
    were down get theirs of the same split. Where nodes keep shares of another secret or split, nothing is placed beside
    them unless `replace` puts these in their place.

    The clients must be in one namespace of one key. Each node has given its share back once when this returns. Raises
    SharesNotPlaced when some have not within `within_s` (the others keep theirs), ValueError for an impossible
    threshold and for clients that are not in one namespace.
    """

    async def distribute(keepers: Sequence[Keeper]) -> bytes:
        return await async_distribute_key_shares(secret, keepers, threshold, within_s=within_s, replace=replace)

    return _run(nodes, distribute, within_s)


def collect_key_shares(
    nodes: Sequence[NodeClient],
    sha256: bytes | None,
    *,
    within_s: float = 30.0,
    on_fault: Callable[[NodeFault], None] = lambda fault: None,
) -> bytes:
    """Return the secret as soon as enough nodes have returned correct shares; all nodes are called at once.

    `sha256` is what distributing returned. Without it (None) all nodes are waited for, and more than the threshold must
    agree. `on_fault` is called with the nodes known to have failed or lied when the secret is found. Raises
    SharesMissing, ValueError for clients that are not in one namespace.
    """
    faults: list[NodeFault] = []

    async def collect(keepers: Sequence[Keeper]) -> bytes:
        return await async_collect_key_shares(keepers, sha256, within_s=within_s, on_fault=faults.append)

    secret = _run(nodes, collect, within_s)
    for fault in faults:
        on_fault(fault)
    return secret


@final
class _Keeper:
    """Calls a blocking client's node over a separate connection."""

    def __init__(self, node: NodeClient, timeout_s: float) -> None:
        self.url = node.url
        self.namespace = node.namespace
        self._calls = node.calls
        self._transport = AsyncTransport(node.url, timeout_s=timeout_s)

    async def put_share(self, share: Share, threshold: int, total: int, *, replace: bool = False) -> None:
        await self._transport.ask(self._calls.put_share(share, threshold, total, replace=replace))

    async def get_share(self) -> tuple[Share, int] | None:
        return await self._transport.ask(self._calls.get_share())

    async def close(self) -> None:
        await self._transport.close()


def _run(nodes: Sequence[NodeClient], work: Callable[[Sequence[Keeper]], Awaitable[T]], timeout_s: float) -> T:
    """Run `work` in a thread, since the caller's may already run a loop of trio or asyncio."""

    async def run() -> T:
        async with AsyncExitStack() as closing:
            keepers = [_Keeper(node, timeout_s) for node in nodes]
            for keeper in keepers:
                closing.push_async_callback(keeper.close)
            return await work(keepers)

    with ThreadPoolExecutor(1, "key-shares") as thread:
        return thread.submit(partial(trio.run, run)).result()
