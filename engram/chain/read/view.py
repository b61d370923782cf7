"""The chain at one finalized block, read through one endpoint and confirmed by a second where several are given."""

import re
from collections.abc import Sequence
from functools import partial
from typing import final

import msgspec
import trio

from engram.chain.errors import (
    AnswerMalformed,
    CallRefused,
    ChainError,
    EndpointBusy,
    EndpointUnreachable,
    HeadAwaited,
    RuntimeApiMissing,
)
from engram.chain.model import FinalizedBlock, Metagraph
from engram.chain.read.codec import Codec
from engram.chain.read.hedging import hedged
from engram.chain.read.node import ChainEndpoint, RpcCall
from engram.chain.read.queries import (
    HeadReading,
    answered,
    convert,
    finalized_hash,
    hex_of,
    octets_of,
    read_hash_at,
    read_head,
    read_head_and_metadata,
    read_metagraph_bytes,
)
from engram.chain.read.quorum_node import QuorumEndpoint
from engram.chain.read.runtime import RuntimeTypes, Value
from engram.chain.read.watched import preferred

_NO_HEAD = (EndpointBusy, EndpointUnreachable, AnswerMalformed, CallRefused)
NO_SUCH_BLOCK = 4003
"""The code by which Substrate nodes refuse what they do not have."""
KEYS_AT_ONCE = 1_000
"""Largest page of keys that Substrate nodes return."""
_HEX = re.compile(r"0x(?:[0-9a-f]{2})*")
KEYS_AT_MOST = 50_000
"""A larger map is refused: no subnet has that many entries."""


@final
class View:
    """One finalized block. Everything read through it is read at the same hash."""

    def __init__(
        self, node: ChainEndpoint, reading: HeadReading, metadata: bytes, others: Sequence[ChainEndpoint] = ()
    ) -> None:
        self.node = node
        """The endpoint that extrinsics are sent to."""
        self._others = others
        self._reader = QuorumEndpoint(node, others)
        self.reading = reading
        self.types = RuntimeTypes(metadata, reading.spec_version, reading.transaction_version)
        self.metadata = metadata

    @property
    def head(self) -> FinalizedBlock:
        """The block."""
        return self.reading.head

    async def earlier(self, number: int) -> "View":
        """Return an earlier block of the same chain, confirmed in the same way.

        Raises CallRefused where the endpoint has no such block, or keeps its state no more.
        """
        block_hash = await read_hash_at(self.node, number)
        if block_hash is None:
            raise CallRefused(NO_SUCH_BLOCK, f"{self.node.name}: there is no block {number}")
        view = await view_at(self.node, block_hash, self, self._others)
        if view.head.number != number:
            raise AnswerMalformed(f"{self.node.name}: block {view.head.number} in the place of block {number}")
        await QuorumEndpoint(self.node, self._others).hold(view.head)
        return view

    async def storage(self, pallet: str, item: str, *parameters: Value) -> Value:
        """Return one storage item, decoded; its default when it was never written. Raises CallNotComposable."""
        key = self.types.storage_key(pallet, item, *parameters)
        return self.types.storage_value(pallet, item, await read_storage(self._reader, key, self.head.hash))

    async def many(self, items: Sequence[tuple[str, str, tuple[Value, ...]]]) -> list[Value]:
        """Several items in one request, in their order."""
        at = hex_of(self.head.hash)
        keys = [self.types.storage_key(pallet, item, *parameters) for pallet, item, parameters in items]
        answers = await self._reader.ask([RpcCall("state_getStorage", (hex_of(key), at)) for key in keys])
        return [
            self.types.storage_value(pallet, item, _optional(self.node, answered(self.node, answer)))
            for (pallet, item, _), answer in zip(items, answers, strict=True)
        ]

    async def entries(self, pallet: str, item: str, *parameters: Value) -> list[tuple[str, str]]:
        """Key and value, in hex, of every entry of a map under these parameters. Raises AnswerMalformed."""
        prefix, at = hex_of(self.types.storage_key(pallet, item, *parameters)), hex_of(self.head.hash)
        keys: list[str] = []
        while True:
            after = keys[-1] if keys else None
            (answer,) = await self._reader.ask([RpcCall("state_getKeysPaged", (prefix, KEYS_AT_ONCE, after, at))])
            page = convert(self.node, answered(self.node, answer), list[str])
            rising = sorted({*page}) == page and (after is None or not page or page[0] > after)
            if not rising or any(not key.startswith(prefix) or _HEX.fullmatch(key) is None for key in page):
                raise AnswerMalformed(f"{self.node.name}: keys of {pallet}.{item} that were not requested")
            keys += page
            if len(page) < KEYS_AT_ONCE:
                break
            if len(keys) > KEYS_AT_MOST:
                raise AnswerMalformed(f"{self.node.name}: more than {KEYS_AT_MOST} entries in {pallet}.{item}")
        found: list[tuple[str, str]] = []
        for first in range(0, len(keys), KEYS_AT_ONCE):
            batch = keys[first : first + KEYS_AT_ONCE]
            (answer,) = await self._reader.ask([RpcCall("state_queryStorageAt", (batch, at))])
            found += _changes(self.node, answered(self.node, answer), batch)
            await trio.lowlevel.checkpoint()
        return found

    async def metagraph(self, netuid: int, now_s: float) -> Metagraph:
        """Return the subnet at this block. Raises SubnetUnknown, RuntimeApiMissing, AnswerMalformed."""
        codec = Codec(self.metadata, self.reading.spec_version, self.reading.transaction_version)
        scale = await read_metagraph_bytes(self._reader, codec, netuid, self.head)
        fields = codec.decode_fields(scale)
        return codec.metagraph(fields, netuid, self.head, read_at_s=now_s, endpoint=self.node.name, witness=None)


