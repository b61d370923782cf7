"""The chain's own word: who really paid, who never will, and what arrives after it had been given up."""

import hashlib
from typing import Any

import msgspec
import pytest
import trio

from engram import sessions
from engram.http.client import HttpClient
from engram.payments import evidence, records, refunds, rules
from engram.payments.errors import RpcFailed
from engram.payments.evidence import Finding, NoEvidence, Paid, Question, Spent, Unused, Watch
from engram.payments.evm_rpc import EvmRpc, json_rpc
from engram.payments.model import Payment, PaymentState, Refund, RefundState
from engram.payments.networks import BASE, PLAY
from engram.payments.outcomes import Invalid
from engram.payments.purchase_answer import Bought, CannotNow, PurchaseAnswer, Refused
from engram.payments.refund_key import RefundKey
from engram.payments.refund_rules import Next, RefundTerms
from engram.payments.rules import PaymentEvent
from engram.sessions import ClockInstants, SessionEvent
from tests.fakes.evm import GENESIS_S, FakeChain
from tests.payments import builders
from tests.payments.shop import Shop, open_shop
from tests.payments.test_facilitators import http, listening

KEY = RefundKey(hashlib.sha256(b"refund key").digest())
HASH = "0x" + "ab" * 32


def chain_and_evidence(confirmations: int = 5) -> tuple[FakeChain, EvmRpc]:
    chain = FakeChain()
    return chain, EvmRpc(chain.call, PLAY, confirmations, head_kept_s=0.0)


def asked(text: str = "a nonce") -> Question:
    return evidence.about(builders.payment(text))


# What the adapter reads.


async def test_a_transfer_by_the_authorization_is_proof_and_final_after_the_confirmations() -> None:
    chain, rpc = chain_and_evidence()
    transaction = chain.transfer(builders.authorization())
    assert await rpc.look(asked()) == Paid(transaction, final=False)
    chain.mine(5)
    assert await rpc.look(asked()) == Paid(transaction, final=True)


async def test_the_receipt_of_the_transaction_that_is_named_proves_without_a_search() -> None:
    chain, rpc = chain_and_evidence()
    transaction = chain.transfer(builders.authorization())
    named = msgspec.structs.replace(asked(), transaction=transaction)
    assert await rpc.look(named) == Paid(transaction, final=False)
    chain.mine(5)
    assert await rpc.look(named) == Paid(transaction, final=True)
    assert "eth_getLogs" not in chain.calls


async def test_a_transaction_that_is_named_proves_nothing_that_is_not_in_it() -> None:
    """It moved other money, or too little, or to somebody else, or not by the pinned token, or it failed."""
    for spoil in ("another", "value", "payee", "token", "failed", "transaction"):
        chain, rpc = chain_and_evidence()
        signed = builders.authorization("another" if spoil == "another" else "a nonce")
        named = chain.transfer(
            signed, value=1 if spoil == "value" else None, to=b"\x22" * 20 if spoil == "payee" else None
        )
        if spoil == "failed":
            chain.receipts[0]["status"] = "0x0"
        for log in chain.receipts[0]["logs"]:  # type: ignore[attr-defined]
            log |= {"token": {"address": "0x" + "33" * 20}, "transaction": {"transactionHash": HASH}}.get(spoil, {})
        look = await rpc.look(msgspec.structs.replace(asked(), transaction=named))
        assert not isinstance(look, Paid), spoil


@pytest.mark.parametrize("named", [HASH, "no hash at all"])
async def test_a_wrong_name_does_not_hide_what_the_logs_show(named: str) -> None:
    chain, rpc = chain_and_evidence()
    transaction = chain.transfer(builders.authorization())
    assert await rpc.look(msgspec.structs.replace(asked(), transaction=named)) == Paid(transaction, final=False)


async def test_a_transaction_whose_receipt_cannot_be_read_does_not_hide_what_the_logs_show() -> None:
    chain = FakeChain()

    async def call(method: str, params: list[object]) -> object:
        if method == "eth_getTransactionReceipt" and params == [HASH]:
            raise RpcFailed("rpc_TooLarge")
        return await chain.call(method, params)

    transaction = chain.transfer(builders.authorization())
    named = msgspec.structs.replace(asked(), transaction=HASH)
    assert await EvmRpc(call, PLAY, 5).look(named) == Paid(transaction, final=False)


async def test_used_alone_is_no_proof() -> None:
    for use, why in (
        (FakeChain.cancel, "cancelled"),
        (FakeChain.lonely_use, "used_otherwise"),
        (lambda chain, signed: chain.transfer(signed, value=1), "used_otherwise"),
        (lambda chain, signed: chain.transfer(signed, to=b"\x22" * 20), "used_otherwise"),
    ):
        chain, rpc = chain_and_evidence()
        use(chain, builders.authorization())
        assert await rpc.look(asked()) == Spent(why, final=False)


