"""A house of so many places, and more buyers than that."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.evm import node
from tests.evm.conftest import PLACES
from tests.evm.shop import Shop
from tests.evm.wallet import FUNDS, EvmBuyer

pytestmark = [node.needs_node, pytest.mark.xdist_group("evm")]
PRICE = 100_000
BUYERS = 4 * PLACES


def test_of_many_buyers_at_once_as_many_pay_as_there_are_places(small: Shop) -> None:
    buyers = [EvmBuyer(small.chain) for _ in range(BUYERS)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda buyer: buyer.quote(small.url), buyers))
    at_once = threading.Barrier(BUYERS)

    def buy(buyer: EvmBuyer) -> tuple[int, str]:
        at_once.wait(30)
        answer = buyer.pay(small.url)
        return answer.status, str(answer.body.get("session_id"))

    with ThreadPoolExecutor(BUYERS) as pool:
        answers = list(pool.map(buy, buyers))
    assert {status for status, _ in answers} <= {202, 402, 503}
    assert sum(status == 202 for status, _ in answers) <= PLACES
    # A purchase that the facilitator was too slow for held its place while others were refused: they try again.
    for number, buyer in enumerate(buyers):
        if answers[number][0] == 503 and sum(status == 202 for status, _ in answers) < PLACES:
            again = buyer.pay(small.url)
            answers[number] = again.status, str(again.body.get("session_id"))
    paid = [number for number, (status, _) in enumerate(answers) if status == 202]
    assert len(paid) == PLACES
    for number, buyer in enumerate(buyers):
        assert buyer.balance == (FUNDS - PRICE if number in paid else FUNDS)
    assert sum(FUNDS - buyer.balance for buyer in buyers) == PLACES * PRICE
    for number in paid:
        buyers[number].stop(small.url, answers[number][1])
    for number in paid:
        buyers[number].wait(small.url, answers[number][1], "stopped")
