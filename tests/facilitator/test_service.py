"""The play-money facilitator: x402's answers, one transfer an authorization, and books that add up."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.clock import ManualClock
from engram.facilitator import records, rules
from engram.facilitator.rules import MalformedRequest
from engram.facilitator.service import PlayFacilitator
from engram.ledger import InlineLedger, open_inline
from engram.payments import x402
from engram.payments.eip712 import sign
from engram.payments.model import Authorization, Requirements
from engram.payments.networks import PLAY
from tests.payments import builders

pytestmark = pytest.mark.rules

OPENING = 1_000_000


def body(signed: Authorization | None = None, wanted: Requirements | None = None, **changes: Any) -> bytes:
    signed, wanted = signed or builders.authorization(), wanted or builders.requirements()
    document = {
        "x402Version": 2,
        "paymentPayload": x402.payload_json(signed, sign(signed, PLAY, builders.KEY), wanted),
        "paymentRequirements": x402.requirements_json(wanted),
    }
    return msgspec.json.encode(document | changes)


class Answers:
    """The facilitator's answers as their readers decode them."""

    def __init__(self, facilitator: PlayFacilitator) -> None:
        self._facilitator = facilitator

    async def verify(self, body: bytes) -> tuple[int, dict[str, Any]]:
        status, answer = await self._facilitator.verify(body)
        return status, msgspec.to_builtins(answer)

    async def settle(self, body: bytes) -> tuple[int, dict[str, Any]]:
        status, answer = await self._facilitator.settle(body)
        return status, msgspec.to_builtins(answer)

    async def balance(self, address: bytes) -> dict[str, Any]:
        answer: dict[str, Any] = msgspec.to_builtins(await self._facilitator.balance(address))
        return answer

    def supported(self) -> dict[str, Any]:
        answer: dict[str, Any] = msgspec.to_builtins(self._facilitator.supported())
        return answer


class Desk:
    def __init__(self, ledger: InlineLedger) -> None:
        self.ledger = ledger
        self.clock = ManualClock(builders.NOW)
        self.facilitator = Answers(PlayFacilitator(ledger, self.clock, OPENING))

    def balance(self, address: bytes) -> int:
        return self.ledger.write_now(lambda connection: records.balance(connection, address, OPENING))


@pytest.fixture
def desk() -> Iterator[Desk]:
    ledger = open_inline()
    yield Desk(ledger)
    ledger.close()


async def test_a_payment_moves_money_once_and_the_same_payment_again_gets_its_transaction(desk: Desk) -> None:
    assert await desk.facilitator.verify(body()) == (200, {"isValid": True, "payer": _payer()})
    status, first = await desk.facilitator.settle(body())
    assert (status, first["success"], first["network"], first["payer"]) == (200, True, "eip155:31337", _payer())
    assert await desk.facilitator.settle(body()) == (200, first)
    assert (desk.balance(builders.PAYER), desk.balance(builders.RECIPIENT)) == (900_000, 1_100_000)
    assert await desk.facilitator.verify(body()) == (
        200,
        {"isValid": False, "invalidReason": rules.NONCE_USED, "payer": _payer()},
    )


async def test_a_settled_payment_keeps_its_transaction_after_it_expired(desk: Desk) -> None:
    _, first = await desk.facilitator.settle(body())
    desk.clock.advance(1000)
    assert await desk.facilitator.settle(body()) == (200, first)


async def test_another_authorization_under_a_used_nonce_is_refused(desk: Desk) -> None:
    await desk.facilitator.settle(body())
    dearer = builders.authorization(value=200_000)
    _, answer = await desk.facilitator.settle(body(dearer, builders.requirements(200_000)))
    assert (answer["success"], answer["errorReason"], answer["transaction"]) == (False, rules.NONCE_USED, "")


PREFIX = "invalid_exact_evm_payload_"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pay_to": bytes(20)}, PREFIX + "recipient_mismatch"),
        ({"value": 99_999}, PREFIX + "authorization_value_mismatch"),
        ({"payer": bytes(20)}, PREFIX + "signature"),
        ({"valid_before": int(builders.NOW) + 5}, PREFIX + "authorization_valid_before"),
        ({"valid_after": int(builders.NOW) + 1}, PREFIX + "authorization_valid_after"),
    ],
)
async def test_what_the_authorization_says_is_checked(desk: Desk, changes: dict[str, Any], reason: str) -> None:
    asked = body(builders.authorization(**changes))
    _, verified = await desk.facilitator.verify(asked)
    _, settled = await desk.facilitator.settle(asked)
    assert (verified["isValid"], verified["invalidReason"]) == (False, reason)
    assert (settled["success"], settled["errorReason"], settled["transaction"]) == (False, reason, "")
    assert desk.balance(builders.PAYER) == OPENING


