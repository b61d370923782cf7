"""Purchases that take long to come to their end: begun when the house opens, looked at when other tests are done."""

import threading
import time

from tests.e2e.buyer import Answer
from tests.evm.shop import RECIPIENT, Shop
from tests.evm.wallet import FUNDS, EvmBuyer
from tests.evm.wire import Answer as Wired
from tests.evm.wire import Forward, after, answers, once

PRICE = 100_000
CHAIN_AHEAD_S = 70
"""A minute after it was settled, a payment that the chain does not know is missed."""
SHORT_S = 8


class Early:
    """The buyers, each as far as it got."""

    def __init__(self, shop: Shop) -> None:
        self.reorganised, self.reorganised_payment = _reorganised(shop)
        self.arrived = _arrived(shop)
        self.refused = _refused(shop)
        self.late, self.due, self._paying, self._answers = _late(shop)

    def late_answer(self) -> Answer:
        """What the late buyer was told."""
        self.join()
        return self._answers[0]

    def join(self) -> None:
        """Wait for the late buyer, who needs the house."""
        self._paying.join(30)


def _reorganised(shop: Shop) -> tuple[EvmBuyer, str]:
    """Its payment is settled, and then the chain takes the block back."""
    buyer, chain = EvmBuyer(shop.chain), shop.chain
    chain.mine(2)
    buyer.quote(shop.url)
    bought = buyer.pay(shop.url)
    assert bought.status == 202, bought
    shop.facilitator.kill()  # it counts its own transactions, and would wait for those that are gone
    chain.reorganise(1)
    assert chain.transfers(buyer.evm.address, RECIPIENT) == []
    assert buyer.balance == FUNDS
    chain.rpc("evm_increaseTime", CHAIN_AHEAD_S)
    chain.mine(3)
    shop.facilitator.start()
    return buyer, str(bought.body["payment_id"])


def _arrived(shop: Shop) -> EvmBuyer:
    """Refused for want of money; then there is money, and a stranger submits the authorization."""
    buyer = EvmBuyer(shop.chain, funds=0)
    buyer.quote(shop.url)
    assert buyer.pay(shop.url).status == 402
    shop.chain.mint(buyer.evm.address, PRICE)
    shop.chain.submit(buyer.evm.authorization, buyer.evm.signature)
    shop.chain.mine(3)
    assert buyer.balance == 0
    return buyer


def _refused(shop: Shop) -> tuple[EvmBuyer, Answer]:
    """The facilitator takes the money and says that it refused to."""
    buyer = EvmBuyer(shop.chain)
    buyer.quote(shop.url)
    lie = {"success": False, "errorReason": "insufficient_funds", "transaction": ""}
    shop.wire.payments[buyer.evm.authorization["nonce"]] = once(after(answers(200, lie)))
    return buyer, buyer.pay(shop.url)


def _late(shop: Shop) -> tuple[EvmBuyer, int, threading.Thread, list[Answer]]:
    """Its authorization expires between verify and settle."""
    buyer = EvmBuyer(shop.chain)
    due = int(time.time()) + CHAIN_AHEAD_S + SHORT_S
    buyer.evm.overrides = {"validBefore": str(due)}
    buyer.quote(shop.url)

    def late(request: dict[str, object], forward: Forward) -> Wired:
        time.sleep(max(0.0, due + 1 - CHAIN_AHEAD_S - time.time()))
        shop.chain.mine()
        return forward()

    shop.wire.payments[buyer.evm.authorization["nonce"]] = late
    answers: list[Answer] = []
    paying = threading.Thread(target=lambda: answers.append(buyer.pay(shop.url)))
    paying.start()
    return buyer, due, paying, answers