async def open_view(nodes: Sequence[ChainEndpoint]) -> View:
    """Return the newest finalized block of the first endpoint that answers, to be read with confirmation by the others.

    An endpoint that is ahead of all others is skipped: what it alone knows cannot be confirmed. A slow one is asked
    after those that answered.

    Raises the last endpoint's ChainError, with what was wrong with the others as its notes, or AnswersDiffer.
    """
    failures: list[ChainError] = [EndpointUnreachable("no endpoint to ask", may_have_arrived=False)]
    for node, known in await _answering(nodes, failures):
        try:
            others = [other for other in nodes if other is not node]
            agreeing = QuorumEndpoint(node, others)
            block_hash = await finalized_hash(node) if known is None else known
            reading, metadata = await read_head_and_metadata(agreeing, block_hash)
            await agreeing.hold(reading.head)
            return View(node, reading, metadata, others)
        except (*_NO_HEAD, RuntimeApiMissing, HeadAwaited) as error:
            failures.append(error)
    for earlier in failures[1:-1]:
        failures[-1].add_note(str(earlier))
    raise failures[-1]


async def _answering(
    nodes: Sequence[ChainEndpoint], failures: list[ChainError]
) -> list[tuple[ChainEndpoint, bytes | None]]:
    """Return the endpoints that can give a view, with their finalized heads, the first that answered in front.

    They are asked in turn without waiting for a slow one; `failures` collects why others are left out.
    """
    order = preferred(nodes)
    heads: dict[int, bytes | None] = dict.fromkeys(range(len(order)))

    async def ask(place: int) -> bool:
        try:
            heads[place] = await finalized_hash(order[place])
        except _NO_HEAD as error:
            del heads[place]
            failures.append(error)
            return False
        return True

    await hedged([partial(ask, place) for place in heads])
    return [(order[place], heads[place]) for place in sorted(heads, key=lambda place: heads[place] is None)]


async def view_at(
    node: ChainEndpoint, block_hash: bytes, known: View | None = None, others: Sequence[ChainEndpoint] = ()
) -> View:
    """Return the block of this hash, confirmed by `others`; `known` supplies the metadata if the runtime is the same.

    Raises AnswersDiffer.
    """
    if known is not None:
        reading = await read_head(node, block_hash, None)
        if known.reading.spec_version == reading.spec_version:
            return View(node, reading, known.metadata, others)
    return View(node, *await read_head_and_metadata(QuorumEndpoint(node, others), block_hash), others)


async def read_storage(node: ChainEndpoint, key: bytes, block_hash: bytes) -> bytes | None:
    """Return the octets of one storage item at a block, None when there are none."""
    (answer,) = await node.ask([RpcCall("state_getStorage", (hex_of(key), hex_of(block_hash)))])
    return _optional(node, answered(node, answer))


def _optional(node: ChainEndpoint, answer: object) -> bytes | None:
    return None if answer is None else octets_of(node, answer)


class _ChangeSet(msgspec.Struct):
    changes: list[tuple[str, str | None]]


def _changes(node: ChainEndpoint, answer: object, batch: Sequence[str]) -> list[tuple[str, str]]:
    sets = convert(node, answer, list[_ChangeSet])
    changes = [change for one in sets for change in one.changes]
    if {key for key, _ in changes} - set(batch) or len({key for key, _ in changes}) != len(changes):
        raise AnswerMalformed(f"{node.name}: storage that was not requested")
    return [(key, value) for key, value in changes if value is not None]