async def test_two_payments_on_one_balance_both_verify_and_one_settles(desk: Desk) -> None:
    wanted = builders.requirements(600_000)
    one, two = (body(builders.authorization(text, value=600_000), wanted) for text in ("one", "two"))
    for asked in (one, two):
        assert (await desk.facilitator.verify(asked))[1]["isValid"] is True
    assert (await desk.facilitator.settle(one))[1]["success"] is True
    assert (await desk.facilitator.settle(two))[1]["errorReason"] == rules.NO_FUNDS
    assert (await desk.facilitator.verify(two))[1]["invalidReason"] == rules.NO_FUNDS


def offer(**changes: Any) -> dict[str, Any]:
    return x402.requirements_json(builders.requirements()) | changes


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (b"", "invalid_payload"),
        (b"[]", "invalid_payload"),
        (b"\xff", "invalid_payload"),
        (b"[" * 10_000, "invalid_payload"),
        (body(paymentPayload=None), "invalid_payload"),
        (body(paymentPayload={"txHash": "0x"}), "invalid_payload"),
        (body(paymentRequirements=None), "invalid_payment_requirements"),
        (body(paymentRequirements=offer(scheme="upto")), "unsupported_scheme"),
        (body(paymentRequirements=offer(network="eip155:8453")), "invalid_network"),
        (body(paymentRequirements=offer(network=[])), "invalid_network"),
        (body(paymentRequirements=offer(extra=None)), "missing_eip712_domain"),
        (
            body(paymentRequirements=offer(extra={"name": "USDC", "version": "2"})),
            "invalid_exact_evm_token_name_mismatch",
        ),
        (
            body(paymentRequirements=offer(extra={"name": PLAY.asset_name, "version": "1"})),
            "invalid_exact_evm_token_version_mismatch",
        ),
        (body(paymentRequirements=offer(asset="0x" + "22" * 20)), "asset_not_deployed_contract"),
        (body(paymentRequirements=offer(amount="x")), "invalid_payload"),
    ],
)
async def test_a_malformed_request_is_named_and_never_an_error_of_ours(desk: Desk, asked: bytes, reason: str) -> None:
    assert await desk.facilitator.verify(asked) == (400, {"isValid": False, "invalidReason": reason})
    status, settled = await desk.facilitator.settle(asked)
    assert (status, settled["success"], settled["errorReason"], settled["transaction"]) == (400, False, reason, "")


@pytest.mark.parametrize("changes", [{"scheme": "upto"}, {"network": "eip155:8453"}])
async def test_a_payload_for_another_scheme_or_network_is_refused(desk: Desk, changes: dict[str, str]) -> None:
    document = json.loads(body())
    document["paymentPayload"]["accepted"] |= changes
    _, answer = await desk.facilitator.settle(json.dumps(document).encode())
    assert answer["errorReason"] == ("unsupported_scheme" if "scheme" in changes else "network_mismatch")


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(msgspec.json.encode))
def test_garbage_raises_nothing_but_malformed(asked: bytes) -> None:
    with pytest.raises(MalformedRequest):
        rules.read_request(asked)


payers = st.sampled_from([b"a" * 20, b"b" * 20, b"c" * 20])
transfers = st.builds(
    Authorization,
    payer=payers,
    pay_to=payers,
    value=st.integers(0, 2**70),
    valid_after=st.just(0),
    valid_before=st.sampled_from([int(builders.NOW) + 5, int(builders.NOW) + 100]),
    nonce=st.sampled_from([b"1" * 32, b"2" * 32, b"3" * 32]),
)


@settings(max_examples=50)
@given(st.lists(transfers, max_size=12))
def test_the_books_add_up_whatever_is_asked(asked: list[Authorization]) -> None:
    ledger = open_inline()
    model = dict.fromkeys((b"a" * 20, b"b" * 20, b"c" * 20), OPENING)
    used: dict[tuple[bytes, bytes], Authorization] = {}
    for signed in asked:
        outcome = ledger.write_now(
            lambda connection, signed=signed: records.settle(  # type: ignore[misc]  # bound now, called now
                connection, signed, builders.NOW, OPENING
            )
        )
        key = (signed.payer, signed.nonce)
        if key in used:
            same = (used[key].pay_to, used[key].value) == (signed.pay_to, signed.value)
            assert (outcome == rules.NONCE_USED) == (not same)
        elif signed.valid_before < builders.NOW + 6 or model[signed.payer] < signed.value:
            assert isinstance(outcome, str)
        else:
            used[key] = signed
            model[signed.payer] -= signed.value
            model[signed.pay_to] += signed.value
    for address, balance in model.items():
        assert ledger.write_now(lambda c, a=address: records.balance(c, a, OPENING)) == balance  # type: ignore[misc]
    ledger.close()


async def test_supported_and_balance_name_the_play_token(desk: Desk) -> None:
    (kind,) = msgspec.convert(desk.facilitator.supported()["kinds"], list[dict[str, Any]])
    assert (kind["scheme"], kind["network"], kind["extra"]["name"]) == ("exact", "eip155:31337", "Engram Play USD")
    assert (await desk.facilitator.balance(builders.PAYER))["balance"] == str(OPENING)


def _payer() -> str:
    from engram.payments.keccak import checksummed

    return checksummed(builders.PAYER)