async def test_an_authorization_that_was_not_used_is_so_as_of_the_final_block() -> None:
    chain, rpc = chain_and_evidence()
    chain.transfer(builders.authorization("another"))
    assert await rpc.look(asked()) == Unused(as_of=GENESIS_S + 2 * (chain.height - 5))


async def test_logs_are_looked_for_in_ranges_back_to_when_the_authorization_was_seen() -> None:
    chain, rpc = chain_and_evidence()
    chain.mine(5_000)
    transaction = chain.transfer(builders.authorization())
    chain.mine(5_000)
    assert await rpc.look(asked()) == Paid(transaction, final=True)
    assert chain.calls.count("eth_getLogs") > 1


async def test_a_use_is_found_though_the_clock_says_it_cannot_be_so_old() -> None:
    chain, rpc = chain_and_evidence()
    transaction = chain.transfer(builders.authorization())
    chain.mine(5_000)
    ahead = msgspec.structs.replace(asked(), since=asked().since + 1_000_000.0)
    assert await rpc.look(ahead) == Paid(transaction, final=True)


async def test_a_use_is_found_however_long_ago_it_was() -> None:
    chain, rpc = chain_and_evidence()
    transaction = chain.transfer(builders.authorization())
    chain.mine(30 * 86_400 // 2)
    assert await rpc.look(asked()) == Paid(transaction, final=True)


async def test_a_use_that_the_logs_do_not_show_is_no_evidence() -> None:
    chain, rpc = chain_and_evidence()
    chain.transfer(builders.authorization())
    chain.receipts.clear()
    chain.mine(5)
    assert await rpc.look(asked()) == NoEvidence("used_and_not_in_the_logs")


async def test_a_node_of_another_chain_proves_nothing() -> None:
    chain = FakeChain()
    chain.transfer(builders.authorization())
    assert await EvmRpc(chain.call, BASE, 5).look(asked()) == NoEvidence("rpc_of_another_chain")


@pytest.mark.parametrize("method", ["eth_chainId", "eth_getBlockByNumber", "eth_getLogs", "eth_getTransactionReceipt"])
async def test_a_node_that_fails_proves_nothing(method: str) -> None:
    chain, rpc = chain_and_evidence()
    chain.transfer(builders.authorization())
    chain.failing.add(method)
    assert await rpc.look(asked()) == NoEvidence(f"rpc_refused_{method}")


@pytest.mark.parametrize("status", ["0x0", None])
async def test_a_reverted_transaction_proves_nothing(status: str | None) -> None:
    chain, rpc = chain_and_evidence()
    chain.transfer(builders.authorization())
    chain.receipts[0]["status"] = status
    assert isinstance(await rpc.look(asked()), NoEvidence)


@pytest.mark.parametrize(
    "spoiled",
    [{"topics": 7}, {"topics": [7]}, {"transactionHash": "0x1"}, {"blockNumber": 5}, {"data": None}, {"address": 1}],
)
async def test_logs_that_are_none_prove_nothing(spoiled: dict[str, Any]) -> None:
    chain = FakeChain()

    async def call(method: str, params: list[object]) -> object:
        told = await chain.call(method, params)
        return [log | spoiled for log in told] if method == "eth_getLogs" and isinstance(told, list) else told

    chain.transfer(builders.authorization())
    assert isinstance(await EvmRpc(call, PLAY, 5).look(asked()), NoEvidence)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (http("200 OK", b'{"jsonrpc":"2.0","id":1,"result":"0x7a69"}'), "0x7a69"),
        (http("200 OK", b'{"jsonrpc":"2.0","id":1,"error":{"code":-32005}}'), None),
        (http("429 Too Many Requests", b'{"result":1}'), None),
        (http("200 OK", b"<html>"), None),
        (None, None),
    ],
)
async def test_a_node_is_asked_over_http(nursery: trio.Nursery, answer: bytes | None, outcome: str | None) -> None:
    client = HttpClient()
    call = json_rpc(client, await listening(nursery, answer), 0.3)
    if outcome is None:
        with pytest.raises(RpcFailed):
            await call("eth_chainId", [])
    else:
        assert await call("eth_chainId", []) == outcome
    await client.aclose()


# What follows from a finding.

