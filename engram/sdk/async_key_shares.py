"""A namespace's key split over several nodes, for trio. All nodes are called at once; late calls are cancelled."""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import trio

from engram.sdk.errors import SdkError
from engram.sdk.shamir import Share
from engram.sdk.share_rounds import Collecting, Outcome, ShareHolder, SharePlacing
from engram.sdk.share_rules import NodeFault

T = TypeVar("T")
_LOOKING_SHARE = 1 / 3
"""The share of the time in which nodes report what they keep, before anything is placed."""


class Keeper(ShareHolder, Protocol):
    """The interface that key shares need of a client; AsyncNodeClient provides it."""

    async def put_share(self, share: Share, threshold: int, total: int, *, replace: bool = False) -> None:
        """Store a share with the node."""
        ...

    async def get_share(self) -> tuple[Share, int] | None:
        """Return the stored share and its threshold."""
        ...


async def async_distribute_key_shares(
    secret: bytes, nodes: Sequence[Keeper], threshold: int, *, within_s: float = 30.0, replace: bool = False
) -> bytes:
    """Store one share with each node, all at once, and return the secret's SHA-256.

    As `distribute_key_shares`. Raises SharesNotPlaced, ValueError.
    """
    placing = SharePlacing(secret, nodes, threshold, replace=replace)
    give_up_at = trio.current_time() + within_s
    everybody = dict(enumerate(nodes, 1))

    async def look(number: int, outcome: Outcome[tuple[Share, int] | None]) -> bool:
        placing.keeps(number, outcome)
        return False

    await _at_once(everybody, lambda _, node: node.get_share(), look, within_s * _LOOKING_SHARE)
    for _ in placing.settling(random.SystemRandom()):
        await trio.lowlevel.checkpoint()

    async def place(number: int, node: Keeper) -> tuple[Share, int] | None:
        await node.put_share(placing.shares[number - 1], threshold, len(nodes), replace=replace)
        return await node.get_share()

    async def take(number: int, outcome: Outcome[tuple[Share, int] | None]) -> bool:
        placing.answered(number, outcome)
        return False

    left = {number: everybody[number] for number in placing.left}
    await _at_once(left, place, take, give_up_at - trio.current_time())
    return placing.sha256(within_s)


async def async_collect_key_shares(
    nodes: Sequence[Keeper],
    sha256: bytes | None,
    *,
    within_s: float = 30.0,
    on_fault: Callable[[NodeFault], None] = lambda fault: None,
) -> bytes:
    """Return the secret as soon as enough nodes have returned correct shares; all nodes are called at once.

    As `collect_key_shares`. Raises SharesMissing, ValueError.
    """
    collecting = Collecting(nodes, sha256, random.SystemRandom())

    async def take(number: int, outcome: Outcome[tuple[Share, int] | None]) -> bool:
        for _ in collecting.answered(number, outcome):
            await trio.lowlevel.checkpoint()
        return collecting.found

    await _at_once(dict(enumerate(nodes, 1)), lambda _, node: node.get_share(), take, within_s)
    for _ in collecting.ended():
        await trio.lowlevel.checkpoint()
    secret = collecting.secret(within_s)
    for fault in collecting.faults():
        on_fault(fault)
    return secret


async def _at_once(
    nodes: Mapping[int, Keeper],
    ask: Callable[[int, Keeper], Awaitable[T]],
    take: Callable[[int, Outcome[T]], Awaitable[bool]],
    within_s: float,
) -> None:
    """Call all nodes and pass on each answer, until all have answered, `take` has enough or time is up."""
    send, receive = trio.open_memory_channel[tuple[int, Outcome[T]]](len(nodes))

    async def run(number: int, node: Keeper) -> None:
        try:
            outcome: Outcome[T] = await ask(number, node)
        except SdkError as error:
            outcome = error
        await send.send((number, outcome))

    async with trio.open_nursery() as nursery:
        for number, node in nodes.items():
            nursery.start_soon(run, number, node)
        with trio.move_on_after(within_s):
            for _ in nodes:
                if await take(*await receive.receive()):
                    break
        nursery.cancel_scope.cancel()
