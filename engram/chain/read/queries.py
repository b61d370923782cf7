"""Reads the chain through one endpoint: a finalized head, the runtime's types, a subnet, all at one block hash."""

from typing import TypeVar

import msgspec

from engram import wire
from engram.chain.errors import AnswerMalformed, CallRefused, RuntimeApiMissing
from engram.chain.model import FinalizedBlock
from engram.chain.read.codec import METADATA_CALL, METADATA_PARAMS, METAGRAPH_CALL, Codec
from engram.chain.read.node import ChainEndpoint, Json, RpcCall

T = TypeVar("T")
HASH_BYTES = 32


class HeadReading(msgspec.Struct, frozen=True):
    """A finalized head as an endpoint reports it."""

    head: FinalizedBlock
    spec_version: int
    transaction_version: int
    chain_name: str
    hash_at_ours: bytes | None
    """The endpoint's block at the number requested; None when none was requested, or it has none."""


class _Header(msgspec.Struct):
    number: str


class _RuntimeVersion(msgspec.Struct):
    specVersion: int  # noqa: N815 - the node's own name
    transactionVersion: int  # noqa: N815 - the node's own name


async def finalized_hash(node: ChainEndpoint) -> bytes:
    """Return the hash of the newest finalized block."""
    (answer,) = await node.ask([RpcCall("chain_getFinalizedHead")])
    return hash_of(node, answered(node, answer))


async def read_head(node: ChainEndpoint, block_hash: bytes, ours: int | None) -> HeadReading:
    """Return the block of this hash, the runtime at it, and the node's hash at block number `ours`."""
    calls = _head_calls(block_hash)
    if ours is not None:
        calls.append(RpcCall("chain_getBlockHash", (ours,)))
    head, version, name, *at_ours = await node.ask(calls)
    reading = _head_reading(node, block_hash, head, version, name)
    if not at_ours or answered(node, at_ours[0]) is None:
        return reading
    return msgspec.structs.replace(reading, hash_at_ours=hash_of(node, at_ours[0]))


async def read_head_and_metadata(node: ChainEndpoint, block_hash: bytes) -> tuple[HeadReading, bytes]:
    """Return the block of this hash and the runtime's metadata at it, in one request. Raises RuntimeApiMissing."""
    metadata = RpcCall("state_call", (METADATA_CALL, METADATA_PARAMS, hex_of(block_hash)))
    head, version, name, answer = await node.ask([*_head_calls(block_hash), metadata])
    reading = _head_reading(node, block_hash, head, version, name)
    if isinstance(answer, CallRefused):
        raise RuntimeApiMissing(f"{node.name}: runtime {reading.spec_version}: {answer}")
    return reading, octets_of(node, answer)


async def read_hash_at(node: ChainEndpoint, number: int) -> bytes | None:
    """Return the node's block of this number, finalized or not; None when it has none yet."""
    (answer,) = await node.ask([RpcCall("chain_getBlockHash", (number,))])
    found = answered(node, answer)
    return None if found is None else hash_of(node, found)


async def read_best(node: ChainEndpoint) -> int:
    """Return the number of the node's best block, which may still be reorganized away."""
    (answer,) = await node.ask([RpcCall("chain_getHeader", ())])
    return _number(node, convert(node, answered(node, answer), _Header).number)


async def read_finalized(node: ChainEndpoint) -> FinalizedBlock:
    """Return the newest finalized block."""
    at = await finalized_hash(node)
    (answer,) = await node.ask([RpcCall("chain_getHeader", (hex_of(at),))])
    return FinalizedBlock(_number(node, convert(node, answered(node, answer), _Header).number), at)


async def read_metadata(node: ChainEndpoint, reading: HeadReading) -> bytes:
    """Return the runtime's metadata at this head (0.5 MB, read once per version). Raises RuntimeApiMissing."""
    try:
        return await state_call(node, METADATA_CALL, METADATA_PARAMS, reading.head)
    except CallRefused as error:
        raise RuntimeApiMissing(f"{node.name}: runtime {reading.spec_version}: {error}") from error


async def read_metagraph_bytes(node: ChainEndpoint, codec: Codec, netuid: int, head: FinalizedBlock) -> bytes:
    """Return the SCALE bytes of a subnet's metagraph at this block."""
    return await state_call(node, METAGRAPH_CALL, codec.metagraph_params(netuid), head)


def _head_calls(block_hash: bytes) -> list[RpcCall]:
    at = hex_of(block_hash)
    return [RpcCall("chain_getHeader", (at,)), RpcCall("state_getRuntimeVersion", (at,)), RpcCall("system_chain")]


def _head_reading(node: ChainEndpoint, block_hash: bytes, head: Json, version: Json, name: Json) -> HeadReading:
    runtime = convert(node, answered(node, version), _RuntimeVersion)
    header = convert(node, answered(node, head), _Header)
    for number in (runtime.specVersion, runtime.transactionVersion):
        if not 0 <= number < 2**32:
            raise AnswerMalformed(f"{node.name}: a runtime of version {number}")
    return HeadReading(
        head=FinalizedBlock(_number(node, header.number), block_hash),
        spec_version=runtime.specVersion,
        transaction_version=runtime.transactionVersion,
        chain_name=convert(node, answered(node, name), str)[:100],
        hash_at_ours=None,
    )


def answered(node: ChainEndpoint, answer: Json) -> Json:
    """Return the answer of one call. Raises CallRefused, naming the node, when it was refused."""
    if isinstance(answer, CallRefused):
        raise CallRefused(answer.code, f"{node.name}: {answer.message}")
    return answer


def hex_of(octets: bytes) -> str:
    """`0x` and lower-case hex."""
    return "0x" + octets.hex()


async def state_call(node: ChainEndpoint, method: str, params: str, head: FinalizedBlock) -> bytes:
    """Return the SCALE bytes that a runtime call answers at this block."""
    (answer,) = await node.ask([RpcCall("state_call", (method, params, hex_of(head.hash)))])
    return octets_of(node, answered(node, answer))


def hash_of(node: ChainEndpoint, answer: Json) -> bytes:
    """Return a block hash. Raises AnswerMalformed."""
    octets = octets_of(node, answer)
    if len(octets) != HASH_BYTES:
        raise AnswerMalformed(f"{node.name}: a block hash of {len(octets)} bytes")
    return octets


def octets_of(node: ChainEndpoint, answer: Json) -> bytes:
    """Return the bytes of `0x…`. Raises AnswerMalformed."""
    if not isinstance(answer, str) or not answer.startswith("0x"):
        raise AnswerMalformed(f"{node.name}: expected bytes as a hex string")
    try:
        octets = bytes.fromhex(answer[2:])
    except ValueError as error:
        raise AnswerMalformed(f"{node.name}: broken hex: {error}") from error
    if len(answer) != 2 + 2 * len(octets):
        raise AnswerMalformed(f"{node.name}: blanks between hex digits")
    return octets


def _number(node: ChainEndpoint, text: str) -> int:
    try:
        number = int(text, 16)
    except ValueError as error:
        raise AnswerMalformed(f"{node.name}: block number {text[:20]!r}") from error
    if not 0 <= number < 2**32:
        raise AnswerMalformed(f"{node.name}: block number {text[:20]!r}")
    return number


def convert(node: ChainEndpoint, answer: Json, kind: type[T]) -> T:
    """Return the answer as this type. Raises AnswerMalformed, naming the node."""
    try:
        return wire.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise AnswerMalformed(f"{node.name}: {error}") from error
