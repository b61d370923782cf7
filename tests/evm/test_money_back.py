"""Money that bought nothing goes back to its payer on the chain, once."""

import threading
import urllib.request

import pytest

from tests.e2e.buyer import Answer
from tests.evm import node
from tests.evm.early import Early
from tests.evm.shop import RECIPIENT, REFUNDER, Shop, wait_until
from tests.evm.wallet import FUNDS, EvmBuyer
from tests.evm.wire import Answer as Wired
from tests.evm.wire import Forward, once

pytestmark = [node.needs_node, pytest.mark.xdist_group("evm")]
PRICE = 100_000


def test_a_session_stopped_while_its_payment_settles_is_paid_back(shop: Shop) -> None:
    buyer = EvmBuyer(shop.chain)
    buyer.quote(shop.url)
    reached, go_on = threading.Event(), threading.Event()

    def held(request: dict[str, object], forward: Forward) -> Wired:
        reached.set()
        assert go_on.wait(10)
        return forward()

    shop.wire.faults["/settle"] = once(held)
    answers: list[Answer] = []
    paying = threading.Thread(target=lambda: answers.append(buyer.pay(shop.url)))
    paying.start()
    assert reached.wait(10)
    (session,) = buyer.sessions(shop.url)
    assert buyer.stop(shop.url, session["session_id"]).status == 200
    go_on.set()
    paying.join(20)
    shop.chain.mine(2)  # nothing is given back of what the chain might still take away
    assert shop.chain.transfers(buyer.evm.address, RECIPIENT) == [PRICE]
    wait_until(lambda: buyer.balance, FUNDS)
    assert shop.chain.transfers(REFUNDER, buyer.evm.address) == [PRICE]
    assert answers[0].status in (202, 409, 503), answers
    buyer.wait(shop.url, session["session_id"], "stopped")


def test_a_refund_whose_answer_is_lost_is_paid_once(shop: Shop) -> None:
    buyer = EvmBuyer(shop.chain)
    buyer.quote(shop.url)
    bought = buyer.pay(shop.url)
    assert bought.status == 202, bought
    shop.chain.mine(2)
    lost = threading.Event()

    def unanswered(request: dict[str, object], forward: Forward) -> Wired | None:
        forward()
        lost.set()
        return None

    shop.wire.faults["/settle"] = once(unanswered)
    buyer.stop(shop.url, str(bought.body["session_id"]))
    assert lost.wait(20)
    shop.chain.mine(2)
    payment_id = str(bought.body["payment_id"])
    wait_until(lambda: buyer.payment_of(shop.url, payment_id)["status"], "refunded", 30.0)
    assert shop.chain.transfers(REFUNDER, buyer.evm.address) == [PRICE]
    assert buyer.balance == FUNDS
    with urllib.request.urlopen(f"{shop.gateway.ops_url}/metrics") as metrics:
        told = dict(line.rsplit(" ", 1) for line in metrics.read().decode().splitlines() if line[0] != "#")
    parts = float(told['engram_refunds{state="refunded"}'])
    assert parts >= 1
    assert round(float(told['engram_refunds_usd{state="refunded"}']) * 1_000_000) == parts * PRICE


def test_money_that_comes_on_a_refused_authorization_goes_back(shop: Shop, early: Early) -> None:
    buyer = early.arrived
    wait_until(lambda: buyer.balance, PRICE, 40.0)
    assert shop.chain.transfers(REFUNDER, buyer.evm.address) == [PRICE]
    assert all(session["status"] == "failed" for session in buyer.sessions(shop.url))


def test_a_payment_whose_block_is_taken_back_is_settled_again(shop: Shop, early: Early) -> None:
    buyer = early.reorganised
    wait_until(lambda: shop.chain.transfers(buyer.evm.address, RECIPIENT), [PRICE], 40.0)
    shop.chain.mine(3)
    wait_until(lambda: buyer.payment_of(shop.url, early.reorganised_payment)["status"], "settled", 20.0)
    assert buyer.balance == FUNDS - PRICE
    for session in buyer.sessions(shop.url):
        buyer.stop(shop.url, session["session_id"])