ALL: list[Finding] = [Paid(HASH, False), Paid(HASH, True), Spent("x", False), Spent("x", True), NoEvidence("x")]
AGAIN, REST = Watch.AGAIN, Watch.REST


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        (PaymentState.UNKNOWN, [PaymentEvent.SETTLED] * 2 + [AGAIN, PaymentEvent.VOIDED, AGAIN]),
        (PaymentState.REJECTED, [AGAIN, PaymentEvent.ARRIVED, AGAIN, REST, AGAIN]),
        (PaymentState.VOID, [AGAIN, PaymentEvent.ARRIVED, AGAIN, REST, AGAIN]),
        (PaymentState.SETTLED, [AGAIN, REST, AGAIN, PaymentEvent.REORGANISED, AGAIN]),
        (PaymentState.REFUNDED, [AGAIN] * 5),
    ],
)
def test_what_a_finding_means_depends_on_the_state(state: PaymentState, wanted: list[object]) -> None:
    payment = builders.payment(state=state, settled_at=builders.NOW)
    assert [evidence.decide(payment, finding, builders.NOW) for finding in ALL] == wanted
    assert all(evidence.word(finding) for finding in [*ALL, Unused(0)])


def test_only_an_expiry_in_chain_time_ends_what_was_never_used() -> None:
    payment = builders.payment(state=PaymentState.UNKNOWN)
    before, after = Unused(payment.valid_before - 1), Unused(payment.valid_before)
    late = payment.valid_before + 100_000.0
    assert evidence.decide(payment, before, late) is AGAIN
    assert evidence.decide(payment, after, late) is PaymentEvent.VOIDED
    given_up = builders.payment(state=PaymentState.REJECTED)
    assert [evidence.decide(given_up, one, late) for one in (before, after, NoEvidence("x"))] == [AGAIN, REST, REST]
    settled = builders.payment(state=PaymentState.SETTLED, settled_at=builders.NOW)
    assert evidence.decide(settled, Unused(builders.NOW + 59), late) is AGAIN
    assert evidence.decide(settled, Unused(builders.NOW + 61), late) is PaymentEvent.REORGANISED


# With the shop.


def signed(payment: Payment) -> Any:
    return builders.authorization().__class__(
        payment.payer, payment.pay_to, payment.amount, payment.valid_after, payment.valid_before, payment.nonce
    )


