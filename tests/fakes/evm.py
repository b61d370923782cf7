"""A chain in memory with one EIP-3009 token, as a node's JSON-RPC tells it."""

from engram.payments.errors import RpcFailed
from engram.payments.evm_rpc import CANCELED, TRANSFER, USED
from engram.payments.model import Authorization
from engram.payments.networks import PLAY

GENESIS_S = 1_700_000_000 - 2_000


def topic(address: bytes) -> str:
    return "0x" + (bytes(12) + address).hex()


class FakeChain:
    """Blocks of two seconds; each use of an authorization is a transaction in a block of its own."""

    def __init__(self) -> None:
        self.chain_id = PLAY.chain_id
        self.height = 1_000
        self.receipts: list[dict[str, object]] = []
        self.used: dict[str, int] = {}
        self.calls: list[str] = []
        self.failing: set[str] = set()

    def mine(self, blocks: int) -> None:
        self.height += blocks

    def reorganise(self) -> None:
        """The last use of an authorization never was."""
        self.receipts.pop()
        self.used.popitem()

    def transfer(self, signed: Authorization, *, value: int | None = None, to: bytes | None = None) -> str:
        """The token moves the money, whoever submits it."""
        return self.transact([signed], *self.used_and_moved(signed, value=value, to=to))

    def used_and_moved(
        self, signed: Authorization, *, value: int | None = None, to: bytes | None = None
    ) -> list[dict[str, object]]:
        """The two events of a transfer, for `transact`."""
        moved = self._log(
            TRANSFER,
            topic(signed.payer),
            topic(signed.pay_to if to is None else to),
            data="0x" + (signed.value if value is None else value).to_bytes(32, "big").hex(),
        )
        return [self._log(USED, topic(signed.payer), "0x" + signed.nonce.hex()), moved]

    def cancel(self, signed: Authorization) -> str:
        return self.transact([signed], self._log(CANCELED, topic(signed.payer), "0x" + signed.nonce.hex()))

    def lonely_use(self, signed: Authorization) -> str:
        """Used, and a plain transfer that is not its own stands elsewhere in the transaction."""
        stranger = self._log(TRANSFER, topic(signed.payer), topic(b"\x22" * 20), data="0x" + "00" * 32)
        plain = self._log(TRANSFER, topic(signed.payer), topic(signed.pay_to), data="0x" + f"{signed.value:064x}")
        used = self._log(USED, topic(signed.payer), "0x" + signed.nonce.hex())
        return self.transact([signed], plain, used, stranger)

    async def call(self, method: str, params: list[object]) -> object:
        self.calls.append(method)
        if method in self.failing:
            raise RpcFailed(f"rpc_refused_{method}")
        match method, params:
            case "eth_chainId", _:
                return hex(self.chain_id)
            case "eth_getBlockByNumber", [str(which), _]:
                number = self.height if which == "latest" else int(which, 16)
                return {"number": hex(number), "timestamp": hex(GENESIS_S + 2 * number)}
            case "eth_getLogs", [dict(asked)]:
                first = int(str(asked["fromBlock"]), 16)
                last = self.height if asked["toBlock"] == "latest" else int(str(asked["toBlock"]), 16)
                logs = [log for receipt in self.receipts for log in receipt["logs"]]  # type: ignore[attr-defined]
                return [
                    log
                    for log in logs
                    if first <= int(log["blockNumber"], 16) <= last
                    and log["topics"][0] in asked["topics"][0]
                    and log["topics"][1:3] == asked["topics"][1:3]
                ]
            case "eth_getTransactionReceipt", [str(transaction)]:
                return next((one for one in self.receipts if one["transactionHash"] == transaction), None)
            case "eth_call", [dict(asked), str(which)]:
                nonce = str(asked["data"])[-64:]
                return hex(int(self.used.get(nonce, self.height + 1) <= int(which, 16)))
            case _:
                raise RpcFailed("rpc_unknown_method")

    def _log(self, *topics: str, data: str = "0x") -> dict[str, object]:
        return {"address": "0x" + PLAY.asset.hex(), "topics": list(topics), "data": data}

    def transact(self, signed: list[Authorization], *logs: dict[str, object]) -> str:
        """One transaction that uses all of them, in a block of its own."""
        self.mine(1)
        transaction = "0x" + f"{self.height:064x}"
        for index, log in enumerate(logs):
            log |= {"logIndex": hex(index), "blockNumber": hex(self.height), "transactionHash": transaction}
        self.receipts.append({"status": "0x1", "transactionHash": transaction, "logs": list(logs)})
        self.used |= dict.fromkeys((one.nonce.hex() for one in signed), self.height)
        return transaction
