"""Many payments of unknown outcome at once: all become known soon, and buyers go first."""

import msgspec
import trio
from sqlalchemy import Connection
from trio.testing import MockClock

from engram.clock import TrioClock
from engram.ledger import InlineLedger, open_inline
from engram.payments import records, reservations
from engram.payments.errors import RpcFailed
from engram.payments.evidence import Finding, Paid, Question, Unused
from engram.payments.evm_rpc import EvmRpc
from engram.payments.model import DuePayment, HoldLimits, PaymentState, Transferable
from engram.payments.networks import PLAY
from engram.payments.outcomes import Settlement, Verification
from engram.payments.purchase_answer import StillPending
from engram.payments.rules import PaymentEvent
from tests.fakes.evm import FakeChain
from tests.fakes.facilitator import FakeFacilitator
from tests.payments import builders
from tests.payments.shop import Shop, open_shop, wide
from tests.payments.test_evidence import asked

WIDE = HoldLimits(places=10_000, live_per_hotkey=10_000, holds_per_payer=10_000, holds_per_address=10_000)


def unknown_payments(count: int) -> InlineLedger:
    """A ledger in which so many settlements were asked for and not answered."""

    def write(connection: Connection) -> None:
        for n in range(count):
            reservation = builders.reservation(f"old {n}", limits=WIDE)
            assert isinstance(reservations.reserve(connection, reservation), reservations.Reserved)
            for event in (PaymentEvent.VERIFIED, PaymentEvent.UNCLEAR):
                records.advance(connection, reservation.payment.id, event, builders.instant(-60))

    ledger = open_inline()
    ledger.write_now(write)
    return ledger


def still(shop: Shop, state: PaymentState) -> int:
    return shop.read(records.count_by_state).get(state, 0)


async def test_more_than_a_page_of_unknown_payments_is_worked_off_without_waiting_for_the_next_reading(
    autojump_clock: MockClock,
) -> None:
    async with open_shop(unknown_payments(600), settings=wide(concurrency=8)) as shop:
        await shop.until(lambda: still(shop, PaymentState.UNKNOWN) == 0, within_s=1.7)
        assert shop.facilitator.transfers == 600


class Counting:
    """A facilitator that counts settlements under way at once."""

    def __init__(self) -> None:
        self.inner = FakeFacilitator(TrioClock(builders.NOW))
        self.under_way = self.most = 0

    async def verify(self, transfer: Transferable) -> Verification:
        return await self.inner.verify(transfer)

    async def settle(self, transfer: Transferable) -> Settlement:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await trio.sleep(0.1)
            return await self.inner.settle(transfer)
        finally:
            self.under_way -= 1


async def test_unknown_payments_make_way_while_buyers_wait(autojump_clock: MockClock) -> None:
    counting = Counting()
    async with open_shop(unknown_payments(400), settings=wide(concurrency=32), through=counting) as shop:
        counting.inner.hanging_nonces.add(builders.nonce("new"))
        await trio.sleep(0.5)
        assert counting.most == 8
        async with trio.open_nursery() as nursery:
            answers: list[object] = []

            async def buy() -> None:
                answers.append(await shop.buy(shop.purchase("new")))

            nursery.start_soon(buy)
            await trio.sleep(1)
            counting.most = 0
            await trio.sleep(2)
            assert counting.most == 1 + 32 // 16
        assert isinstance(answers[0], StillPending)


def test_payments_with_a_waiting_buyer_are_due_before_all_others() -> None:
    ledger = unknown_payments(5)
    late = builders.reservation("late", limits=WIDE)
    ledger.write_now(lambda connection: reservations.reserve(connection, late))
    due = ledger.write_now(lambda connection: records.due(connection, builders.NOW + 100, 3))
    assert due[0] == DuePayment(late.payment.id, PaymentState.RESERVED)
    assert [one.state for one in due[1:]] == [PaymentState.UNKNOWN] * 2


def test_refused_payments_which_anybody_can_make_without_money_are_due_after_all_others() -> None:
    ledger = unknown_payments(2)
    refuse(ledger, 5)
    due = ledger.write_now(lambda connection: records.due(connection, builders.NOW + 100, 4))
    assert [one.state for one in due] == [PaymentState.UNKNOWN] * 2 + [PaymentState.REJECTED] * 2


async def test_few_refused_payments_are_looked_for_on_the_chain_at_once(autojump_clock: MockClock) -> None:
    ledger, looks = unknown_payments(0), Looks()
    refuse(ledger, 100)
    async with open_shop(ledger, settings=wide(concurrency=64), evidence=looks) as shop:
        await shop.until(lambda: looks.done == 100, within_s=30)
        assert looks.most == 2


def refuse(ledger: InlineLedger, count: int) -> None:
    """So many payments are refused, and watched."""

    def write(connection: Connection) -> None:
        before = builders.instant(-600)
        for n in range(count):
            reservation = builders.reservation(f"refused {n}", limits=WIDE)
            reservations.reserve(connection, reservation)
            records.advance(
                connection, reservation.payment.id, PaymentEvent.REFUSED, before, reason="x", watch_at=before.wall
            )

    ledger.write_now(write)


class Looks:
    """A chain that takes its time, counts looks under way at once, and knows of no use."""

    def __init__(self) -> None:
        self.under_way = self.most = self.done = 0

    async def look(self, question: Question) -> Finding:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await trio.sleep(0.1)
        self.under_way -= 1
        self.done += 1
        return Unused(as_of=builders.NOW + 1_000_000)


# One reading of the chain's head for many.


async def test_looks_of_the_same_second_share_the_newest_blocks(autojump_clock: MockClock) -> None:
    chain = FakeChain()
    rpc = EvmRpc(chain.call, PLAY, 5)
    async with trio.open_nursery() as nursery:
        for n in range(10):
            nursery.start_soon(rpc.look, asked(f"nonce {n}"))
    assert chain.calls.count("eth_getBlockByNumber") == 2
    await trio.sleep(1)
    chain.mine(10)
    found = await rpc.look(asked())
    assert isinstance(found, Unused)
    assert chain.calls.count("eth_getBlockByNumber") == 4


async def test_a_payment_that_its_transaction_proves_needs_no_other_block(autojump_clock: MockClock) -> None:
    chain = FakeChain()
    rpc = EvmRpc(chain.call, PLAY, 5)
    transaction = chain.transfer(builders.authorization())
    for final in (False, True):
        question = msgspec.structs.replace(asked(), transaction=transaction)
        assert await rpc.look(question) == Paid(transaction, final)
        chain.mine(5)
        await trio.sleep(1)
    assert chain.calls == ["eth_chainId", *["eth_getBlockByNumber", "eth_getTransactionReceipt"] * 2]


async def test_a_payment_in_a_block_newer_than_the_shared_one_is_found(autojump_clock: MockClock) -> None:
    chain = FakeChain()
    rpc = EvmRpc(chain.call, PLAY, 5)
    assert isinstance(await rpc.look(asked()), Unused)
    chain.transfer(builders.authorization())
    assert not isinstance(await rpc.look(asked()), Unused)


async def test_a_node_that_stalls_keeps_those_who_wait_for_it_no_longer_than_one(autojump_clock: MockClock) -> None:
    async def stalls(method: str, params: list[object]) -> object:
        if method == "eth_chainId":
            return hex(PLAY.chain_id)
        await trio.sleep(5)
        raise RpcFailed("rpc_Interrupted")

    rpc = EvmRpc(stalls, PLAY, 5)
    with trio.fail_after(6):
        async with trio.open_nursery() as nursery:
            for n in range(10):
                nursery.start_soon(rpc.look, asked(f"nonce {n}"))
