"""What other endpoints say about a finalized head that one of them reported."""

import enum

import msgspec

from engram.chain.errors import AnswerMalformed, CallRefused, EndpointBusy, EndpointUnreachable
from engram.chain.model import BlockReport, FinalizedBlock, Fork
from engram.chain.read.node import ChainEndpoint, RpcCall
from engram.chain.read.queries import hex_of, octets_of, read_finalized, read_hash_at

LIVE_S = 180.0
"""A finalized block is some 36 s old on a healthy chain."""


class Opinion(enum.Enum):
    """What another endpoint has at the block number of a head."""

    SAME = "same"
    OTHER = "other"
    NOT_YET = "not_yet"
    """No finalized block there yet, though its newest one is recent."""
    NONE = "none"
    """No finalized block there yet and no recent one either; or no answer."""


def opinion_of(head: FinalizedBlock, its_hash: bytes | None, its_finalized: int) -> Opinion:
    """Return the opinion of an endpoint that has `its_hash` at the number of `head` and has finalized `its_finalized`.

    Blocks beyond the finalized one may still be replaced, so they contradict nothing.
    """
    if its_hash == head.hash:
        return Opinion.SAME
    return Opinion.NONE if its_hash is None or its_finalized < head.number else Opinion.OTHER


def is_live(made_ms: int | None, now_s: float) -> bool:
    """Return whether an endpoint follows the chain; `made_ms` is its finalized block's Unix time, None if unknown."""
    return made_ms is not None and now_s - made_ms / 1000 <= LIVE_S


HEADER_BYTES = 16_384
"""Largest JSON of a header that is kept as evidence; a header has about 1,000."""


_MADE_AT = "0xf0c365c3cf59d671eb72da0e7a4113c49f1f0515f462cdcf84e0f1d6045dfcbb"
"""Key of Timestamp.Now: twox128 of both names, in every Substrate chain."""


class Stance(msgspec.Struct, frozen=True):
    """What an endpoint says about a head that another one, the source, reported."""

    opinion: Opinion
    behind: FinalizedBlock | None = None
    """Its own finalized block when that is lower than the head, to compare with the source's (`compared`)."""
    contested: tuple[FinalizedBlock, FinalizedBlock] | None = None
    """For OTHER: the source's block and its own, both finalized and of one number."""


async def stance(node: ChainEndpoint, head: FinalizedBlock, now_s: float) -> Stance:
    """Return the stance of this endpoint on a head of its source; `now_s` is Unix time. Raises as `ask`."""
    if await read_hash_at(node, head.number) == head.hash:
        return Stance(Opinion.SAME)
    its = await read_finalized(node)
    if its.number < head.number:
        return Stance(Opinion.NOT_YET if is_live(await _made_ms(node, its.hash), now_s) else Opinion.NONE, behind=its)
    # Read again: the first one may have been a block that was not to become the finalized one.
    found = await read_hash_at(node, head.number)
    judged = opinion_of(head, found, its.number)
    if judged is Opinion.OTHER and found is not None:
        return Stance(judged, contested=(head, FinalizedBlock(head.number, found)))
    return Stance(judged)


async def compared(its: Stance, source: ChainEndpoint) -> Stance:
    """Return the stance of an endpoint that has finalized less, after comparing its finalized block with the source's.

    Otherwise a stalled endpoint on another fork would contradict nothing. Raises as `ask` of the source.
    """
    if its.behind is None:
        return its
    there = await read_hash_at(source, its.behind.number)
    if there in (None, its.behind.hash):
        return its
    assert there is not None
    return Stance(Opinion.OTHER, contested=(FinalizedBlock(its.behind.number, there), its.behind))


async def read_fork(
    one: ChainEndpoint, other: ChainEndpoint, contested: tuple[FinalizedBlock, FinalizedBlock], now_s: float
) -> Fork:
    """Return both headers of the contested block as evidence. A header that cannot be had is None."""
    ours, its = contested
    return Fork(now_s, await _claim(one, ours), await _claim(other, its))


async def _claim(node: ChainEndpoint, head: FinalizedBlock) -> BlockReport:
    at = hex_of(head.hash)
    try:
        (header,) = await node.ask([RpcCall("chain_getHeader", (at,))])
    except (EndpointBusy, EndpointUnreachable, AnswerMalformed):
        header = None
    if isinstance(header, CallRefused) or len(msgspec.json.encode(header)) > HEADER_BYTES:
        header = None
    return BlockReport(node.name, head.number, at, header)


async def _made_ms(node: ChainEndpoint, block_hash: bytes) -> int | None:
    (answer,) = await node.ask([RpcCall("state_getStorage", (_MADE_AT, hex_of(block_hash)))])
    if answer is None or isinstance(answer, CallRefused):
        return None
    return int.from_bytes(octets_of(node, answer)[:8], "little")
