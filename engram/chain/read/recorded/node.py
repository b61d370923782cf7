"""Answers JSON-RPC calls from a recording of a running subtensor runtime, as the node did that was recorded.

What differs from that node: it calls itself a recording, and its finalized head advances by one block each 12 s
of the clock, counted from the day of the recording, so that all processes that share a clock share a chain. Every
block holds the recorded state; only the block number in a metagraph moves along.
"""

import gzip
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import msgspec

from engram import wire
from engram.chain.errors import CallRefused
from engram.chain.read.codec import METADATA_CALL, METAGRAPH_CALL
from engram.chain.read.node import Json, RpcCall
from engram.clock import Clock

RECORDED_NETWORK = "bittensor (recorded)"
BLOCK_S = 12.0
EPOCH_S = 1_700_000_000.0
"""Unix time at which the head was the recorded block; before it, the head stands there."""
RECORDING = Path(__file__).with_name("recording.json.gz")
METHOD_NOT_FOUND = -32601
_WRITING = frozenset({"author_submitExtrinsic", "system_accountNextIndex"})
"""Calls that only a writer makes."""
INVALID_PARAMS = -32602
UNKNOWN_BLOCK = 4003
KEYS_AT_ONCE = 1_000


class MetagraphRecording(msgspec.Struct, frozen=True):
    """SCALE hex of a metagraph without its block number, which stands between the two parts."""

    before_block: str
    after_block: str


class Recording(msgspec.Struct, frozen=True):
    """The file: everything as the node answered it."""

    block: int
    hash: str
    genesis: str
    header: dict[str, Json]
    runtime_version: dict[str, Json]
    properties: dict[str, Json]
    metadata: str
    metagraphs: dict[str, MetagraphRecording]
    """By the encoded netuid (`0xc201` is 450)."""
    storage: dict[str, str]


def read_recording(path: Path = RECORDING) -> Recording:
    """Return the recording that ships with Engram; takes some 20 ms, once at start."""
    return wire.decode(gzip.decompress(path.read_bytes()), Recording)


