"""What a 402 and a 202 carry beside the price: refund terms, receipts, identifiers, and the URL they are about."""

import base64
import json
import secrets
from typing import Any
from uuid import UUID

import httpx2
import jsonschema
import msgspec
import pytest
import trio

from engram.hotkeys import Keypair
from engram.payments import outcomes, x402
from engram.payments.play_wallet import PlayWallet
from engram.payments.quotes import Quotes
from engram.sessions.rules import tiers
from tests.gateway.surface import PHONE, STRANGER, Gateway, local_settings, running_gateway
from tests.gateway.test_purchases import assert_error

BODY = {"tier": "lite", "duration_hours": 1}
WORD = "purchase_0123456789"
PROXY_BUFFER_BYTES = 4_096
"""What nginx takes of an upstream's status line and headers by default."""


def offered(asked: httpx2.Response) -> dict[str, Any]:
    """The x402 v2 PaymentRequired of a 402."""
    found: dict[str, Any] = json.loads(base64.b64decode(asked.headers["PAYMENT-REQUIRED"]))
    return found


def named(payment: dict[str, str], word: str) -> dict[str, str]:
    """The payment with a payment-identifier."""
    document = json.loads(base64.b64decode(payment["PAYMENT-SIGNATURE"]))
    document["extensions"] = {"payment-identifier": {"info": {"required": False, "id": word}, "schema": {}}}
    return {"PAYMENT-SIGNATURE": base64.b64encode(json.dumps(document).encode()).decode()}


# Refund terms.


async def test_the_402_says_when_money_comes_back_in_the_words_of_terms() -> None:
    async with running_gateway(payments={"early_stop_refund_percent": 40}) as gateway:
        asked = await gateway.ask("POST", "/sessions", BODY)
        terms = (await gateway.client.get(gateway.url + "/terms")).json()
        extension = offered(asked)["extensions"]["refund-terms"]
        assert asked.json()["refund_terms"] == extension["info"] == terms["refund_terms"]
        assert extension["info"]["early_stop_percent"] == terms["early_stop_refund_percent"] == 40
        assert "40 % of it" in extension["info"]["text"]
        jsonschema.Draft202012Validator(extension["schema"]).validate(extension["info"])


async def test_an_offer_to_prolong_has_the_same_terms() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        longer = await gateway.ask("POST", f"/sessions/{session_id}/extend", {"duration_hours": 1})
        asked = await gateway.ask("POST", "/sessions", BODY)
        assert longer.json()["refund_terms"] == asked.json()["refund_terms"]


async def test_a_402_fits_the_header_buffer_of_common_proxies() -> None:
    async with running_gateway(http={"cors_origins": ["https://app.example"]}) as gateway:
        session_id = (await gateway.buy())["session_id"]
        for path, order in (
            ("/sessions", BODY),
            ("/sessions", {"tier": "standard", "duration_hours": 719.5}),
            (f"/sessions/{session_id}/extend", {"duration_hours": 719.5}),
        ):
            asked = await gateway.ask("POST", path, order, headers={"Origin": "https://app.example"})
            assert asked.status_code == 402
            head = sum(len(name) + len(value) + 4 for name, value in asked.headers.items())
            assert head + len("HTTP/1.1 402 Payment Required\r\n\r\n") < PROXY_BUFFER_BYTES, path


CLIENTS_TAKE_BYTES = 2_500
"""Some refuse a PAYMENT-REQUIRED of 3,564 (coinbase/cdp-sdk#759)."""
WIDEST = {
    "gateway": {"public_url": "https://" + "g" * 120},
    "pricing": {"lite_usd_per_hour": 1e8},
    "sessions": {"min_hours": 0.123456, "max_hours": 87_599.321},
    "payments": {
        "max_timeout_s": 31_536_000,
        "early_stop_refund_percent": 100,
        "outage_free_s": 1234567.25,
        "refund_min_usd": 0.123456,
        "identifier_required": True,
    },
}


