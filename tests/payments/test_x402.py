"""The wire codec: every spelling of a payment is one payment or none."""

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.payments import x402
from engram.payments.errors import MalformedPayment, PaymentError, UnprovenReceipt
from engram.payments.model import Payload
from engram.payments.networks import BASE, PLAY
from tests.payments import builders


def as_header(document: object) -> str:
    return base64.b64encode(json.dumps(document).encode()).decode()


def document(**changes: Any) -> dict[str, Any]:
    signed = builders.payload()
    plain: dict[str, Any] = json.loads(
        json.dumps(x402.payload_json(signed.authorization, signed.signature, builders.requirements()))
    )
    return plain | changes


def signed_part(**changes: Any) -> dict[str, Any]:
    body = document()
    body["payload"]["authorization"] |= changes
    return body


def test_what_we_write_we_read_back() -> None:
    assert x402.decode_payload(as_header(document())) == builders.payload()


def test_a_version_1_header_is_read_without_accepted_terms() -> None:
    body = {"x402Version": 1, "scheme": "exact", "network": "engram-play", "payload": document()["payload"]}
    found = x402.decode_payload(as_header(body))
    assert (found.version, found.accepted, found.network) == (1, None, "engram-play")
    assert found.authorization == builders.authorization()


def test_upper_case_hex_is_the_same_payment() -> None:
    body = document()
    for place, key in (
        (body["payload"], "signature"),
        (body["payload"]["authorization"], "nonce"),
        (body["payload"]["authorization"], "from"),
        (body["accepted"], "asset"),
    ):
        place[key] = "0x" + place[key][2:].upper()
    assert x402.decode_payload(as_header(body)) == builders.payload()


def test_a_recovery_id_of_0_or_1_is_the_same_signature_as_27_or_28() -> None:
    body = document()
    text: str = body["payload"]["signature"]
    body["payload"]["signature"] = text[:-2] + f"{int(text[-2:], 16) - 27:02x}"
    assert x402.decode_payload(as_header(body)) == builders.payload()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "not base64!",
        as_header(document()).rstrip("=") + "\n",
        as_header(document())[:-1],
        as_header(document()).replace("=", "") + "====",
        "é" * 8,
        as_header([]),
        as_header("text"),
        as_header(None),
        base64.b64encode(b'{"x402Version":2,"x402Version":2}').decode(),
        base64.b64encode(b'{"x402Version":NaN}').decode(),
        base64.b64encode(b"[" * 5000).decode(),
        base64.b64encode(b'{"x402Version":' + b"9" * 5000 + b"}").decode(),
        base64.b64encode(b"\xff\xfe\xff").decode(),
        as_header(document(x402Version=3)),
        as_header(document(x402Version=True)),
        as_header(document(x402Version="2")),
        as_header(document(accepted=None)),
        as_header(document(payload=[])),
        as_header(document(payload={"signature": "0x00"})),
        as_header(document(extension="x" * 8192)),
        as_header(signed_part(value="200_000")),
        as_header(signed_part(value="+1")),
        as_header(signed_part(value="01")),
        as_header(signed_part(value=" 1")),
        as_header(signed_part(value="1\n")),
        as_header(signed_part(value="٣")),
        as_header(signed_part(value="1e5")),
        as_header(signed_part(value=100_000)),
        as_header(signed_part(value=str(2**256))),
        as_header(signed_part(nonce="0x" + "0" * 63)),
        as_header(signed_part(nonce="0x" + "0" * 65)),
        as_header(signed_part(nonce="0" * 66)),
        as_header(signed_part(nonce="0x" + "g" * 64)),
        as_header(signed_part(to="vitalik.eth")),
        as_header({**signed_part(), "accepted": {**document()["accepted"], "maxTimeoutSeconds": 0}}),
        as_header({**signed_part(), "accepted": {**document()["accepted"], "maxTimeoutSeconds": "120"}}),
        as_header({**document(), "payload": {**document()["payload"], "signature": "0x" + "00" * 96}}),
    ],
)
def test_a_header_that_is_no_payment_is_refused(header: str) -> None:
    with pytest.raises(MalformedPayment):
        x402.decode_payload(header)


@pytest.mark.parametrize(
    "receipt",
    [
        {"txHash": "0x" + "ab" * 32, "network": "base"},
        {"txHash": "0x" + "00" * 32, "amount": "1", "network": "base", "timestamp": 1, "devMode": True},
        {"devMode": True},
    ],
)
def test_a_bare_receipt_proves_nothing(receipt: dict[str, object]) -> None:
    with pytest.raises(UnprovenReceipt, match="proves no payment"):
        x402.decode_payload(as_header(receipt))


