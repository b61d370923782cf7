"""Payments that must not be taken on a real chain: nothing moves, and nothing is told to strangers."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from engram.hotkeys import Keypair
from tests.evm import node
from tests.evm.chain import NETWORK
from tests.evm.shop import RECIPIENT, Shop
from tests.evm.wallet import FUNDS, EvmBuyer

pytestmark = [node.needs_node, pytest.mark.xdist_group("evm")]
PRICE = 100_000


def soon(seconds: int) -> str:
    return str(int(time.time()) + seconds)


@pytest.mark.parametrize(
    ("signed", "offered"),
    [
        pytest.param({"validBefore": "1"}, {}, id="expired"),
        pytest.param({"validBefore": soon(100_000)}, {}, id="good for too long"),
        pytest.param({"validAfter": soon(1_000)}, {}, id="not valid yet"),
        pytest.param({"value": "99999"}, {}, id="underpaid"),
        pytest.param({"value": "100001"}, {}, id="overpaid"),
        pytest.param({"to": "0x" + "33" * 20}, {}, id="another payee"),
        pytest.param({"from": "0x" + "44" * 20}, {}, id="in another's name"),
        pytest.param({}, {"asset": "0x" + "55" * 20}, id="another token"),
        pytest.param({}, {"network": "eip155:8453"}, id="another network"),
        pytest.param({}, {"amount": "1"}, id="another price"),
    ],
)
def test_a_payment_that_does_not_hold_never_reaches_the_facilitator(
    shop: Shop, signed: dict[str, object], offered: dict[str, object]
) -> None:
    buyer = EvmBuyer(shop.chain)
    buyer.evm.overrides, buyer.evm.offer_overrides = signed, offered
    buyer.quote(shop.url)
    asked = len(shop.wire.requests)
    answer = buyer.pay(shop.url)
    assert answer.status == 402, answer
    assert [path for path in shop.wire.requests[asked:] if path != "/supported"] == []
    assert buyer.balance == FUNDS


def test_a_buyer_without_the_money_is_refused_before_anything_is_broadcast(shop: Shop) -> None:
    buyer = EvmBuyer(shop.chain, funds=PRICE - 1)
    buyer.quote(shop.url)
    asked = len(shop.wire.requests)
    answer = buyer.pay(shop.url)
    assert answer.status == 402, answer
    assert "/settle" not in shop.wire.requests[asked:]
    assert buyer.balance == PRICE - 1
    shop.chain.mint(buyer.evm.address, 1)
    again = buyer.pay(shop.url)
    assert again.status == 202, again  # nothing was broadcast: the same payment may be sent again
    assert buyer.balance == 0
    buyer.stop(shop.url, str(again.body["session_id"]))


def test_a_payment_in_another_spelling_is_the_same_payment(shop: Shop) -> None:
    buyer = EvmBuyer(shop.chain)
    buyer.quote(shop.url)
    first = buyer.pay(shop.url)
    assert first.status == 202, first
    session_id = str(first.body["session_id"])
    document = json.loads(base64.b64decode(buyer.payment["PAYMENT-SIGNATURE"]))
    for name, respell in SPELLINGS.items():
        buyer.payment = {"payment-signature": base64.b64encode(respell(document).encode()).decode()}
        answer = buyer.pay(shop.url)
        assert (name, answer.status, answer.body.get("session_id")) == (name, 202, session_id)
    thief = EvmBuyer(shop.chain, funds=0)
    thief.order, thief.payment = buyer.order, buyer.payment
    stolen = thief.pay(shop.url)
    assert (stolen.status, session_id in str(stolen.body)) == (409, False)
    buyer.keypair, original = Keypair.generate(), buyer.keypair
    assert buyer.pay(shop.url).status == 409
    buyer.keypair = original
    buyer.payment = {"PAYMENT-SIGNATURE": buyer.payment["payment-signature"].rstrip("=") + "=="}
    assert buyer.pay(shop.url).status in (202, 400)  # not canonical base64, unless it needs just this padding
    assert shop.chain.transfers(buyer.evm.address, RECIPIENT) == [PRICE]
    buyer.stop(shop.url, session_id)


def test_a_payment_buys_one_order_alone_and_no_more_time_of_it(shop: Shop) -> None:
    buyer = EvmBuyer(shop.chain)
    buyer.quote(shop.url)
    bought = buyer.pay(shop.url)
    assert bought.status == 202, bought
    session_id = str(bought.body["session_id"])
    ends_at = buyer.wait(shop.url, session_id, "active")["expires_at"]
    for order in ({"tier": "pro", "duration_hours": 1}, {"tier": "lite", "duration_hours": 2}):
        buyer.order = order
        other = buyer.pay(shop.url)
        assert (other.status, session_id in str(other.body), "payment-required" in other.headers) == (409, False, False)
    buyer.order = {"duration_hours": 1}
    longer = buyer.post(shop.url, f"/sessions/{session_id}/extend", buyer.payment)
    assert (longer.status, "payment-required" in longer.headers) == (409, False)
    assert len(buyer.sessions(shop.url)) == 1
    assert buyer.get(shop.url, session_id).body["expires_at"] == pytest.approx(ends_at, abs=1.0)
    assert shop.chain.transfers(buyer.evm.address, RECIPIENT) == [PRICE]
    buyer.stop(shop.url, session_id)


def upper(document: dict[str, Any]) -> str:
    changed = json.loads(json.dumps(document))
    signed = changed["payload"]
    signed["signature"] = "0x" + signed["signature"][2:].upper()
    signed["authorization"]["nonce"] = "0x" + signed["authorization"]["nonce"][2:].upper()
    signed["authorization"]["from"] = signed["authorization"]["from"].lower()
    return json.dumps(changed)


def version_1(document: dict[str, Any]) -> str:
    old = {"x402Version": 1, "scheme": "exact", "network": NETWORK.v1_name, "payload": document["payload"]}
    return json.dumps(old)


SPELLINGS: dict[str, Callable[[dict[str, Any]], str]] = {
    "hex case": upper,
    "order of keys": lambda document: json.dumps(dict(reversed(document.items()))),
    "white space": lambda document: json.dumps(document, indent=3),
    "version 1": version_1,
}


def test_of_two_authorizations_on_one_balance_one_is_paid_and_no_money_is_made_up(shop: Shop) -> None:
    buyer = EvmBuyer(shop.chain, funds=PRICE)
    buyer.quote(shop.url)
    first = dict(buyer.payment)
    buyer.quote(shop.url)
    second = dict(buyer.payment)
    buyer.payment = first
    bought = buyer.pay(shop.url)
    buyer.payment = second
    refused = buyer.pay(shop.url)
    assert (bought.status, refused.status) == (202, 402)
    assert shop.chain.transfers(buyer.evm.address, RECIPIENT) == [PRICE]
    buyer.stop(shop.url, str(bought.body["session_id"]))