@pytest.mark.parametrize("sections", [{}, WIDEST], ids=["plain", "widest"])
@pytest.mark.parametrize("error", ["Payment required", "\N{BOMB}" * 500, '"' * 500], ids=["plain", "emoji", "quotes"])
def test_payment_required_stays_small_enough_for_every_client(sections: dict[str, Any], error: str) -> None:
    """For all tiers, all paths, the longest URL, and words of a facilitator that mean ill."""
    settings = local_settings(**sections)
    url = settings.gateway.public_url or "http://127.0.0.1:9000"
    quotes = Quotes(settings, lambda: url)
    for tier in tiers(settings.pricing.lite_usd_per_hour).values():
        for hours in (settings.sessions.min_hours, settings.sessions.max_hours - 0.001):
            for quote in (quotes.session(tier, hours), quotes.extension(str(UUID(int=0)), tier, hours)):
                header = dict(x402.challenge(quote, error).headers)["PAYMENT-REQUIRED"]
                assert len("PAYMENT-REQUIRED: ") + len(header) < CLIENTS_TAKE_BYTES, quote
                assert x402.decode_challenge(header) == [quote.requirements]


def test_a_longer_public_url_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"length <= 128 .*public_url"):
        local_settings(gateway={"public_url": "https://" + "g" * 121})


# What the offer is about.


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:1"])
async def test_the_resource_is_where_we_are_configured_to_be_whatever_host_was_asked(host: str) -> None:
    async with running_gateway() as gateway:
        asked = await gateway.ask(
            "POST", "/sessions", BODY, headers={"Host": host, "X-Forwarded-Host": host, "Forwarded": f"host={host}"}
        )
        assert asked.status_code == 402, asked.text
        offer = offered(asked)
        assert offer["resource"]["url"] == gateway.url + "/sessions"
        assert asked.json()["accepts"][0]["resource"] == gateway.url + "/sessions"
        assert host not in asked.text
        assert host not in json.dumps(offer)


# Receipts.


async def test_a_receipt_is_given_with_the_202_and_again_with_its_repetition() -> None:
    async with running_gateway(http={"cors_origins": ["https://app.example"]}) as gateway:
        payment = gateway.payment(await gateway.ask("POST", "/sessions", BODY))
        page = {"Origin": "https://app.example"}
        first = await gateway.ask("POST", "/sessions", BODY, headers=payment | page)
        again = await gateway.ask("POST", "/sessions", BODY, headers=payment | page)
        for answer in (first, again):
            assert answer.status_code == 202, answer.text
            receipt = json.loads(base64.b64decode(answer.headers["PAYMENT-RESPONSE"]))
            assert receipt["success"] is True
            assert receipt["transaction"] == answer.json()["payment_tx"]
            assert receipt["network"] == "eip155:31337"
            assert receipt["amount"] == "100000"
            old = json.loads(base64.b64decode(answer.headers["X-PAYMENT-RESPONSE"]))
            assert old == receipt | {"network": "engram-play"}
            assert "payment-response" in answer.headers["Access-Control-Expose-Headers"].lower()
            assert "PAYMENT-REQUIRED" not in answer.headers


async def test_a_network_has_one_name_in_every_answer() -> None:
    async with running_gateway() as gateway:
        asked = await gateway.ask("POST", "/sessions", BODY)
        bought = await gateway.ask("POST", "/sessions", BODY, headers=gateway.payment(asked))
        session = await gateway.ask("GET", f"/sessions/{bought.json()['session_id']}")
        payment = await gateway.ask("GET", f"/payments/{bought.json()['payment_id']}")
        names = [answer.json()["network"] for answer in (asked, bought, session, payment)]
        assert names == ["engram-play"] * 4
        assert asked.json()["accepts"][0]["network"] == asked.headers["X-Payment-Network"] == "engram-play"


# The buyer's own word for a purchase.


async def buy(gateway: Gateway, word: str, *, same: dict[str, str] | None = None, who: Any = PHONE) -> httpx2.Response:
    payment = same or gateway.payment(await gateway.ask("POST", "/sessions", BODY, keypair=who))
    return await gateway.ask("POST", "/sessions", BODY, headers=named(payment, word), keypair=who)


