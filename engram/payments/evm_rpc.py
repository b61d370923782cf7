"""Evidence of an EIP-3009 authorization from an EVM chain, by JSON-RPC.

Proof of payment is AuthorizationUsed(payer, nonce) followed at once by Transfer(payer, payee, amount), both logged by
the pinned token in one successful receipt. "At once" matters: a payer could use several nonces for transfers to
himself and pay once in the same transaction. Nothing is believed of a chain with another id than the network's.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from itertools import pairwise
from math import ceil, inf
from typing import Final, TypeAlias, final

import msgspec

from engram.http.client import HttpClient, HttpError
from engram.payments.errors import MalformedPayment, RpcFailed
from engram.payments.evidence import Finding, NoEvidence, Paid, Question, Spent, Unused
from engram.payments.keccak import keccak256
from engram.payments.networks import Network
from engram.payments.shared_reading import SharedReading
from engram.payments.x402 import strict_json

RpcCall: TypeAlias = Callable[[str, list[object]], Awaitable[object]]
"""Calls a method with its parameters; raises RpcFailed."""

USED: Final = "0x" + keccak256(b"AuthorizationUsed(address,bytes32)").hex()
CANCELED: Final = "0x" + keccak256(b"AuthorizationCanceled(address,bytes32)").hex()
TRANSFER: Final = "0x" + keccak256(b"Transfer(address,address,uint256)").hex()
_STATE: Final = keccak256(b"authorizationState(address,bytes32)")[:4].hex()

RANGE_BLOCKS: Final = 2_000
"""Blocks in one eth_getLogs: what common providers allow."""
RANGES: Final = 20
HEAD_KEPT_S: Final = 1.0
"""Looks of the same second share the newest block; events are always looked for to the end."""
FASTEST_BLOCK_S: Final = 1.0
SLACK_S: Final = 300.0
MAX_ANSWER_BYTES: Final = 1_000_000

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}", re.ASCII)
_HASH = re.compile(r"0x[0-9a-fA-F]{64}", re.ASCII)


class Block(msgspec.Struct, frozen=True):
    """A block's number and time (unix seconds)."""

    number: int
    timestamp: int


class ChainHead(msgspec.Struct, frozen=True):
    """The newest block, and the newest that is final."""

    latest: Block
    final: int
    """Number of the newest final block."""


class Log(msgspec.Struct, frozen=True):
    """One event of the token."""

    address: str
    topics: tuple[str, ...]
    data: str
    index: int
    block: int
    transaction: str


def json_rpc(http: HttpClient, url: str, timeout_s: float) -> RpcCall:
    """Return a way to call the node at `url`."""

    async def call(method: str, params: list[object]) -> object:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            answer = await http.request(
                "POST", url, json=request, read_s=timeout_s, total_s=timeout_s, max_bytes=MAX_ANSWER_BYTES
            )
            body = strict_json(answer.content)
        except (HttpError, MalformedPayment) as error:
            raise RpcFailed(f"rpc_{type(error).__name__}") from None
        if answer.status != 200 or not isinstance(body, dict) or "result" not in body or body.get("error"):
            raise RpcFailed(f"rpc_refused_{method}")
        return body["result"]

    return call