def test_a_payment_is_found_under_either_header_name_in_any_case() -> None:
    value = as_header(document()).encode()
    for name in (b"PAYMENT-SIGNATURE", b"payment-signature", b"X-Payment", b"x-PAYMENT"):
        assert x402.find_payload([(b"host", b"x"), (name, value)]) == builders.payload()
    assert x402.find_payload([(b"x-payment-network", value)]) is None


def test_two_payment_headers_are_refused() -> None:
    value = as_header(document()).encode()
    with pytest.raises(MalformedPayment, match="more than one"):
        x402.find_payload([(b"payment-signature", value), (b"x-payment", value)])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.one_of(st.text(), st.binary().map(lambda raw: base64.b64encode(raw).decode())))
def test_garbage_raises_nothing_but_our_error(text: str) -> None:
    with contextlib.suppress(PaymentError):
        x402.decode_payload(text)


@given(st.data())
def test_a_payment_with_any_field_replaced_raises_nothing_but_our_error(data: st.DataObject) -> None:
    body = document()
    places = [body, body["accepted"], body["accepted"]["extra"], body["payload"], body["payload"]["authorization"]]
    place = data.draw(st.sampled_from(places))
    key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(json_values)
    try:
        found = x402.decode_payload(as_header(body))
    except PaymentError:
        return
    assert isinstance(found, Payload)


@given(
    st.integers(0, 2**256 - 1), st.integers(0, 2**256 - 1), st.binary(min_size=32, max_size=32), st.integers(0, 10**12)
)
def test_every_authorization_survives_the_wire(value: int, before: int, nonce: bytes, after: int) -> None:
    signed = builders.authorization(value=value, valid_before=before, valid_after=after, nonce=nonce)
    wanted = builders.requirements()
    header = x402.encode_payload(x402.payload_json(signed, bytes(64) + b"\x1b", wanted))
    assert x402.decode_payload(header).authorization == signed


def test_the_challenge_names_the_price_exactly() -> None:
    headers = dict(x402.challenge(builders.quote(259_200_001, BASE)).headers)
    assert headers["X-Payment-Amount-USD"] == "259.200001"
    assert headers["X-Payment-Network"] == "base"
    assert headers["WWW-Authenticate"] == (
        'x402 scheme="exact" network="base" amount="259200001" token="USDC" '
        'recipient="0x1111111111111111111111111111111111111111" resource="/sessions" version="1"'
    )
    assert headers["Cache-Control"] == "no-store"


def test_a_challenge_is_read_back_as_the_requirements_it_was_made_of() -> None:
    header = dict(x402.challenge(builders.quote()).headers)["PAYMENT-REQUIRED"]
    assert x402.decode_challenge(header) == [builders.requirements()]


def test_offers_of_other_schemes_networks_and_tokens_are_skipped() -> None:
    offer = x402.requirements_json(builders.requirements())
    strange: list[dict[str, Any]] = [
        {**offer, "scheme": "upto"},
        {**offer, "network": "solana:x"},
        {**offer, "asset": "0x" + "22" * 20},
        {**offer, "extra": {"name": "USD Coin", "version": "2"}},
    ]
    header = as_header({"x402Version": 2, "accepts": [*strange, offer]})
    assert x402.decode_challenge(header) == [builders.requirements()]
    with pytest.raises(MalformedPayment):
        x402.decode_challenge(as_header({"x402Version": 2}))


def test_only_a_settled_payment_has_a_receipt() -> None:
    assert x402.receipt_headers(builders.payment()) == ()
    settled = builders.payment(settled_at=1.0, transaction_hash="0x" + "ab" * 32)
    (name, value), (old_name, old_value) = x402.receipt_headers(settled)
    assert (name, old_name) == ("PAYMENT-RESPONSE", "X-PAYMENT-RESPONSE")
    told = json.loads(base64.b64decode(value))
    assert json.loads(base64.b64decode(old_value)) == told | {"network": PLAY.v1_name}
    assert json.loads(base64.b64decode(value)) == {
        "success": True,
        "transaction": "0x" + "ab" * 32,
        "network": PLAY.caip2,
        "payer": "0x" + settled.payer.hex(),
        "amount": "100000",
    } | {"payer": json.loads(base64.b64decode(value))["payer"]}


def test_payloads_and_payments_keep_their_signatures_out_of_their_reprs() -> None:
    signed = builders.payload()
    for text in (repr(signed), repr(builders.payment())):
        assert signed.signature.hex()[:16] not in text
        assert "payload=" not in text