async def test_a_new_identifier_buys_and_its_repetition_gets_the_same_session() -> None:
    async with running_gateway() as gateway:
        payment = gateway.payment(await gateway.ask("POST", "/sessions", BODY))
        first = await buy(gateway, WORD, same=payment)
        again = await buy(gateway, WORD, same=payment)
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.json()["session_id"] == again.json()["session_id"]
        assert len(gateway.facilitator.settled) == 1


async def test_an_identifier_with_another_payment_is_a_conflict_and_takes_no_money() -> None:
    async with running_gateway() as gateway:
        assert (await buy(gateway, WORD)).status_code == 202
        assert_error(await buy(gateway, WORD), 409, code="payment_conflict")
        assert (await buy(gateway, WORD, who=STRANGER)).status_code == 202, "another hotkey's word is another word"
        assert len(gateway.facilitator.settled) == 2


async def test_a_required_identifier_is_asked_for_before_anything_is_taken() -> None:
    async with running_gateway(payments={"identifier_required": True}) as gateway:
        asked = await gateway.ask("POST", "/sessions", BODY)
        assert offered(asked)["extensions"]["payment-identifier"]["info"] == {"required": True}
        payment = gateway.payment(asked)
        missing = await gateway.ask("POST", "/sessions", BODY, headers=payment)
        assert_error(missing, 400, code="payment_identifier_required")
        assert "PAYMENT-REQUIRED" not in missing.headers
        assert gateway.facilitator.settled == []
        assert (await buy(gateway, WORD, same=payment)).status_code == 202


@pytest.mark.parametrize("word", ["short", "x" * 129, "with space 0123456789", "umlaut_ä_0123456789"])
async def test_an_identifier_that_is_none_is_a_400(word: str) -> None:
    async with running_gateway() as gateway:
        assert_error(await buy(gateway, word), 400, code="malformed_payment")


# Fifty authorizations on one balance all verify: only so many are taken at once.


@pytest.mark.parametrize("same", ["payer", "hotkey", "address"])
async def test_three_payments_may_be_open_of_a_payer_a_hotkey_or_an_address(same: str) -> None:
    phones = [Keypair.generate() for _ in range(4)]
    wallets = [PlayWallet(secrets.token_bytes(32)) for _ in range(4)]
    async with running_gateway(
        sessions={"live_per_hotkey": 10},
        payments={"answer_within_s": 0.2, "holds_per_address": 3 if same == "address" else 100},
        http={"trusted_proxies": ["127.0.0.1"]},
    ) as gateway:
        gateway.facilitator.may_settle = trio.Event()
        statuses = []
        for n in range(4):
            keypair = phones[0 if same == "hotkey" else n]
            gateway.wallet = wallets[0 if same == "payer" else n]
            order = {"tier": "lite", "duration_hours": 1 + n}
            client = {"X-Forwarded-For": f"192.0.2.{1 if same == 'address' else 10 + n}"}
            asked = await gateway.ask("POST", "/sessions", order, keypair=keypair, headers=client)
            paid = await gateway.ask(
                "POST", "/sessions", order, keypair=keypair, headers=gateway.payment(asked) | client
            )
            statuses.append((paid.status_code, paid.json()["code"]))
        gateway.facilitator.may_settle.set()
        assert statuses == [(202, "payment_pending")] * 3 + [(429, "too_many_open_payments")]


@pytest.mark.parametrize(
    ("field", "other"),
    [("amount", "1"), ("payTo", "0x" + "22" * 20), ("maxTimeoutSeconds", 119), ("asset", "0x" + "33" * 20)],
)
async def test_other_terms_than_ours_are_refused_before_the_facilitator_hears_of_them(
    field: str, other: object
) -> None:
    async with running_gateway() as gateway:
        gateway.facilitator.verification = outcomes.Invalid("it_was_asked")
        asked = await gateway.ask("POST", "/sessions", BODY)
        document = json.loads(base64.b64decode(gateway.payment(asked)["PAYMENT-SIGNATURE"]))
        document["accepted"][field] = other
        header = base64.b64encode(json.dumps(document).encode()).decode()
        refused = await gateway.ask("POST", "/sessions", BODY, headers={"PAYMENT-SIGNATURE": header})
        assert_error(refused, 402, code="invalid_payment_requirements")
