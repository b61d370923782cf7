"""x402's extensions: a buyer's own word for one purchase, and what catalogues are told."""

import base64
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from engram.payments import extensions, records, reservations, x402
from engram.payments.errors import MalformedPayment
from engram.payments.extensions import Discovery
from engram.payments.model import PaymentState
from engram.payments.networks import BASE
from engram.payments.purchase_answer import Conflict
from engram.payments.reservations import Reserved
from engram.payments.rules import PaymentEvent
from tests.fakes.official_x402 import PaymentRequired, buyer, validate_discovery_extension
from tests.payments import builders
from tests.payments.shop import open_shop

DISCOVERY = Discovery(
    body={"tier": "lite", "duration_hours": 1},
    schema={"type": "object", "properties": {"tier": {"type": "string"}, "duration_hours": {"type": "number"}}},
    output={"session_id": "x"},
)
WORD = "purchase_0123456789"


def offer(**changes: Any) -> dict[str, Any]:
    quote = msgspec.structs.replace(builders.quote(network=BASE), discovery=DISCOVERY, **changes)
    header = dict(x402.challenge(quote).headers)["PAYMENT-REQUIRED"]
    PaymentRequired.model_validate_json(base64.b64decode(header))
    found: dict[str, Any] = msgspec.json.decode(base64.b64decode(header))
    return found


def test_the_402_declares_both_extensions_by_their_own_schemas() -> None:
    declared = offer()["extensions"]
    for extension in declared.values():
        Draft202012Validator.check_schema(extension["schema"])
        Draft202012Validator(extension["schema"]).validate(extension["info"])
    assert declared["payment-identifier"]["info"] == {"required": False}
    assert offer(identifier_required=True)["extensions"]["payment-identifier"]["info"] == {"required": True}
    assert validate_discovery_extension(declared["bazaar"]).valid
    assert declared["bazaar"]["info"]["input"]["body"] == DISCOVERY.body


async def test_what_the_official_client_echoes_is_taken_with_and_without_an_identifier() -> None:
    quote = msgspec.structs.replace(builders.quote(network=BASE), discovery=DISCOVERY)
    headers = dict(x402.challenge(quote).headers)
    client = buyer(builders.KEY.secret)
    wanted = client.get_payment_required_response(lambda name: headers.get(name), {})
    payment = await client.create_payment_payload(wanted)
    for word in (None, WORD):
        told = payment.model_dump(by_alias=True, exclude_none=True)
        if word:
            told["extensions"] = {"payment-identifier": {"info": {"required": False, "id": word}, "schema": {}}}
        assert x402.parse_payload(told).identifier == word


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        "x",
        {"payment-identifier": 7},
        {"payment-identifier": {"info": []}},
        *({"payment-identifier": {"info": {"id": word}}} for word in (7, "short", "x" * 129, "sixteen letters!")),
    ],
)  # fmt: skip
def test_an_identifier_that_is_none_is_malformed(wrong: object) -> None:
    with pytest.raises(MalformedPayment):
        extensions.identifier_in(wrong)


@pytest.mark.parametrize("without", [None, {}, {"payment-identifier": None}, {"payment-identifier": {"info": {}}}])
def test_no_identifier_is_none(without: object) -> None:
    assert extensions.identifier_in(without) is None


async def test_one_identifier_stands_for_one_payment_of_a_hotkey(autojump_clock: object) -> None:
    async with open_shop() as shop:

        def buying(text: str, **changes: Any) -> Any:
            purchase = shop.purchase(text, **changes)
            named = msgspec.structs.replace(purchase.payload, identifier=WORD)
            return msgspec.structs.replace(purchase, payload=named)

        first = buying("first")
        bought = await shop.buy(first)
        assert await shop.buy(first) == bought
        assert isinstance(await shop.buy(buying("second")), Conflict)
        assert shop.facilitator.transfers == 1
        assert not isinstance(await shop.buy(buying("of bob", controller=builders.BOB)), Conflict)


async def test_an_identifier_whose_payment_moved_no_money_may_be_used_again(autojump_clock: object) -> None:
    async with open_shop() as shop:
        for text, state in (("refused", PaymentState.REJECTED), ("taken", PaymentState.RESERVED)):
            wanted = builders.reservation(text, identifier=WORD)
            reserved = shop.read(lambda c, wanted=wanted: reservations.reserve(c, wanted))  # type: ignore[misc]  # called now
            assert isinstance(reserved, Reserved)
            if state is PaymentState.REJECTED:
                shop.read(lambda c: records.advance(c, "payment of refused", PaymentEvent.REFUSED, builders.instant()))


def contains(whole: object, part: object) -> bool:
    """Whether a JSON value says all that another one says."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and set(part) <= set(whole)
    return whole == part


def test_a_facilitators_catalogue_is_told_what_the_402_tells() -> None:
    quote = msgspec.structs.replace(builders.quote(network=BASE), discovery=DISCOVERY)
    told: dict[str, Any] = x402.listed({"x402Version": 2}, quote)
    (listing,) = told["extensions"].values()
    assert contains(listing, offer()["extensions"]["bazaar"])
    assert listing["info"]["output"]["example"] == DISCOVERY.output
    assert validate_discovery_extension(listing).valid
    assert contains(told["resource"], offer()["resource"])
    assert x402.listed({"x402Version": 2}, builders.quote()) == {"x402Version": 2}
