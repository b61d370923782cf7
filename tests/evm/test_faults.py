"""Whatever happens between us, the facilitator and the chain: the chain says what was paid, and we come to the same."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.buyer import Answer
from tests.evm import node, wire
from tests.evm.chain import NETWORK
from tests.evm.early import Early
from tests.evm.shop import RECIPIENT, SETTLER, Shop, wait_until
from tests.evm.wallet import FUNDS, EvmBuyer
from tests.evm.wire import Fault, Forward, after, answers, cut, late_by, once, stall

pytestmark = [node.needs_node, pytest.mark.xdist_group("evm")]
PRICE = 100_000
FOREIGN = "0x" + "ab" * 32


def success(request: dict[str, Any], **changes: object) -> Fault:
    payer = request["paymentPayload"]["payload"]["authorization"]["from"]
    return answers(200, {"success": True, "transaction": FOREIGN, "network": NETWORK.caip2, "payer": payer} | changes)


def success_unseen(request: dict[str, Any], forward: Forward) -> wire.Answer | None:
    """Nothing is done, and a success with a transaction of nobody's is told."""
    return success(request)(request, forward)


def success_of_another(request: dict[str, Any], forward: Forward) -> wire.Answer | None:
    """Nothing is done, and a success of another payer is told."""
    return success(request, payer="0x" + "44" * 20)(request, forward)


FAULTS: dict[str, Fault] = {
    "cut before": cut,
    "cut after": after(cut),
    "500 before": answers(500, {"error": "down"}),
    "500 after": after(answers(500, {"error": "down"})),
    "30 s before": late_by(30.0),
    "504 after": after(answers(504, b"<html>gateway timeout</html>")),
    "429 before": answers(429, {"error": "too many requests"}),
    "stall before": stall(4.0),
    "stall after": after(stall(4.0)),
    "pending after": after(answers(200, {"success": False, "errorReason": "settlement_pending", "transaction": ""})),
    "success without transaction": after(answers(200, {"success": True, "transaction": "", "network": NETWORK.caip2})),
    "success never seen on the chain": success_unseen,
    "success misnamed": after(success_unseen),
    "success of another payer": success_of_another,
    "success elsewhere": after(answers(200, {"success": True, "transaction": FOREIGN, "network": "eip155:1"})),
    "failure with a transaction": after(
        answers(200, {"success": False, "errorReason": "transaction_failed", "transaction": FOREIGN})
    ),
    "garbage after": after(answers(200, b"\x00{[nonsense")),
}


def status(shop: Shop, buyer: EvmBuyer, answer: Answer) -> str:
    return str(buyer.payment_of(shop.url, str(answer.body["payment_id"]))["status"])


def settled(shop: Shop, buyer: EvmBuyer, answer: Answer, *, final: str = "settled", timeout: float = 30.0) -> None:
    wait_until(lambda: status(shop, buyer, answer), final, timeout)


def test_no_fault_of_the_facilitator_costs_a_buyer_twice_or_is_told_as_a_failure(shop: Shop) -> None:
    def buy(name: str) -> tuple[str, EvmBuyer, Answer]:
        buyer = EvmBuyer(shop.chain)
        buyer.quote(shop.url)
        shop.wire.payments[buyer.evm.authorization["nonce"]] = once(FAULTS[name])
        return name, buyer, buyer.pay(shop.url)

    with ThreadPoolExecutor(len(FAULTS)) as pool:
        bought = list(pool.map(buy, FAULTS))
    for name, _, answer in bought:
        assert (name, answer.status, "payment-required" in answer.headers) == (name, 202, False)
    for name, buyer, answer in bought:
        settled(shop, buyer, answer)
        assert (name, shop.chain.transfers(buyer.evm.address, RECIPIENT)) == (name, [PRICE])
        again = buyer.pay(shop.url)
        assert (name, again.status, again.body["session_id"]) == (name, 202, answer.body["session_id"])
        buyer.stop(shop.url, str(answer.body["session_id"]))


VERDICTS: dict[str, Fault] = {
    "cut": cut,
    "500": answers(500, {"error": "down"}),
    "429": answers(429, {"error": "too many requests"}),
    "stall": stall(4.0),
    "garbage": answers(200, b"\x00{[nonsense"),
    "valid for another": answers(200, {"isValid": True, "payer": "0x" + "44" * 20}),
    "used, which it is not": answers(200, {"isValid": False, "invalidReason": "invalid_exact_evm_nonce_already_used"}),
}


def test_no_fault_of_a_verification_is_told_as_a_refusal_and_the_same_payment_buys_later(shop: Shop) -> None:
    def buy(name: str) -> tuple[str, EvmBuyer, Answer]:
        buyer = EvmBuyer(shop.chain)
        buyer.quote(shop.url)
        shop.wire.verdicts[buyer.evm.authorization["nonce"]] = once(VERDICTS[name])
        return name, buyer, buyer.pay(shop.url)

    with ThreadPoolExecutor(len(VERDICTS)) as pool:
        told = list(pool.map(buy, VERDICTS))
    for name, buyer, answer in told:
        assert (name, answer.status, "payment-required" in answer.headers) == (name, 503, False)
        assert int(answer.headers["retry-after"]) > 0
        assert buyer.balance == FUNDS
        again = buyer.pay(shop.url)
        assert (name, again.status) == (name, 202), again
        assert shop.chain.transfers(buyer.evm.address, RECIPIENT) == [PRICE]
        buyer.stop(shop.url, str(again.body["session_id"]))


