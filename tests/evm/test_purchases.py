"""Buying with real balances: by x402's own clients, in a race, and with payments that must not be taken."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.evm import node
from tests.evm.shop import RECIPIENT, Shop
from tests.evm.wallet import FUNDS, EvmBuyer, OfficialBuyer

pytestmark = [node.needs_node, pytest.mark.xdist_group("evm")]
PRICE = 100_000


@pytest.mark.parametrize("client", ["python", "typescript"])
def test_an_official_client_buys_a_node_and_the_money_moves_once(shop: Shop, client: str) -> None:
    buyer = OfficialBuyer(shop.chain)
    taken = shop.taken()
    answer = buyer.buy_with_python(shop.url) if client == "python" else buyer.buy_with_typescript(shop.url)
    assert answer.status == 202, answer
    session_id = str(answer.body["session_id"])
    assert buyer.balance == FUNDS - PRICE
    assert shop.taken() == taken + PRICE
    assert shop.chain.transfers(buyer.evm.address, RECIPIENT) == [PRICE]
    assert answer.headers["payment-response"]
    buyer.wait(shop.url, session_id, "active")
    buyer.stop(shop.url, session_id)


def test_fifty_racing_posts_of_one_payment_are_one_transfer(shop: Shop) -> None:
    buyer = EvmBuyer(shop.chain)
    buyer.quote(shop.url)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: buyer.pay(shop.url), range(50)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.body["session_id"] for answer in answers}) == 1
    assert shop.chain.transfers(buyer.evm.address, RECIPIENT) == [PRICE]
    buyer.stop(shop.url, str(answers[0].body["session_id"]))
