"""A double of the chain: answers from the recording, with switches for all that goes wrong.

`ChainDouble` is a Node in process, for virtual time; `ChainServer` serves one as JSON-RPC on a real socket.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any

import msgspec
import trio

from engram.chain.errors import CallRefused, EndpointUnreachable
from engram.chain.read.node import Json, RpcCall
from engram.chain.read.recorded.node import Recording, compact, read_recording
from tests.fakes.responder import Answer, Asked, Responder

MADE_AT = "0xf0c365c3cf59d671eb72da0e7a4113c49f1f0515f462cdcf84e0f1d6045dfcbb"
"""Key of Timestamp.Now."""


@cache
def recording() -> Recording:
    return read_recording()


@cache
def hash_of(way: tuple[int, ...], number: int) -> str:
    return "0x" + hashlib.blake2b(f"{way} {number}".encode(), digest_size=32).hexdigest()


class ChainDouble:
    """A chain whose head moves when told. Every block holds the recorded state of subnet 450."""

    def __init__(self, name: str = "double", head: int = 1100) -> None:
        self.name = name
        self.head = head
        self.chain_name = "bittensor"
        self.spec_version = 293
        self.forks: list[int] = []
        """Block numbers at which this chain went another way."""
        self.metagraphs: dict[str, Callable[[bytes], bytes]] = {"0xc201": lambda scale: scale}
        """By encoded netuid: what is done to the recorded bytes."""
        self.refuse: dict[str, CallRefused] = {}
        """By method, answered instead of a result."""
        self.replace: dict[str, Json] = {}
        """By method, a result in the place of the true one."""
        self.made_s: Callable[[int], float] | None = None
        """Unix time at which a block was made, by its number; None: blocks do not tell."""
        self.down: Exception | None = None
        """Raised by the next calls until reset."""
        self.delay_s = 0.0
        self.asked: list[str] = []
        """Methods, in order."""

    def hash(self, number: int) -> str:
        return hash_of(tuple(fork for fork in self.forks if fork <= number), number)

    def reorganise(self, at: int) -> None:
        """From block `at` on, this endpoint is on another fork than before."""
        self.forks.append(at)

    def number(self, block_hash: Json) -> int | None:
        numbers = range(self.head, max(0, self.head - 300), -1)
        return next((number for number in numbers if self.hash(number) == block_hash), None)

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        await trio.sleep(self.delay_s)
        if self.down is not None:
            raise self.down
        return [self.answer(call) for call in calls]

    def answer(self, call: RpcCall) -> Json:
        self.asked.append(call.method)
        if call.method in self.refuse:
            return self.refuse[call.method]
        if call.method in self.replace:
            return self.replace[call.method]
        match call.method, *call.params:
            case ["chain_getFinalizedHead"]:
                return self.hash(self.head)
            case ["chain_getHeader"]:
                return {"number": hex(self.head), "parentHash": self.hash(self.head - 1)}
            case ["chain_getHeader", at]:
                number = self.number(at)
                return None if number is None else {"number": hex(number), "parentHash": self.hash(number - 1)}
            case ["chain_getBlockHash", int(number)]:
                return self.hash(number) if number <= self.head else None
            case ["state_getRuntimeVersion", _]:
                return {**recording().runtime_version, "specVersion": self.spec_version}
            case ["system_chain"]:
                return self.chain_name
            case ["state_getStorage", str(key), at] if key == MADE_AT and self.made_s is not None:
                number = self.number(at)
                made_ms = None if number is None else int(self.made_s(number) * 1000)
                return None if made_ms is None else "0x" + made_ms.to_bytes(8, "little").hex()
            case ["state_call", "Metadata_metadata_at_version", _, _]:
                return recording().metadata
            case ["state_call", "SubnetInfoRuntimeApi_get_metagraph", str(argument), at]:
                return self.metagraph(argument, self.number(at), at)
            case _:
                return CallRefused(-32601, "Method not found")

    def metagraph(self, argument: str, number: int | None, at: Json) -> Json:
        if number is None:
            return CallRefused(4003, f"Client error: UnknownBlock: Header was not found in the database: {at}")
        change = self.metagraphs.get(argument)
        if change is None:
            return "0x00"
        (parts,) = recording().metagraphs.values()
        scale = bytes.fromhex(parts.before_block) + compact(number) + bytes.fromhex(parts.after_block)
        return "0x" + change(scale).hex()


def renumbered(netuid: int) -> Callable[[bytes], bytes]:
    """The recorded subnet under another number."""
    return lambda scale: scale[:1] + compact(netuid) + scale[3:]


def rehotkeyed(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """The recorded subnet with one key in the place of another."""
    return lambda scale: scale.replace(old, new)


def unreachable(name: str = "double") -> EndpointUnreachable:
    return EndpointUnreachable(f"{name}: no answer")


Fault = Callable[[bytes], Awaitable[Answer | None]]
Shape = Callable[[Any], Any]


class ChainServer:
    """`double` on http://127.0.0.1:port. `fault` may take a request's place in answering."""

    def __init__(self, double: ChainDouble) -> None:
        self.double = double
        self.url = ""
        self.batches = True
        self.fault: Fault | None = None
        """Given the request's body; None as answer closes the connection."""
        self.shape: Shape = lambda replies: replies
        """Changes the decoded JSON-RPC replies before they are sent."""

        self._responder = Responder(self._respond)

    async def run(self, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            self.url = await nursery.start(self._responder.run)
            task_status.started(self.url)

    async def _respond(self, asked: Asked) -> Answer | None:
        return await (self.fault or self._answer)(asked.body)

    async def _answer(self, body: bytes) -> Answer:
        asked = json.loads(body)
        await trio.sleep(self.double.delay_s)
        if isinstance(asked, list) and not self.batches:
            error = {"code": -32005, "message": "Batched requests are not supported by this server"}
            return 200, {}, msgspec.json.encode({"jsonrpc": "2.0", "error": error, "id": None})
        replies = [self._reply(one) for one in asked] if isinstance(asked, list) else self._reply(asked)
        return 200, {"content-type": "application/json"}, msgspec.json.encode(self.shape(replies))

    def _reply(self, asked: dict[str, Any]) -> dict[str, Any]:
        answer = self.double.answer(RpcCall(asked["method"], tuple(asked["params"])))
        reply = {"jsonrpc": "2.0", "id": asked["id"]}
        if isinstance(answer, CallRefused):
            return {**reply, "error": {"code": answer.code, "message": answer.message}}
        return {**reply, "result": answer}
