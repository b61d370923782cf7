"""What other endpoints say of a finalized head that one of them named."""

import enum

import msgspec

from engram.chain.errors import AnswerMalformed, CallRefused, EndpointBusy, EndpointUnreachable
from engram.chain.model import Claim, Fork, Head
from engram.chain.read.node import Node, RpcCall
from engram.chain.read.queries import hex_of, octets_of, read_finalized, read_hash_at

LIVE_S = 180.0
"""A finalized block is some 36 s old on a healthy chain."""


class Opinion(enum.Enum):
    """What another endpoint has at the number of a head."""

    SAME = "same"
    OTHER = "other"
    NOT_YET = "not_yet"
    """No finalized block yet, though its newest one is of now."""
    NONE = "none"
    """No finalized block yet, on a chain that may stand still; or no answer."""


def opinion_of(head: Head, its_hash: bytes | None, its_finalized: int) -> Opinion:
    """What an endpoint with `its_hash` at the number of `head`, and finalized up to `its_finalized`, says of it.

    Blocks beyond the finalized one may still be replaced and contradict nothing.
    """
    if its_hash == head.hash:
        return Opinion.SAME
    return Opinion.NONE if its_hash is None or its_finalized < head.number else Opinion.OTHER


def is_live(made_ms: int | None, now_s: float) -> bool:
    """Whether an endpoint whose finalized block was made then (unix ms; None: it does not say) follows the chain."""
    return made_ms is not None and now_s - made_ms / 1000 <= LIVE_S


HEADER_BYTES = 16_384
"""Of JSON; a header has some 1,000. Larger ones are no evidence worth keeping."""


_MADE_AT = "0xf0c365c3cf59d671eb72da0e7a4113c49f1f0515f462cdcf84e0f1d6045dfcbb"
"""Key of Timestamp.Now: twox128 of both names, in every Substrate chain."""


class Stance(msgspec.Struct, frozen=True):
    """What an endpoint says of a head that another one, its source, named."""

    opinion: Opinion
    behind: Head | None = None
    """Its own finalized block, where that is lower than the head: to be held against the source (`compared`)."""
    contested: tuple[Head, Head] | None = None
    """Where it is OTHER: the source's block and its own, both finalized and of one number."""


async def stance(node: Node, head: Head, now_s: float) -> Stance:
    """What this node has at the number of a head that its source named; `now_s` is unix time. Raises as `ask`."""
    if await read_hash_at(node, head.number) == head.hash:
        return Stance(Opinion.SAME)
    its = await read_finalized(node)
    if its.number < head.number:
        return Stance(Opinion.NOT_YET if is_live(await _made_ms(node, its.hash), now_s) else Opinion.NONE, behind=its)
    # Read again: the first one may have been a block that was not to become the finalized one.
    found = await read_hash_at(node, head.number)
    judged = opinion_of(head, found, its.number)
    if judged is Opinion.OTHER and found is not None:
        return Stance(judged, contested=(head, Head(head.number, found)))
    return Stance(judged)


async def compared(its: Stance, source: Node) -> Stance:
    """The stance of an endpoint that has finalized less, once its finalized block is held against the source's.

    An endpoint on another fork that stands still would otherwise contradict nothing. Raises as `ask` of the source.
    """
    if its.behind is None:
        return its
    there = await read_hash_at(source, its.behind.number)
    if there in (None, its.behind.hash):
        return its
    assert there is not None
    return Stance(Opinion.OTHER, contested=(Head(its.behind.number, there), its.behind))


async def read_fork(one: Node, other: Node, contested: tuple[Head, Head], now_s: float) -> Fork:
    """Both headers of a number at which two endpoints differ, as evidence. Never raises for the endpoints' sake."""
    ours, its = contested
    return Fork(now_s, await _claim(one, ours), await _claim(other, its))


async def _claim(node: Node, head: Head) -> Claim:
    at = hex_of(head.hash)
    try:
        (header,) = await node.ask([RpcCall("chain_getHeader", (at,))])
    except (EndpointBusy, EndpointUnreachable, AnswerMalformed):
        header = None
    if isinstance(header, CallRefused) or len(msgspec.json.encode(header)) > HEADER_BYTES:
        header = None
    return Claim(node.name, head.number, at, header)


async def _made_ms(node: Node, block_hash: bytes) -> int | None:
    (answer,) = await node.ask([RpcCall("state_getStorage", (_MADE_AT, hex_of(block_hash)))])
    if answer is None or isinstance(answer, CallRefused):
        return None
    return int.from_bytes(octets_of(node, answer)[:8], "little")
