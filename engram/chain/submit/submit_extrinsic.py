"""Sends one signed extrinsic and determines its outcome on the finalized chain.

Theory of operation. The extrinsic is signed for the 64 blocks after a finalized one (its era) with the account's next
nonce, and sent once: it is never sent again, because a lost answer may belong to an extrinsic that was accepted.
From then on only finalized blocks count:

| seen                                             | outcome                                  |
|--------------------------------------------------|------------------------------------------|
| the pool's error object                          | SubmitRefused (nothing was written)      |
| nothing left this machine, or refused for load   | EndpointUnreachable, EndpointBusy        |
| any other error, HTTP 503, or no answer          | decided by the blocks, as below          |
| in a finalized block, System.ExtrinsicSuccess    | Included                                 |
| in a finalized block, System.ExtrinsicFailed     | RefusedInBlock, by the error's name      |
| the era has passed on the finalized chain        | NeverIncluded                            |
| none of these in `patience_s`                    | OutcomeUnknown                           |

Where several endpoints are given, none is trusted alone: another one that has finalized as much must have the same
block and events, and the era must be searched at two of them. Until then the outcome is unknown.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import trio

from engram.chain.errors import (
    TRANSIENT,
    AnswerMalformed,
    CallNotComposable,
    CallRefused,
    ChainError,
    EndpointBusy,
    EndpointUnreachable,
    NeverIncluded,
    OutcomeUnknown,
    RefusedInBlock,
    RuntimeApiMissing,
    SubmitRefused,
)
from engram.chain.model import FinalizedBlock
from engram.chain.read.node import ChainEndpoint, RpcCall
from engram.chain.read.queries import answered, convert, hex_of, read_finalized, read_hash_at
from engram.chain.read.quorum_node import QuorumEndpoint
from engram.chain.read.runtime import Era, RuntimeCall, RuntimeEvent, SignedExtrinsic
from engram.chain.read.view import View, read_storage, view_at
from engram.chain.submit.compose import Composer, CoreComposer
from engram.chain.submit.pool_refusals import pool_refusal
from engram.hotkeys import Keypair

POLL_S: Final = 2.0
PATIENCE_S: Final = 180.0
"""Finality takes some 36 s on a healthy chain."""
NONCE_TRIES: Final = 3
"""Attempts with a new nonce when the pool says that the nonce is taken; nothing was written by then."""
_NONCE_TAKEN: Final = frozenset({"stale", "priorityTooLow"})
_SEEN_BEFORE: Final = frozenset({"alreadyImported", "banned"})
"""The pool knows the extrinsic already: something on the way sent it twice, and pools ban for half an hour what a block
has included."""
_NOT_TAKEN: Final = frozenset({*range(1_000, 1_100), -32_700, -32_600, -32_601, -32_602})
"""Codes of refused author_ calls and of invalid requests; after any other code the extrinsic may have been accepted."""
_UNTOLD: Final = (*TRANSIENT, CallNotComposable, RuntimeApiMissing)
"""Errors that leave the outcome open: the next endpoint is asked."""


class InclusionWait(msgspec.Struct, frozen=True):
    """How often the finalized chain is polled, and for how long."""

    poll_s: float = POLL_S
    patience_s: float = PATIENCE_S


class Included(msgspec.Struct, frozen=True):
    """An extrinsic in a finalized block, with System.ExtrinsicSuccess."""

    block: FinalizedBlock
    extrinsic_hash: bytes
    nonce: int
    events: tuple[RuntimeEvent, ...]
    """Its own events."""


BeforeSending = Callable[[bytes, int], None]
"""Called with the extrinsic's hash and the last block that may include it, just before it is sent."""


CheckGenesis = Callable[[bytes], None]
"""Called with the genesis hash before anything is signed for it; refuses by raising."""


async def submit(
    view: View,
    nodes: Sequence[ChainEndpoint],
    call: RuntimeCall,
    keypair: Keypair,
    waiting: InclusionWait = InclusionWait(),  # noqa: B008 - frozen
    composer: Composer | None = None,
    sending: BeforeSending = lambda digest, last_block: None,
    judging: CheckGenesis = lambda genesis: None,
) -> Included:
    """Sign `call`, send it to the view's endpoint, and wait for a finalized block with it, asking `nodes` in turn.

    Raises what `judging` does, CallNotComposable, SubmitRefused, RefusedInBlock, NeverIncluded, OutcomeUnknown, or how
    the endpoint failed before anything was sent (EndpointUnreachable, EndpointBusy, AnswerMalformed, CallRefused; then
    the error's `nothing_was_sent` is True).
    """
    composing = composer or CoreComposer(view.types)
    node, era = view.node, Era(view.head.number, view.head.hash)
    with _before_sending():
        genesis = await read_hash_at(node, 0)
        if genesis is None:
            raise AnswerMalformed(f"{node.name}: has no block 0")
        judging(genesis)
    refused: SubmitRefused | None = None
    taken: set[int] = set()
    for _ in range(NONCE_TRIES):
        with _before_sending():
            nonce = await next_nonce(node, keypair)
            if nonce in taken:
                break
            taken.add(nonce)
            signed = await composing.compose(call, keypair, nonce, era, genesis)
        sending(signed.hash, era.last_block)
        try:
            await _send(node, signed)
        except SubmitRefused as error:
            if error.reason not in _NONCE_TAKEN:
                raise
            refused = error
            continue
        return await _watch(view, [node, *(other for other in nodes if other is not node)], signed, era, nonce, waiting)
    raise refused or SubmitRefused("stale", "")


