"""The official Python package `x402` as the other side: it reads what we write, and we take what it signs."""

import base64
import time
from typing import Any

import httpx
import msgspec
import pytest
from eth_account import Account

from engram.ledger import open_inline
from engram.payments import rules, x402
from engram.payments.errors import MalformedPayment, NotForPlay
from engram.payments.networks import BASE, BASE_SEPOLIA, PLAY, Network
from engram.payments.play_wallet import PlayWallet
from tests.facilitator.running import facilitator_url
from tests.fakes.official_x402 import (
    FacilitatorConfig,
    HTTPFacilitatorClient,
    PaymentPayload,
    PaymentPayloadV1,
    PaymentRequired,
    PaymentRequiredV1,
    PaymentRequirements,
    SettleResponse,
    buyer,
)
from tests.payments import builders

ACCOUNT = Account.from_key(builders.KEY.secret)


def required(network: Network) -> tuple[dict[str, str], dict[str, Any]]:
    """Headers and body of our 402."""
    challenge = x402.challenge(builders.quote(network=network))
    return dict(challenge.headers), {"error": "Payment required", "code": "payment_required", **challenge.fields}


@pytest.mark.parametrize("network", [PLAY, BASE, BASE_SEPOLIA])
def test_the_package_reads_both_forms_of_our_402(network: Network) -> None:
    headers, body = required(network)
    v2 = PaymentRequired.model_validate_json(base64.b64decode(headers["PAYMENT-REQUIRED"]))
    (offer,) = v2.accepts
    assert (offer.network, offer.amount, offer.max_timeout_seconds) == (network.caip2, "100000", 120)
    assert offer.extra is not None
    assert (offer.extra["paymentFlow"], offer.extra["assetTransferMethod"]) == ("upfront", "eip3009")
    v1 = PaymentRequiredV1.model_validate(body)
    assert (v1.accepts[0].network, v1.accepts[0].max_amount_required) == (network.v1_name, "100000")


@pytest.mark.parametrize("network", [PLAY, BASE, BASE_SEPOLIA])
async def test_what_the_package_signs_is_taken(network: Network) -> None:
    headers, body = required(network)
    client = buyer(builders.KEY.secret)
    wanted = client.get_payment_required_response(lambda name: headers.get(name), body)
    payment = await client.create_payment_payload(wanted)
    ((name, value),) = client.encode_payment_signature_header(payment).items()
    payload = x402.find_payload([(name.lower().encode(), value.encode())])
    assert payload is not None
    assert rules.refusal(payload, builders.requirements(network=network), time.time(), 20) is None
    assert payload.authorization.payer == builders.PAYER


async def test_a_version_1_payment_of_the_package_is_taken_on_our_own_terms() -> None:
    headers, _ = required(BASE)
    client = buyer(builders.KEY.secret)
    wanted = client.get_payment_required_response(lambda name: headers.get(name), {})
    signed = await client.create_payment_payload(wanted)
    old = PaymentPayloadV1(scheme="exact", network="base", payload=signed.payload)
    header = base64.b64encode(old.model_dump_json(by_alias=True).encode())
    payload = x402.find_payload([(b"x-payment", header)])
    assert payload is not None
    assert payload.accepted is None
    assert rules.refusal(payload, builders.requirements(network=BASE), time.time(), 20) is None


def test_the_package_reads_our_receipt() -> None:
    settled = builders.payment(settled_at=1.0, transaction_hash="0x" + "ab" * 32)
    headers = dict(x402.receipt_headers(settled))
    receipt = SettleResponse.model_validate_json(base64.b64decode(headers["PAYMENT-RESPONSE"]))
    assert (receipt.success, receipt.network, receipt.transaction) == (True, PLAY.caip2, settled.transaction_hash)


async def test_the_packages_facilitator_client_settles_with_the_local_facilitator() -> None:
    wanted = builders.requirements()
    header = PlayWallet(builders.KEY.secret).sign_payment(wanted, time.time(), builders.nonce())
    payload = PaymentPayload.model_validate_json(base64.b64decode(header))
    offer = PaymentRequirements.model_validate(x402.requirements_json(wanted))
    ledger = open_inline()
    async with facilitator_url(ledger) as url, httpx.AsyncClient() as http:
        client = HTTPFacilitatorClient(FacilitatorConfig(url=url, http_client=http))
        assert (await client.verify(payload, offer)).is_valid
        settled = await client.settle(payload, offer)
        assert (settled.success, settled.network) == (True, PLAY.caip2)
        assert (await client.settle(payload, offer)).transaction == settled.transaction
        assert (await client.verify(payload, offer)).invalid_reason == "invalid_exact_evm_nonce_already_used"
        supported = (await http.get(f"{url}/supported")).json()
        assert supported["kinds"][0]["network"] == PLAY.caip2
        balance = (await http.get(f"{url}/balance/{ACCOUNT.address}")).json()
        assert balance["balance"] == "999900000"
        assert (await http.get(f"{url}/balance/0x12")).status_code == 400
        assert (await http.get(f"{url}/health")).status_code == 200
        assert (await http.post(f"{url}/settle", content=b"x" * 100_000)).status_code == 413
    ledger.close()


# Our own play wallet.


def test_the_play_wallet_pays_a_402() -> None:
    headers, _ = required(PLAY)
    wallet = PlayWallet(builders.KEY.secret)
    header = wallet.pay(headers["PAYMENT-REQUIRED"], builders.NOW, builders.nonce())
    assert rules.refusal(x402.decode_payload(header), builders.requirements(), builders.NOW, 20) is None
    assert wallet.address_text == ACCOUNT.address
    assert ACCOUNT.address in repr(wallet)
    assert builders.KEY.secret.hex() not in repr(wallet)


def test_the_play_wallet_never_signs_for_real_money() -> None:
    headers, _ = required(BASE)
    wallet = PlayWallet(builders.KEY.secret)
    with pytest.raises(NotForPlay):
        wallet.pay(headers["PAYMENT-REQUIRED"], builders.NOW, builders.nonce())
    with pytest.raises(NotForPlay):
        wallet.sign_payment(builders.requirements(network=BASE_SEPOLIA), builders.NOW, builders.nonce())


def test_the_play_wallet_says_when_nothing_can_be_paid() -> None:
    header = base64.b64encode(msgspec.json.encode({"x402Version": 2, "accepts": []})).decode()
    with pytest.raises(MalformedPayment):
        PlayWallet(builders.KEY.secret).pay(header, builders.NOW, builders.nonce())
