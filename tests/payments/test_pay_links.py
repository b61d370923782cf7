"""The rules of pay links: what a link is, where it is, and what no longer pays it."""

import base64
import hashlib

import msgspec
import pytest

from engram.hotkeys import Keypair
from engram.payments import pay_links, rules
from engram.payments.errors import MalformedPayment
from engram.payments.model import PaymentState
from engram.payments.pay_links import LinkState, PayLink
from tests.payments.builders import ALICE, NOW, RECIPIENT, payment

GATEWAY = Keypair.from_seed(hashlib.sha256(b"gateway").digest())
OTHER = Keypair.from_seed(hashlib.sha256(b"another gateway").digest())
LINK = PayLink(
    id="1f" * 16,
    controller=ALICE.hex(),
    tier="lite",
    hours=1.0,
    seconds=3_600.0,
    session_id=None,
    network="eip155:31337",
    amount=100_000,
    pay_to=RECIPIENT.hex(),
    expires_at=int(NOW) + pay_links.LIFETIME_S,
)
STATES = {
    None: LinkState.OPEN,
    PaymentState.RESERVED: LinkState.PENDING,
    PaymentState.SETTLING: LinkState.PENDING,
    PaymentState.UNKNOWN: LinkState.PENDING,
    PaymentState.SETTLED: LinkState.PAID,
    PaymentState.REFUND_DUE: LinkState.PAID,
    PaymentState.REFUNDING: LinkState.PAID,
    PaymentState.REFUNDED: LinkState.PAID,
}


def text_of(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def test_a_link_says_what_its_gateway_signed() -> None:
    text = pay_links.seal(LINK, GATEWAY)
    assert pay_links.read(text, GATEWAY.public_key) == LINK
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."), "it stands in a URL"
    assert len(text) < 700


def test_what_the_gateway_did_not_sign_is_no_link() -> None:
    text = pay_links.seal(LINK, GATEWAY)
    cheaper = pay_links.seal(msgspec.structs.replace(LINK, amount=1), OTHER)
    forged = f"{cheaper.partition('.')[0]}.{text.partition('.')[2]}"
    for given in (cheaper, forged):
        with pytest.raises(MalformedPayment, match="not made by this gateway"):
            pay_links.read(given, GATEWAY.public_key)


def test_garbage_is_no_link() -> None:
    whole = pay_links.seal(LINK, GATEWAY)
    for text in ("", ".", "a", "é.é", "x" * 3_000 + ".y", whole[:-1], whole + "A", "===.===", "AAAA.AAAA"):
        with pytest.raises(MalformedPayment):
            pay_links.read(text, GATEWAY.public_key)


def test_what_the_gateway_signed_for_another_end_is_no_link() -> None:
    content = msgspec.json.encode({"id": "x"})
    for signed_as in (b"engram-pay-link-1:", b"engram-gateway:"):
        text = ".".join(map(text_of, (content, GATEWAY.sign(signed_as + content))))
        with pytest.raises(MalformedPayment):
            pay_links.read(text, GATEWAY.public_key)


@pytest.mark.parametrize("found", STATES)
def test_a_link_is_open_until_a_payment_counts(found: PaymentState | None) -> None:
    counting = None if found is None else payment(state=found)
    assert pay_links.state(LINK, counting, NOW) is STATES[found]
    late = pay_links.state(LINK, counting, LINK.expires_at)
    assert late is (LinkState.EXPIRED if found is None else STATES[found])


def test_a_paid_block_that_was_reorganized_away_leaves_the_link_paid() -> None:
    assert pay_links.state(LINK, payment(state=PaymentState.UNKNOWN, settled_at=NOW), NOW) is LinkState.PAID


def test_of_two_payments_the_one_that_bought_something_counts() -> None:
    bought = payment("bought", state=PaymentState.SETTLED)
    returned = payment("returned", state=PaymentState.REFUNDED, created_at=NOW + 5)
    assert pay_links.counting([]) is None
    assert pay_links.counting([returned, bought]) == pay_links.counting([bought, returned]) == bought


def test_an_order_is_paid_until_its_time_is_over() -> None:
    assert pay_links.overdue(None, NOW) is None
    assert pay_links.overdue(NOW + 0.1, NOW) is None
    refused = pay_links.overdue(NOW, NOW)
    assert isinstance(refused, rules.Refusal)
    assert refused.reason == pay_links.EXPIRED


def test_no_buyer_can_choose_a_links_identifier() -> None:
    assert pay_links.is_link(LINK.identifier)
    assert not pay_links.is_link(None)
    assert not pay_links.is_link("purchase_0123456789")