@final
class RecordedEndpoint:
    """A node of the recorded chain; it never fails and never waits."""

    name = "recording"

    def __init__(self, clock: Clock, recording: Recording | None = None) -> None:
        self._clock = clock
        self._recording = recording or read_recording()
        self._keys = sorted(self._recording.storage)
        self._methods: dict[str, Callable[[tuple[Json, ...]], Json]] = {
            "chain_getBlock": self._get_block,
            "chain_getBlockHash": self._get_block_hash,
            "chain_getFinalizedHead": lambda params: self._hash(self.head),
            "chain_getHeader": self._get_header,
            "rpc_methods": lambda params: {"methods": sorted(self._methods)},
            "state_call": self._state_call,
            "state_getKeysPaged": self._get_keys_paged,
            "state_getRuntimeVersion": self._get_runtime_version,
            "state_getStorage": self._get_storage,
            "state_queryStorageAt": self._query_storage_at,
            "system_chain": lambda params: RECORDED_NETWORK,
            "system_health": lambda params: {"isSyncing": False, "peers": 0, "shouldHavePeers": False},
            "system_name": lambda params: "Engram recorded chain",
            "system_properties": lambda params: self._recording.properties,
            "system_version": lambda params: "recording-1",
        }

    @property
    def head(self) -> int:
        """Number of the finalized head now."""
        passed_s = max(0.0, self._clock.now() - EPOCH_S)
        return self._recording.block + int(passed_s // BLOCK_S)

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        return [self._answer(call) for call in calls]

    def _answer(self, call: RpcCall) -> Json:
        method = self._methods.get(call.method)
        if call.method in _WRITING:
            return CallRefused(METHOD_NOT_FOUND, "a recorded chain takes nothing, it can only be read")
        if method is None:
            return CallRefused(METHOD_NOT_FOUND, "Method not found")
        try:
            return method(call.params)
        except CallRefused as refusal:
            return refusal

    # blocks

    def _hash(self, number: int) -> str:
        """Return the recorded hash for the recorded block; any other hash ends in the number it belongs to."""
        if number == self._recording.block:
            return self._recording.hash
        tag = hashlib.blake2b(f"engram recorded chain {number}".encode(), digest_size=24).hexdigest()
        return f"0x{tag}{number:016x}"

    def _number(self, params: tuple[Json, ...], place: int) -> int | None:
        """Return the number of the block at `place` in the parameters, by default the head's; None if unknown."""
        at = params[place] if len(params) > place else None
        if at is None:
            return self.head
        if at == self._recording.hash:
            return self._recording.block
        if not isinstance(at, str) or len(at) != 66:
            raise CallRefused(INVALID_PARAMS, "Invalid params: a block hash is 32 bytes in hex")
        try:
            number = int(at[-16:], 16)
        except ValueError:
            raise CallRefused(INVALID_PARAMS, "Invalid params: a block hash is 32 bytes in hex") from None
        known = self._recording.block <= number <= self.head and self._hash(number) == at
        return number if known else None

    def _state(self, params: tuple[Json, ...], place: int) -> int:
        number = self._number(params, place)
        if number is None:
            at = params[place]
            message = f"Client error: UnknownBlock: Header was not found in the database: {at}"
            raise CallRefused(UNKNOWN_BLOCK, message)
        return number

    def _get_block_hash(self, params: tuple[Json, ...]) -> Json:
        number = params[0] if params else None
        if number is None:
            return self._hash(self.head)
        if not isinstance(number, int):
            raise CallRefused(INVALID_PARAMS, "Invalid params: a block number is an integer")
        if number == 0:
            return self._recording.genesis
        return self._hash(number) if self._recording.block <= number <= self.head else None

    def _get_header(self, params: tuple[Json, ...]) -> Json:
        number = self._number(params, 0)
        if number is None:
            return None
        parent: Json = self._recording.header["parentHash"]
        if number > self._recording.block:
            parent = self._hash(number - 1)
        return {**self._recording.header, "number": hex(number), "parentHash": parent}

    def _get_block(self, params: tuple[Json, ...]) -> Json:
        header = self._get_header(params)
        block: Json = {"extrinsics": [], "header": header}
        return None if header is None else {"block": block, "justifications": None}

    # state

    def _get_runtime_version(self, params: tuple[Json, ...]) -> Json:
        self._state(params, 0)
        return self._recording.runtime_version

    def _state_call(self, params: tuple[Json, ...]) -> Json:
        method, argument = _text(params, 0), _text(params, 1)
        number = self._state(params, 2)
        match method:
            case "Metadata_metadata_versions":
                return "0x040f000000"
            case _ if method == METADATA_CALL:
                return self._recording.metadata if argument == "0x0f000000" else "0x00"
            case _ if method == METAGRAPH_CALL:
                recorded = self._recording.metagraphs.get(argument)
                if recorded is None:
                    return "0x00"
                return f"0x{recorded.before_block}{compact(number).hex()}{recorded.after_block}"
            case _:
                raise CallRefused(
                    UNKNOWN_BLOCK, f"Client error: Execution failed: Exported method {method} is not found"
                )

    def _get_storage(self, params: tuple[Json, ...]) -> Json:
        key = _text(params, 0)
        self._state(params, 1)
        return self._recording.storage.get(key)

    def _get_keys_paged(self, params: tuple[Json, ...]) -> Json:
        prefix = _text(params, 0)
        count = params[1] if len(params) > 1 else None
        start = params[2] if len(params) > 2 else None
        self._state(params, 3)
        if not isinstance(count, int) or not 0 <= count <= KEYS_AT_ONCE:
            raise CallRefused(INVALID_PARAMS, f"Invalid params: count is 0 to {KEYS_AT_ONCE}")
        after = start if isinstance(start, str) else ""
        return [key for key in self._keys if key.startswith(prefix) and key > after][:count]

    def _query_storage_at(self, params: tuple[Json, ...]) -> Json:
        keys = params[0] if params else None
        if not isinstance(keys, list):
            raise CallRefused(INVALID_PARAMS, "Invalid params: a list of storage keys")
        number = self._state(params, 1)
        changes: Json = [[key, self._recording.storage.get(key)] for key in keys if isinstance(key, str)]
        return [{"block": self._hash(number), "changes": changes}]


def compact(number: int) -> bytes:
    """SCALE compact form of 0 <= number < 2**30."""
    if number < 1 << 6:
        return bytes([number << 2])
    if number < 1 << 14:
        return (number << 2 | 1).to_bytes(2, "little")
    return (number << 2 | 2).to_bytes(4, "little")


def _text(params: tuple[Json, ...], place: int) -> str:
    value = params[place] if len(params) > place else None
    if not isinstance(value, str):
        raise CallRefused(INVALID_PARAMS, f"Invalid params: parameter {place} is no text")
    return value
