"""Transactions are checked when they arrive, wait in the mempool, and take effect in a block."""

import math
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace

from tests.doubles.akash import addresses, bank, deployment, market, minting, transaction, wire
from tests.doubles.akash.errors import (
    INSUFFICIENT_FEE,
    INVALID_ADDRESS,
    INVALID_COINS,
    INVALID_REQUEST,
    MEMO_TOO_LARGE,
    MEMPOOL_IS_FULL,
    OUT_OF_GAS,
    TX_IN_MEMPOOL_CACHE,
    TX_TIMEOUT_HEIGHT,
    UNKNOWN_ADDRESS,
    WRONG_SEQUENCE,
    Refused,
)
from tests.doubles.akash.faults import ChainFaults, used
from tests.doubles.akash.messages import (
    AccountDeposit,
    AnyValue,
    CloseDeployment,
    CloseLease,
    CreateDeployment,
    CreateLease,
    Empty,
    Message,
    MintAct,
    Send,
    TxMsgData,
    UpdateDeployment,
)
from tests.doubles.akash.store import UACT, UAKT, AccountRow, Params, State
from tests.doubles.akash.transaction import Transaction

MOST_WAITING: Final = 5_000
MOST_IN_BLOCK: Final = 500
_MEMO_BYTES: Final = 256
_UNORDERED_GAS: Final = 2_240
_GAS: Final = {
    CreateDeployment: 90_000,
    CreateLease: 80_000,
    CloseDeployment: 70_000,
    CloseLease: 70_000,
    UpdateDeployment: 40_000,
    AccountDeposit: 50_000,
    MintAct: 60_000,
    Send: 30_000,
}
_DEPOSIT_GAS_A_BLOCK: Final = 20
"""A deposit settles rent: its gas grows with the blocks since the last time."""


class Included(msgspec.Struct, frozen=True):
    """A transaction in a block."""

    tx: Transaction
    height: int
    time_s: float
    gas_used: int
    code: int = 0
    codespace: str = ""
    log: str = ""
    data: bytes = b""