def keep_time(chain: FakeChain, shop: Shop) -> None:
    """The chain has as many blocks as its clock says."""
    chain.height = max(chain.height, int(shop.clock.now() - GENESIS_S) // 2)


def settle_on(chain: FakeChain, shop: Shop) -> None:
    """What the facilitator settles stands on the chain."""
    done: set[bytes] = set()

    def transfer(point: str) -> None:
        if point == "settle:after":
            for one in shop.facilitator.settled.values():
                if one.nonce not in done:
                    done.add(one.nonce)
                    chain.transfer(one)

    shop.facilitator.passing = transfer


async def mine(chain: FakeChain, shop: Shop) -> None:
    while True:
        keep_time(chain, shop)
        await trio.sleep(1)


async def test_an_unknown_payment_that_a_third_party_submitted_counts_as_paid(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    chain, rpc = chain_and_evidence()
    async with open_shop(evidence=rpc) as shop:
        nursery.start_soon(mine, chain, shop)
        shop.facilitator.settle_faults.extend(["lost_before"] * 1_000)
        shop.facilitator.passing = lambda point: None
        await shop.buy(shop.purchase())
        assert shop.payment().state is PaymentState.UNKNOWN
        transaction = chain.transfer(signed(shop.payment()))
        await shop.until(lambda: shop.payment().state is PaymentState.SETTLED)
        assert shop.payment().transaction_hash == transaction
        await shop.until(lambda: shop.payment().next_attempt_at is None)  # final, and watched no more
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("what", ["paid", "cancelled", "not told"])
async def test_an_authorization_that_was_used_before_we_could_counts_as_paid_when_it_paid_us(
    autojump_clock: object, what: str
) -> None:
    chain, rpc = chain_and_evidence()
    async with open_shop(evidence=rpc) as shop:
        keep_time(chain, shop)
        purchase = shop.purchase()
        signed_by_buyer = purchase.payload.authorization
        shop.facilitator.settled[signed_by_buyer.payer, signed_by_buyer.nonce] = signed_by_buyer
        if what == "cancelled":
            chain.cancel(signed_by_buyer)
        else:
            chain.transfer(signed_by_buyer)
        if what == "not told":
            chain.failing.add("eth_getLogs")
        answer = await shop.buy(purchase)
        assert type(answer).__name__ == {"paid": "Bought", "cancelled": "Refused", "not told": "CannotNow"}[what]
        assert shop.facilitator.settlements == 0


@pytest.mark.parametrize("point", ["verify", "settle:before"])
async def test_a_payment_that_was_submitted_by_another_is_paid_whatever_the_facilitator_calls_that(
    autojump_clock: object, point: str
) -> None:
    chain, rpc = chain_and_evidence()
    async with open_shop(evidence=rpc) as shop:
        keep_time(chain, shop)
        purchase = shop.purchase()

        def overtake(where: str) -> None:
            if where == point:
                chain.transfer(purchase.payload.authorization)
                shop.facilitator.moved[builders.PAYER] = 1_000_000_000  # nothing is left for another payment

        shop.facilitator.passing = overtake
        assert isinstance(await shop.buy(purchase), Bought)
        assert shop.facilitator.transfers == 0


@pytest.mark.parametrize(("reason", "told"), [(rules.SIMULATION_FAILED, CannotNow), ("insufficient_funds", Refused)])
async def test_a_refusal_that_may_mean_used_is_not_told_as_one_while_the_chain_cannot_be_asked(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, reason: str, told: type[PurchaseAnswer]
) -> None:
    chain, rpc = chain_and_evidence()
    chain.failing.add("eth_getLogs")
    async with open_shop(evidence=rpc) as shop:

        async def refuse(_: object) -> Invalid:
            return Invalid(reason)

        monkeypatch.setattr(shop.facilitator, "verify", refuse)
        assert isinstance(await shop.buy(shop.purchase()), told)


@pytest.mark.parametrize("cancelled", [True, False])
async def test_an_unknown_payment_ends_void_when_it_was_cancelled_or_expired_in_chain_time(
    autojump_clock: object, nursery: trio.Nursery, cancelled: bool
) -> None:
    chain, rpc = chain_and_evidence()
    async with open_shop(evidence=rpc) as shop:
        nursery.start_soon(mine, chain, shop)
        shop.facilitator.settle_faults.extend(["lost_before"] * 1_000)
        await shop.buy(shop.purchase())
        began = shop.clock.now()
        if cancelled:
            chain.cancel(signed(shop.payment()))
        await shop.until(lambda: shop.payment().state is PaymentState.VOID)
        assert (shop.clock.now() - began < 100) is cancelled
        assert shop.session(shop.payment().session_id).state == "failed"
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("state", ["rejected", "void"])
async def test_money_that_arrives_on_what_was_given_up_goes_back(
    autojump_clock: object, nursery: trio.Nursery, state: str
) -> None:
    chain, rpc = chain_and_evidence()
    async with open_shop(evidence=rpc, refund_key=KEY) as shop:
        nursery.start_soon(mine, chain, shop)
        settle_on(chain, shop)
        shop.facilitator.verify_faults.append("not_sent")
        await shop.buy(shop.purchase())
        assert shop.payment().state is PaymentState.REJECTED
        if state == "void":
            paid = shop.payment().id
            shop.read(lambda c: c.exec_driver_sql("UPDATE payments SET state = 'void' WHERE id = ?", (paid,)).rowcount)
        transaction = chain.transfer(signed(shop.payment()))
        await shop.until(lambda: shop.payment().state is PaymentState.REFUNDED)
        assert shop.payment().transaction_hash == transaction
        (back,) = shop.facilitator.settled.values()
        assert (back.payer, back.pay_to, back.value) == (KEY.address, builders.PAYER, 100_000)
    nursery.cancel_scope.cancel()


async def test_a_given_up_payment_is_watched_until_it_has_expired_in_chain_time(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    chain, rpc = chain_and_evidence()
    async with open_shop(evidence=rpc) as shop:
        shop.facilitator.verify_faults.append("not_sent")
        await shop.buy(shop.purchase())
        keep_time(chain, shop)
        await trio.sleep(600)  # the chain stands still
        assert shop.payment().next_attempt_at is not None
        nursery.start_soon(mine, chain, shop)
        await shop.until(lambda: shop.payment().next_attempt_at is None)
        assert shop.payment().state is PaymentState.REJECTED
    nursery.cancel_scope.cancel()


async def test_a_settlement_that_is_reorganised_away_is_settled_again(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    chain, rpc = chain_and_evidence(confirmations=30)
    async with open_shop(evidence=rpc) as shop:
        nursery.start_soon(mine, chain, shop)
        settle_on(chain, shop)
        await shop.buy(shop.purchase())
        assert shop.payment().state is PaymentState.SETTLED
        await trio.sleep(20)
        chain.reorganise()
        await shop.until(lambda: shop.facilitator.settlements > 1)  # by the same payload
        assert shop.payment().state is PaymentState.UNKNOWN
        assert shop.facilitator.transfers == 1
        chain.transfer(signed(shop.payment()))
        await shop.until(lambda: shop.payment().state is PaymentState.SETTLED)
        assert shop.session(shop.payment().session_id).state == "provisioning"
        await shop.until(lambda: shop.payment().next_attempt_at is None)
    nursery.cancel_scope.cancel()


async def test_a_refund_waits_until_the_payment_is_final_and_the_chain_confirms_it(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    chain, rpc = chain_and_evidence()
    async with open_shop(evidence=rpc, refund_key=KEY) as shop:
        keep_time(chain, shop)
        settle_on(chain, shop)
        await shop.buy(shop.purchase())
        session_id, now = shop.payment().session_id, ClockInstants(shop.clock).now()
        terms = RefundTerms(0.0, 60.0, 0)

        def finish(connection: Any) -> None:
            sessions.records.transition(connection, session_id, SessionEvent.END, now)
            sessions.records.transition(connection, session_id, SessionEvent.DESTROYED, now)
            refunds.settle_up(connection, session_id, terms, now)

        shop.read(finish)
        await shop.until(lambda: shop.refunds()[0].answer == "payment_not_final_yet")
        shop.facilitator.settle_faults.extend(["lost_before"] * 1_000)  # from now on only the chain tells
        nursery.start_soon(mine, chain, shop)
        await shop.until(lambda: shop.refunds()[0].state == "refunding")
        refund = shop.refunds()[0]
        assert refund.sender == KEY.address
        back = builders.authorization().__class__(refund.sender, refund.address, refund.amount, 0, 0, refund.nonce)
        transaction = chain.transfer(back)
        await shop.until(lambda: shop.payment().state is PaymentState.REFUNDED)
        assert shop.refunds()[0].transaction_hash == transaction
    nursery.cancel_scope.cancel()


async def test_a_success_that_the_chain_does_not_know_delivers_nothing(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    chain, rpc = chain_and_evidence()
    async with open_shop(evidence=rpc) as shop:
        nursery.start_soon(mine, chain, shop)
        answer = await shop.buy(shop.purchase())
        assert type(answer).__name__ == "StillPending"
        assert shop.facilitator.settlements >= 1  # each of them a success with a well-formed transaction
        assert shop.payment().reason == "success_but_unused"
        assert shop.session(shop.payment().session_id).state == "payment_pending"
        await shop.until(lambda: shop.payment().state is PaymentState.VOID)
    nursery.cancel_scope.cancel()


async def test_payments_that_share_a_transaction_are_each_proven_by_their_own_authorization(
    autojump_clock: object,
) -> None:
    chain, rpc = chain_and_evidence()
    first, second, third = (builders.authorization(text) for text in ("first", "second", "third"))
    batch = [log for one in (first, second) for log in chain.used_and_moved(one)]
    transaction = chain.transact([first, second], *batch)
    for text in ("first", "second"):
        assert await rpc.look(asked(text)) == Paid(transaction, final=False)
    assert isinstance(await rpc.look(asked("third")), Unused)
    assert third.nonce.hex() not in chain.used


async def test_a_refund_that_only_the_facilitator_calls_paid_is_not_paid(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    chain, rpc = chain_and_evidence()
    async with open_shop(evidence=rpc, refund_key=KEY) as shop:
        nursery.start_soon(mine, chain, shop)
        settle_on(chain, shop)
        await shop.buy(shop.purchase())
        shop.facilitator.passing = lambda point: None  # from now on it settles nothing and says it did
        now, payment_id = ClockInstants(shop.clock).now(), shop.payment().id
        shop.read(lambda connection: records.mark_refund_due(connection, payment_id, "lost", now))
        await shop.until(lambda: shop.refunds()[0].attempts >= 2)
        assert shop.refunds()[0].state is RefundState.REFUNDING
        settle_on(chain, shop)
        await shop.until(lambda: shop.payment().state is PaymentState.REFUNDED)
    nursery.cancel_scope.cancel()


def test_a_refund_is_signed_again_only_when_the_chain_says_that_it_expired() -> None:
    paid = builders.payment()
    refund = Refund(
        paid.id, 1, RefundState.REFUNDING, paid.payer, 7, b"n" * 32, "why", None, 0.0, 0.0, valid_before=1_000
    )
    found = [evidence.after_look(refund, one) for one in (*ALL, Unused(999), Unused(1_000))]
    assert found == [Next.WAIT, Next.CONFIRM, Next.WAIT, Next.WAIT, None, None, Next.RESIGN]
    unsigned = msgspec.structs.replace(refund, valid_before=None)
    assert evidence.after_look(unsigned, Unused(1_000)) is None