@pytest.mark.parametrize("call", ["/verify", "/settle"])
def test_a_facilitator_that_refuses_connections_took_nothing_and_the_buyer_is_not_asked_anew(
    shop: Shop, call: str
) -> None:
    buyer = EvmBuyer(shop.chain)
    buyer.quote(shop.url)

    def verified(request: dict[str, Any], forward: Forward) -> wire.Answer:
        answer = forward()
        shop.wire.close()
        return answer

    if call == "/verify":
        shop.wire.close()
    else:
        shop.wire.verdicts[buyer.evm.authorization["nonce"]] = verified
    answer = buyer.pay(shop.url)
    assert (answer.status, "payment-required" in answer.headers) == (503, False), answer
    assert buyer.balance == FUNDS
    shop.wire.verdicts.clear()
    shop.wire.open()
    again = buyer.pay(shop.url)
    assert again.status == 202, again
    assert shop.chain.transfers(buyer.evm.address, RECIPIENT) == [PRICE]
    buyer.stop(shop.url, str(again.body["session_id"]))


def test_money_that_the_facilitator_took_and_called_refused_is_a_purchase(shop: Shop, early: Early) -> None:
    buyer, answer = early.refused
    assert (answer.status, "payment-required" in answer.headers) == (202, False)
    assert status(shop, buyer, answer) == "settled"
    assert shop.chain.transfers(buyer.evm.address, RECIPIENT) == [PRICE]
    buyer.stop(shop.url, str(answer.body["session_id"]))


def test_an_authorization_cancelled_between_verify_and_settle_buys_nothing(shop: Shop) -> None:
    buyer = EvmBuyer(shop.chain)
    buyer.quote(shop.url)

    def cancelled(request: dict[str, Any], forward: Forward) -> wire.Answer:
        shop.chain.cancel(buyer.evm.secret, buyer.evm.nonce)
        return forward()

    shop.wire.faults["/settle"] = once(cancelled)
    buyer.pay(shop.url)
    wait_until(lambda: buyer.pay(shop.url).status, 402, 30.0)
    assert buyer.balance == FUNDS
    assert [session["status"] for session in buyer.sessions(shop.url)] in ([], ["failed"])
    assert buyer.quote(shop.url).status == 402
    shop.wire.mend()
    bought = buyer.pay(shop.url)
    assert bought.status == 202, bought
    assert shop.chain.transfers(buyer.evm.address, RECIPIENT) == [PRICE]
    buyer.stop(shop.url, str(bought.body["session_id"]))


def test_a_payment_that_a_stranger_submitted_first_counts_as_paid(shop: Shop) -> None:
    buyer = EvmBuyer(shop.chain)
    buyer.quote(shop.url)

    def overtaken(request: dict[str, Any], forward: Forward) -> wire.Answer:
        shop.chain.submit(buyer.evm.authorization, buyer.evm.signature)
        return forward()

    shop.wire.faults["/settle"] = once(overtaken)
    answer = buyer.pay(shop.url)
    assert answer.status == 202, answer
    settled(shop, buyer, answer)
    assert shop.chain.transfers(buyer.evm.address, RECIPIENT) == [PRICE]
    buyer.stop(shop.url, str(answer.body["session_id"]))


def test_a_payment_that_a_stranger_submitted_before_we_saw_it_counts_as_paid(shop: Shop) -> None:
    buyer = EvmBuyer(shop.chain, funds=PRICE)
    buyer.quote(shop.url)
    shop.chain.submit(buyer.evm.authorization, buyer.evm.signature)
    answer = buyer.pay(shop.url)
    assert answer.status == 202, answer
    settled(shop, buyer, answer)
    assert shop.chain.transfers(buyer.evm.address, RECIPIENT) == [PRICE]
    buyer.stop(shop.url, str(answer.body["session_id"]))


def test_a_facilitator_killed_while_it_settles_leaves_the_payment_to_the_chain(shop: Shop) -> None:
    buyer = EvmBuyer(shop.chain)
    buyer.quote(shop.url)
    shop.chain.automine(False)
    answers: list[Answer] = []
    paying = threading.Thread(target=lambda: answers.append(buyer.pay(shop.url)))
    paying.start()
    wait_until(lambda: shop.chain.pending(SETTLER), 1)
    shop.facilitator.kill()
    paying.join(20)
    (answer,) = answers
    assert answer.status == 202, answer
    assert status(shop, buyer, answer) in ("unknown", "settling")
    shop.chain.automine(True)
    shop.chain.mine()
    shop.facilitator.start()
    settled(shop, buyer, answer)
    assert shop.chain.transfers(buyer.evm.address, RECIPIENT) == [PRICE]
    buyer.stop(shop.url, str(answer.body["session_id"]))


def test_an_authorization_that_expires_while_it_is_settled_is_void_once_the_chain_is_past_it(
    shop: Shop, early: Early
) -> None:
    answer = early.late_answer()
    assert answer.status == 202, answer
    shop.chain.mine(3)
    assert shop.chain.now() > early.due
    settled(shop, early.late, answer, final="void")
    assert early.late.balance == FUNDS
    assert early.late.pay(shop.url).status == 402