class Chain:
    """The chain behind its nodes. Time is the time of the last block, which only `make_block` moves."""

    def __init__(self, params: Params | None = None, *, time_s: float = 0.0, index_lag: int = 1) -> None:
        self.state = State(params)
        self.state.time_s = time_s
        self.state.on_account_closed = lambda row: deployment.on_account_closed(self.state, row)
        self.state.on_payment_closed = lambda row: market.on_payment_closed(self.state, row)
        self.index_lag = index_lag
        """Blocks until a transaction can be looked up after the one it is in."""
        self.waiting: dict[str, Transaction] = {}
        self.included: dict[str, Included] = {}
        self.faults = ChainFaults()
        self.refusals: list[str] = []
        """What provider actions were refused with."""
        self.times: dict[int, float] = {}
        """Unix seconds of each block."""
        self._cache: set[str] = set()
        self._actions: deque[Callable[[State], None]] = deque()
        self.after_block: list[Callable[[], None]] = []
        self.on_taken: Callable[[Transaction], None] = lambda tx: None

    def fund(self, address: str, *, uakt: int = 0, uact: int = 0) -> None:
        """Give coins out of nothing: genesis, or a test."""
        for denom, amount in ((UAKT, uakt), (UACT, uact)):
            bank.mint(self.state, address, denom, amount)

    def drain(self, address: str, denom: str) -> None:
        """Take all coins of an account."""
        bank.burn(self.state, address, denom, bank.balance(self.state, address, denom))

    def act(self, action: Callable[[State], None]) -> None:
        """Carry out a scripted provider's own transaction in the next block."""
        self._actions.append(action)

    # ------------------------------------------------------------------------------------------ transactions

    def check(self, raw: bytes) -> str:
        """Take a transaction into the mempool and return its hash. Raises Refused."""
        tx = transaction.decode(raw)
        if tx.hash in self._cache:
            raise TX_IN_MEMPOOL_CACHE.error("tx already exists in cache")
        if len(self.waiting) >= MOST_WAITING:
            raise MEMPOOL_IS_FULL.error()
        mark = self.state.mark()
        try:
            self._ante(tx, minimum_fee=True, waiting=list(self.waiting.values()))
        finally:
            self.state.undo(mark)
        self._cache.add(tx.hash)
        self.waiting[tx.hash] = tx
        self.on_taken(tx)
        return tx.hash

    def simulate(self, raw: bytes) -> int:
        """Return the gas that the transaction would use. Raises Refused; its text names the message's error."""
        tx = transaction.decode(raw)
        mark = self.state.mark()
        try:
            # By the state in which what waits was checked, as the chain does it.
            self._ante(tx, simulated=True, waiting=list(self.waiting.values()))
            gas, _ = self._execute(tx)
        finally:
            self.state.undo(mark)
        return gas

    def lookup(self, tx_hash: str) -> Included | None:
        """Return a transaction that is in a block and indexed."""
        found = self.included.get(tx_hash)
        return found if found is not None and found.height + self.index_lag <= self.state.height else None

    def make_block(self, time_s: float) -> None:
        """Put what waits into a block at this time (unix seconds, later than the last)."""
        self.state.height += 1
        self.state.time_s = max(time_s, self.state.time_s + 1e-3)
        self.times[self.state.height] = self.state.time_s
        for _ in range(len(self._actions)):
            self._attempt(self._actions.popleft())
        for tx in list(self.waiting.values())[:MOST_IN_BLOCK]:
            del self.waiting[tx.hash]
            self._deliver(tx)
        minting.end_block(self.state)
        self.state.forget()
        for each in self.after_block:
            each()

    def lose_waiting(self) -> None:
        """Forget what waits in the mempool, as a node that restarts does."""
        self._cache -= set(self.waiting)
        self.waiting.clear()

    def _attempt(self, action: Callable[[State], None]) -> None:
        mark = self.state.mark()
        try:
            action(self.state)
        except Refused as refused:
            self.state.undo(mark)
            self.refusals.append(str(refused))

    def _deliver(self, tx: Transaction) -> None:
        mark = self.state.mark()
        try:
            self._ante(tx, waiting=[])
        except Refused:
            # Checked again after the block before: it leaves the mempool and is never in a block.
            self.state.undo(mark)
            self._cache.discard(tx.hash)
            return
        mark = self.state.mark()
        gas, data, refused = 0, b"", None
        try:
            gas, data = self._execute(tx)
            gas *= 3 if used(self.faults, "out_of_gas") else 1
            if gas > tx.fee.gas_limit:
                refused = OUT_OF_GAS.error(
                    f"out of gas in location: WriteFlat; gasWanted: {tx.fee.gas_limit}, gasUsed: {gas}"
                )
        except Refused as error:
            refused, gas = error, self._gas(tx)
        result = Included(tx, self.state.height, self.state.time_s, gas, data=data)
        if refused is not None:
            self.state.undo(mark)
            result = replace(result, code=refused.code, codespace=refused.codespace, log=str(refused), data=b"")
        self.included[tx.hash] = result

    # ------------------------------------------------------------------------------- before the messages

    def _ante(
        self, tx: Transaction, *, waiting: list[Transaction], simulated: bool = False, minimum_fee: bool = False
    ) -> None:
        for message in tx.messages:
            _check_basic(message)
        height = self.state.height
        if tx.body.timeout_height and height > tx.body.timeout_height:
            raise TX_TIMEOUT_HEIGHT.error(f"block height: {height}, timeout height: {tx.body.timeout_height}")
        if len(tx.body.memo) > _MEMO_BYTES:
            raise MEMO_TOO_LARGE.error(
                f"maximum number of characters is {_MEMO_BYTES} but received {len(tx.body.memo)}"
            )
        account = self.state.accounts.get(tx.signer)
        if account is None:
            raise UNKNOWN_ADDRESS.error(f"fee payer address: {tx.signer} does not exist")
        if not simulated:
            self._pay_fee(tx, minimum_fee=minimum_fee)
        key = transaction.check_key(tx, account.public_key)
        if tx.body.unordered:
            self._check_unordered(tx, waiting)
        else:
            expected = account.sequence + sum(
                1 for each in waiting if each.signer == tx.signer and not each.body.unordered
            )
            if tx.sequence != expected:
                raise WRONG_SEQUENCE.error(f"account sequence mismatch, expected {expected}, got {tx.sequence}")
        if not simulated:
            transaction.check_signature(tx, key, self.state.params.chain_id, account.number)
        self._use(tx, account, key)

    def _pay_fee(self, tx: Transaction, *, minimum_fee: bool) -> None:
        if any(not coin.amount.isdigit() or coin.denom != UAKT for coin in tx.fee.amount):
            raise INSUFFICIENT_FEE.error("fees are paid in uakt")
        paid = sum(int(coin.amount) for coin in tx.fee.amount)
        required = math.ceil(tx.fee.gas_limit * self.state.params.min_gas_price)
        if minimum_fee and (paid < required or tx.fee.gas_limit == 0):
            raise INSUFFICIENT_FEE.error(f"insufficient fees; got: {paid}uakt required: {required}uakt")
        bank.send(self.state, tx.signer, bank.FEES, UAKT, paid)

    def _check_unordered(self, tx: Transaction, waiting: list[Transaction]) -> None:
        now_ns = round(self.state.time_s * 10**9)
        longest_s = self.state.params.max_unordered_ttl_s
        if tx.sequence:
            raise INVALID_REQUEST.error("sequence is not allowed for unordered transactions")
        if not tx.timeout_ns:
            raise INVALID_REQUEST.error("unordered transaction must have timeout_timestamp set")
        if tx.timeout_ns < now_ns:
            raise INVALID_REQUEST.error("unordered transaction has a timeout_timestamp that has already passed")
        if tx.timeout_ns > now_ns + longest_s * 10**9:
            raise INVALID_REQUEST.error(f"unordered tx ttl exceeds {longest_s // 60}m0s")
        used = self.state.nonces.get((tx.signer, tx.timeout_ns)) is not None
        if used or any(
            each.signer == tx.signer and each.body.unordered and each.timeout_ns == tx.timeout_ns for each in waiting
        ):
            raise INVALID_REQUEST.error(
                f"failed to add unordered nonce: already used timeout {tx.timeout_ns} for {tx.signer}"
            )

    def _use(self, tx: Transaction, account: AccountRow, key: bytes) -> None:
        if tx.body.unordered:
            self.state.nonces.put((tx.signer, tx.timeout_ns), self.state.height)
        sequence = account.sequence if tx.body.unordered else account.sequence + 1
        self.state.accounts.put(tx.signer, replace(account, public_key=key, sequence=sequence))

    # ----------------------------------------------------------------------------------------- the messages

    def _execute(self, tx: Transaction) -> tuple[int, bytes]:
        gas, responses = self._gas(tx), []
        for index, message in enumerate(tx.messages):
            try:
                response = self._carry_out(message)
            except Refused as refused:
                refused.args = (f"failed to execute message; message index: {index}: {refused}",)
                raise
            responses.append(AnyValue(f"{tx.type_urls[index]}Response", wire.encode(response)))
        return gas, wire.encode(TxMsgData(tuple(responses)))

    def _gas(self, tx: Transaction) -> int:
        gas = 40_000 + 10 * len(tx.raw) + (_UNORDERED_GAS if tx.body.unordered else 0)
        for message in tx.messages:
            gas += _GAS[type(message)]
            if isinstance(message, AccountDeposit) and message.id is not None:
                row = self.state.escrow.get(("deployment", message.id.xid))
                gas += _DEPOSIT_GAS_A_BLOCK * (self.state.height - row.settled_at) if row else 0
        return gas

    def _carry_out(self, message: Message) -> Message:
        match message:
            case CreateDeployment():
                deployment.create(self.state, message)
            case CloseDeployment():
                deployment.close(self.state, message)
            case UpdateDeployment():
                deployment.update(self.state, message)
            case AccountDeposit():
                deployment.deposit(self.state, message)
            case CreateLease(bid_id=bid) if bid is not None:
                market.create_lease(self.state, bid)
            case CloseLease(id=lease) if lease is not None:
                market.close_lease(self.state, lease)
            case MintAct():
                return minting.request(self.state, message)
            case Send():
                for coin in message.amount:
                    bank.send(self.state, message.from_address, message.to_address, coin.denom, int(coin.amount))
            case _:
                raise INVALID_REQUEST.error(f"{type(message).__name__} lacks its id")
        return Empty()