@contextlib.contextmanager
def _before_sending() -> Iterator[None]:
    """Mark what goes wrong meanwhile: what an earlier attempt sent has been refused by the pool."""
    try:
        yield
    except ChainError as error:
        error.nothing_was_sent = True
        raise


async def next_nonce(node: ChainEndpoint, keypair: Keypair) -> int:
    """Return the account's next nonce, counting what waits in the endpoint's pool."""
    (answer,) = await node.ask([RpcCall("system_accountNextIndex", (keypair.ss58,))])
    nonce = convert(node, answered(node, answer), int)
    if not 0 <= nonce < 2**32:
        raise AnswerMalformed(f"{node.name}: nonce {nonce}")
    return nonce


async def _send(node: ChainEndpoint, signed: SignedExtrinsic) -> None:
    """Send; return when it was accepted or may have been. Raises SubmitRefused when it was not."""
    try:
        (answer,) = await node.ask([RpcCall("author_submitExtrinsic", (hex_of(signed.octets),))])
    except (EndpointBusy, EndpointUnreachable) as error:
        if not error.may_have_arrived:
            raise
        return
    except AnswerMalformed:
        return
    if isinstance(answer, CallRefused) and answer.code in _NOT_TAKEN:
        refusal = pool_refusal(answer)
        if refusal.reason not in _SEEN_BEFORE:
            raise refusal


async def _watch(
    view: View, nodes: Sequence[ChainEndpoint], signed: SignedExtrinsic, era: Era, nonce: int, waiting: InclusionWait
) -> Included:
    seen, why = view.head.number, "no finalized block since"
    place = 0
    with trio.move_on_after(waiting.patience_s):
        while True:
            node = nodes[place % len(nodes)]
            try:
                head = (await read_finalized(node)).number
                while seen < min(head, era.last_block):
                    found = await _look(node, nodes, view, seen + 1, signed)
                    if found is not None:
                        return _judged(*found, signed, nonce)
                    seen += 1
            except _UNTOLD as error:
                why = str(error)
                place += 1
            else:
                why = f"looked up to block {seen}"
                if seen >= era.last_block:
                    if await _absent_at_two(nodes, view, signed, era):
                        raise NeverIncluded(
                            f"0x{signed.hash.hex()} is in none of the blocks {era.birth + 1} to {era.last_block}"
                        )
                    seen, why = era.birth, "no second endpoint confirms that its blocks have passed without it"
                    place += 1
            await trio.sleep(waiting.poll_s)
    raise OutcomeUnknown(signed.hash, era.last_block, why)


async def _absent_at_two(nodes: Sequence[ChainEndpoint], view: View, signed: SignedExtrinsic, era: Era) -> bool:
    """Return whether two endpoints (or the only one) have finalized the whole era without the extrinsic."""
    if len(nodes) == 1:
        return True
    clean = 0
    for node in nodes:
        try:
            if (await read_finalized(node)).number < era.last_block:
                continue
            for number in range(era.birth + 1, era.last_block + 1):
                if await _look(node, nodes, view, number, signed) is not None:
                    return False
        except _UNTOLD:
            continue
        clean += 1
        if clean == 2:
            return True
    return False


class _Block(msgspec.Struct):
    extrinsics: list[str]


class _SignedBlock(msgspec.Struct):
    block: _Block


async def _look(
    node: ChainEndpoint, nodes: Sequence[ChainEndpoint], view: View, number: int, signed: SignedExtrinsic
) -> tuple[FinalizedBlock, View, int, bytes | None] | None:
    """Return the extrinsic's position in this finalized block and the block's events; None when it is not in it.

    Raises AnswersDiffer when another of `nodes` has another block or other events there; HeadAwaited while none of
    them has that block.
    """
    at = await read_hash_at(node, number)
    if at is None:
        raise AnswerMalformed(f"{node.name}: has no block {number}")
    (answer,) = await node.ask([RpcCall("chain_getBlock", (hex_of(at),))])
    extrinsics = convert(node, answered(node, answer), _SignedBlock).block.extrinsics
    ours = hex_of(signed.octets)
    place = next((place for place, one in enumerate(extrinsics) if one.lower() == ours), None)
    if place is None:
        return None
    others = [other for other in nodes if other is not node]
    block, agreeing = FinalizedBlock(number, at), QuorumEndpoint(node, others)
    await agreeing.hold(block)
    there = await view_at(node, at, view, others)
    key = there.types.storage_key("System", "Events")
    return block, there, place, await read_storage(agreeing, key, at)


def _judged(
    block: FinalizedBlock, there: View, place: int, octets: bytes | None, signed: SignedExtrinsic, nonce: int
) -> Included:
    events = tuple(event for event in there.types.events(octets) if event.extrinsic == place)
    ends = [event for event in events if event.pallet == "System" and event.name.startswith("Extrinsic")]
    match ends:
        case [RuntimeEvent(name="ExtrinsicSuccess")]:
            return Included(block, signed.hash, nonce, events)
        case [RuntimeEvent(name="ExtrinsicFailed") as failure]:
            name, explanation = there.types.refusal(failure)
            raise RefusedInBlock(name, explanation, block.number, signed.hash)
        case _:
            raise OutcomeUnknown(
                signed.hash, block.number, f"in block {block.number}, whose events do not say how it ended"
            )