@final
class EvmRpc:
    """Evidence from one node. A block is final when `confirmations` more stand on it."""

    def __init__(
        self, call: RpcCall, network: Network, confirmations: int, *, head_kept_s: float = HEAD_KEPT_S
    ) -> None:
        self._call = call
        self._network = network
        self._confirmations = confirmations
        self._latest = SharedReading[Block](head_kept_s)
        self._final = SharedReading[Block](inf)
        self._checked = False

    async def look(self, question: Question) -> Finding:
        """Return what became of the authorization."""
        try:
            await self._check_chain()
            head = await self._read_head()
            if (paid := await self._paid_in(question, head)) is not None:
                return paid
            event = await self._event(question, head.latest, _first_block(question, head.latest))
            if event is None:
                if not await self._is_used(question, head.final):
                    final_block = await self._final.get(lambda: self.block(hex(head.final)), head.final)
                    return Unused(float(final_block.timestamp))
                event = await self._event(question, head.latest, await self._block_at(question.since - SLACK_S, head))
            if event is None:
                event = await self._event(question, head.latest, _oldest_block(head.latest))
            if event is None:
                return NoEvidence("used_and_not_in_the_logs")
            return await self._judge(question, event, final=event.block <= head.final)
        except RpcFailed as failed:
            return NoEvidence(str(failed))

    async def block(self, which: str) -> Block:
        """Read a block's number and time; `which` is a tag or a hex number. Raises RpcFailed."""
        block = _object(await self._call("eth_getBlockByNumber", [which, False]))
        return Block(_quantity(block, "number"), _quantity(block, "timestamp"))

    async def _read_head(self) -> ChainHead:
        latest = await self._latest.get(lambda: self.block("latest"))
        return ChainHead(latest, max(0, latest.number - self._confirmations))

    async def _check_chain(self) -> None:
        if self._checked:
            return
        if _number(await self._call("eth_chainId", [])) != self._network.chain_id:
            raise RpcFailed("rpc_of_another_chain")
        self._checked = True

    async def _block_at(self, moment: float, head: ChainHead) -> int:
        """Return the first block that is not older than `moment` (unix seconds); the newest when all are."""
        low, high = 0, head.latest.number
        while low < high:
            middle = (low + high) // 2
            if (await self.block(hex(middle))).timestamp < moment:
                low = middle + 1
            else:
                high = middle
        return low

    async def _event(self, question: Question, latest: Block, first: int) -> Log | None:
        """Return the event that used the authorization, searched in RANGES from block `first` on."""
        for begin in range(first, min(latest.number + 1, first + RANGE_BLOCKS * RANGES), RANGE_BLOCKS):
            end = begin + RANGE_BLOCKS - 1
            query = {
                "address": "0x" + question.asset.hex(),
                "topics": [[USED, CANCELED], _topic(question.payer), "0x" + question.nonce.hex()],
                "fromBlock": hex(begin),
                "toBlock": hex(end) if end < latest.number else "latest",
            }
            logs = await self._call("eth_getLogs", [query])
            if not isinstance(logs, list):
                raise RpcFailed("rpc_malformed_logs")
            for log in map(_log, logs):
                if log.topics[1:] == (_topic(question.payer), "0x" + question.nonce.hex()):
                    return log
        return None

    async def _paid_in(self, question: Question, head: ChainHead) -> Paid | None:
        """Return the proof from the named transaction, None when it is not there: then the logs are searched."""
        if question.transaction is None:
            return None
        try:
            in_order = await self._receipt(question.transaction)
        except RpcFailed:  # a wrong name must not hide what the logs show
            return None
        for log, following in pairwise(in_order):
            if _uses(log, question) and _pays(following, question) and log.transaction == question.transaction:
                return Paid(log.transaction, log.block <= head.final)
        return None

    async def _receipt(self, transaction: str) -> list[Log]:
        """Return the events of a successful transaction in order. Raises RpcFailed."""
        receipt = _object(await self._call("eth_getTransactionReceipt", [transaction]))
        logs = receipt.get("logs")
        if not isinstance(logs, list) or _quantity(receipt, "status") != 1:
            raise RpcFailed("rpc_receipt_does_not_fit")
        return sorted(map(_log, logs), key=lambda log: log.index)

    async def _judge(self, question: Question, event: Log, *, final: bool) -> Finding:
        if event.topics[0] == CANCELED:
            return Spent("cancelled", final)
        in_order = await self._receipt(event.transaction)
        position = next((place for place, log in enumerate(in_order) if log.index == event.index), None)
        if position is None or in_order[position].topics != event.topics:
            raise RpcFailed("rpc_receipt_does_not_fit")
        following = in_order[position + 1] if position + 1 < len(in_order) else None
        if following is not None and _pays(following, question):
            return Paid(event.transaction, final)
        return Spent("used_otherwise", final)

    async def _is_used(self, question: Question, block: int) -> bool:
        query = {
            "to": "0x" + question.asset.hex(),
            "data": "0x" + _STATE + _topic(question.payer)[2:] + question.nonce.hex(),
        }
        return bool(_number(await self._call("eth_call", [query, hex(block)])))


def _first_block(question: Question, latest: Block) -> int:
    """Return the first block in which the authorization may have been used, by the clock."""
    back = ceil(max(0.0, latest.timestamp - question.since + SLACK_S) / FASTEST_BLOCK_S)
    return max(latest.number - back, _oldest_block(latest))


def _oldest_block(latest: Block) -> int:
    """Return the oldest block that is searched: for a faster chain, or a clock that was ahead."""
    return max(0, latest.number - RANGE_BLOCKS * RANGES + 1)


def _pays(log: Log, question: Question) -> bool:
    return (
        log.address == "0x" + question.asset.hex()
        and log.topics == (TRANSFER, _topic(question.payer), _topic(question.pay_to))
        and log.data == "0x" + question.amount.to_bytes(32, "big").hex()
    )


def _uses(log: Log, question: Question) -> bool:
    return log.address == "0x" + question.asset.hex() and log.topics == (
        USED,
        _topic(question.payer),
        "0x" + question.nonce.hex(),
    )


def _topic(address: bytes) -> str:
    return "0x" + (bytes(12) + address).hex()


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise RpcFailed("rpc_malformed")
    return value


def _log(value: object) -> Log:
    found = _object(value)
    topics, address, data, transaction = (found.get(key) for key in ("topics", "address", "data", "transactionHash"))
    if (
        not isinstance(topics, list)
        or not all(isinstance(topic, str) for topic in topics)
        or not isinstance(address, str)
        or not isinstance(data, str)
        or not isinstance(transaction, str)
        or not _HASH.fullmatch(transaction)
    ):
        raise RpcFailed("rpc_malformed_log")
    return Log(
        address=address.lower(),
        topics=tuple(topic.lower() for topic in topics),
        data=data.lower(),
        index=_quantity(found, "logIndex"),
        block=_quantity(found, "blockNumber"),
        transaction=transaction.lower(),
    )


def _quantity(fields: Mapping[str, object], key: str) -> int:
    return _number(fields.get(key))


def _number(value: object) -> int:
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise RpcFailed("rpc_malformed_number")
    return int(value, 16)