def _check_basic(message: Message) -> None:
    match message:
        case CreateDeployment() | CloseDeployment() | UpdateDeployment():
            deployment.check_basic(message)
        case CreateLease(bid_id=id_) | CloseLease(id=id_):
            if id_ is None or not addresses.is_valid(id_.owner) or not addresses.is_valid(id_.provider):
                raise INVALID_ADDRESS.error("bid id: invalid owner or provider address")
        case AccountDeposit(signer=signer, deposit=deposit):
            if not addresses.is_valid(signer):
                raise INVALID_ADDRESS.error("invalid signer address")
            if deposit is None or deposit.amount is None or not deposit.amount.amount.isdigit():
                raise INVALID_COINS.error("invalid deposit")
        case MintAct(owner=owner, to=to):
            if not addresses.is_valid(owner) or not addresses.is_valid(to):
                raise INVALID_ADDRESS.error("invalid owner or to address")
        case Send(from_address=source, to_address=target, amount=coins):
            if not addresses.is_valid(source) or not addresses.is_valid(target):
                raise INVALID_ADDRESS.error("invalid address")
            if not coins or not all(coin.amount.isdigit() and int(coin.amount) for coin in coins):
                raise INVALID_COINS.error("invalid coins")
        case _:
            raise INVALID_REQUEST.error(f"no rule for {type(message).__name__}")
