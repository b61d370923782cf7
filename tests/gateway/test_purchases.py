"""Selling: the original's fields, texts and order of checks, and the replay rule."""

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
import trio

from engram.hotkeys import answers
from engram.ledger import InlineLedger, LaneClosed
from engram.payments import outcomes
from engram.payments.actor import PAYMENT_VERIFIER
from engram.sessions import SessionEvent
from tests.gateway.surface import GATEWAY, PHONE, STRANGER, running_gateway

ORIGINAL_SESSION_FIELDS = {
    "session_id": str,
    "controller_hotkey": str,
    "status": str,
    "created_at": float,
    "expires_at": float,
    "node_endpoint": (str, type(None)),
    "node_hotkey": (str, type(None)),
    "payment_tx": (str, type(None)),
    "network": str,
    "amount_paid_usd": float,
    "stats": dict,
    "error": (str, type(None)),
    "remaining_seconds": float,
}
OURS = {"tier", "payment_id", "end_reason", "stats_age_s", "emptied_at", "restored_at", "memory"}


def assert_session(session: dict[str, Any], *more: str) -> None:
    assert session.keys() == ORIGINAL_SESSION_FIELDS.keys() | OURS | set(more)
    for name, kind in ORIGINAL_SESSION_FIELDS.items():
        assert isinstance(session[name], kind), name  # type: ignore[arg-type]


def assert_error(
    answer: httpx2.Response, status: int, text: str | None = None, code: str | None = None
) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert {"error", "code", "request_id"} <= body.keys()
    assert answer.headers["X-Request-Id"] == body["request_id"]
    if text is not None:
        assert body["error"] == text
    if code is not None:
        assert body["code"] == code
    return body


async def test_a_request_without_payment_gets_the_originals_402() -> None:
    async with running_gateway() as gateway:
        asked = await gateway.ask("POST", "/sessions", {"tier": "lite", "duration_hours": 24})
        body = assert_error(asked, 402, "Payment required", "payment_required")
        assert body["amount_usd"] == 2.4
        assert body["protocol"] == "x402"
        assert body["recipient"].lower() == "0x" + "11" * 20
        assert body["x402Version"] == 1
        assert body["accepts"][0]["maxAmountRequired"] == "2400000"
        assert asked.headers["X-Payment-Amount-USD"] == "2.4"
        assert asked.headers["X-Payment-Network"] == body["network"]
        assert asked.headers["WWW-Authenticate"].startswith('x402 scheme="exact" network="')
        assert 'amount="2400000" token="USDC"' in asked.headers["WWW-Authenticate"]
        offered = json.loads(base64.b64decode(asked.headers["PAYMENT-REQUIRED"]))
        assert offered["x402Version"] == 2
        assert offered["accepts"][0]["amount"] == "2400000"
        assert offered["resource"]["url"] == f"{gateway.url}/sessions"
        assert asked.headers["Cache-Control"] == "no-store"


async def test_a_paid_request_gets_the_originals_session() -> None:
    async with running_gateway() as gateway:
        session = await gateway.buy("pro", 10)
        assert_session(session, "payment_status", "code")
        assert session["status"] == "provisioning"
        assert session["amount_paid_usd"] == 3.6
        assert session["remaining_seconds"] == 36_000.0
        assert session["expires_at"] == pytest.approx(gateway.clock.now() + 36_000, abs=1)
        assert session["payment_tx"].startswith("0x")
        assert session["code"] == "accepted"
        assert session["stats"] == {}
        assert gateway.hinted == [session["session_id"]]


def closed(*_: object) -> None:
    """A ledger of which nothing can be read on the loop."""
    raise LaneClosed("busy")


async def test_a_purchase_is_answered_while_nothing_can_be_read_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_gateway() as gateway:
        monkeypatch.setattr(gateway.ledger, "rows", closed)
        assert (await gateway.buy("lite"))["status"] == "provisioning"


@pytest.mark.parametrize("limits", [{"live_per_hotkey": 1}, {"live_in_all": 1}], ids=["hotkey", "all"])
@pytest.mark.parametrize("on_the_loop", [True, False])
async def test_no_price_is_given_for_what_has_no_room(
    limits: dict[str, int], on_the_loop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_gateway(sessions={**limits}) as gateway:
        await gateway.buy("lite")
        if not on_the_loop:
            monkeypatch.setattr(gateway.ledger, "rows", closed)
        refused = await gateway.ask("POST", "/sessions", {"tier": "lite", "duration_hours": 1})
        code = "session_limit" if "live_per_hotkey" in limits else "no_capacity"
        assert_error(refused, 429 if code == "session_limit" else 503, code=code)


async def test_each_offer_is_its_own_whatever_was_offered_before() -> None:
    async with running_gateway() as gateway:
        for _ in range(2):
            for tier, hours, amount in (("lite", 1, "100000"), ("lite", 2, "200000"), ("pro", 1, None)):
                asked = await gateway.ask("POST", "/sessions", {"tier": tier, "duration_hours": hours})
                offered = json.loads(base64.b64decode(asked.headers["PAYMENT-REQUIRED"]))
                assert asked.json()["accepts"][0]["maxAmountRequired"] == offered["accepts"][0]["amount"]
                assert offered["resource"]["description"] == f"Engram memory node, {tier}, {hours} h"
                assert amount in (None, offered["accepts"][0]["amount"])


async def test_defaults_are_the_originals() -> None:
    async with running_gateway() as gateway:
        asked = await gateway.ask("POST", "/sessions", {})
        assert asked.json()["amount_usd"] == 0.2


async def test_the_phone_may_resend_the_same_signed_headers_with_its_payment() -> None:
    async with running_gateway() as gateway:
        signed = gateway.auth("POST", "/sessions")
        body = b'{"tier":"lite","duration_hours":1}'
        asked = await gateway.client.post(gateway.url + "/sessions", content=body, headers=signed)
        assert asked.status_code == 402
        paid = await gateway.client.post(
            gateway.url + "/sessions", content=body, headers=signed | gateway.payment(asked)
        )
        assert paid.status_code == 202
        again = await gateway.client.post(gateway.url + "/sessions", content=body, headers=signed)
        assert again.status_code == 202
        assert again.json()["session_id"] == paid.json()["session_id"]


async def test_an_answered_signature_is_good_for_no_other_request() -> None:
    async with running_gateway() as gateway:
        signed = gateway.auth("POST", "/sessions")
        body = b'{"tier":"lite","duration_hours":1}'
        asked = await gateway.client.post(gateway.url + "/sessions", content=body, headers=signed)
        await gateway.client.post(gateway.url + "/sessions", content=body, headers=signed | gateway.payment(asked))
        other = await gateway.client.post(gateway.url + "/sessions", content=b'{"tier":"pro"}', headers=signed)
        assert_error(other, 401, code="replayed")
        asked = await gateway.ask("POST", "/sessions", {"tier": "pro"})
        paid = await gateway.client.post(
            gateway.url + "/sessions", content=b'{"tier":"pro"}', headers=signed | gateway.payment(asked)
        )
        assert_error(paid, 401, code="replayed")


async def test_the_same_payment_gets_the_same_session_and_any_other_request_409() -> None:
    async with running_gateway() as gateway:
        body = {"tier": "lite", "duration_hours": 1}
        payment = gateway.payment(await gateway.ask("POST", "/sessions", body))
        first = await gateway.ask("POST", "/sessions", body, headers=payment)
        second = await gateway.ask("POST", "/sessions", body, headers=payment)
        assert first.json()["session_id"] == second.json()["session_id"]
        assert len(gateway.facilitator.settled) == 1
        for wrong in ({"tier": "pro", "duration_hours": 1}, {"tier": "lite", "duration_hours": 2}):
            assert_error(await gateway.ask("POST", "/sessions", wrong, headers=payment), 409, code="payment_conflict")
        stolen = await gateway.ask("POST", "/sessions", body, keypair=STRANGER, headers=payment)
        refused = assert_error(stolen, 409, code="payment_conflict")
        assert first.json()["session_id"] not in json.dumps(refused)


async def test_racing_posts_of_one_payment_make_one_session() -> None:
    async with running_gateway() as gateway:
        body = {"tier": "lite", "duration_hours": 1}
        payment = gateway.payment(await gateway.ask("POST", "/sessions", body))
        answers: list[httpx2.Response] = []

        async def post() -> None:
            answers.append(await gateway.ask("POST", "/sessions", body, headers=payment))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(post)
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["session_id"] for answer in answers}) == 1
        assert len(gateway.facilitator.settled) == 1


async def test_an_unknown_settlement_is_pending_and_never_a_402() -> None:
    async with running_gateway(payments={"answer_within_s": 0.5}) as gateway:
        gateway.facilitator.settlement = outcomes.Unknown("read_timeout")
        body = {"tier": "lite", "duration_hours": 1}
        payment = gateway.payment(await gateway.ask("POST", "/sessions", body))
        answer = await gateway.ask("POST", "/sessions", body, headers=payment)
        assert answer.status_code == 202
        session = answer.json()
        assert_session(session, "payment_status", "code")
        assert session["code"] == "payment_pending"
        assert session["status"] == "payment_pending"
        assert int(answer.headers["Retry-After"]) >= 1
        assert "PAYMENT-REQUIRED" not in answer.headers
        assert "PAYMENT-RESPONSE" not in answer.headers


async def test_a_hotkeys_open_payments_are_listed_for_its_other_devices() -> None:
    async with running_gateway(payments={"answer_within_s": 0.3}) as gateway:
        session = await gateway.buy()
        listing = f"/sessions/hotkey/{PHONE.ss58}"
        assert "open_payments" not in (await gateway.ask("GET", listing)).json()
        gateway.facilitator.settlement = outcomes.Unknown("read_timeout")
        path, body = f"/sessions/{session['session_id']}/extend", {"duration_hours": 1}
        extension = await gateway.ask(
            "POST", path, body, headers=gateway.payment(await gateway.ask("POST", path, body))
        )
        assert extension.json()["code"] == "payment_pending"
        assert (await gateway.ask("GET", listing)).json()["open_payments"] == [extension.json()["payment_id"]]
        other = await gateway.ask("GET", f"/sessions/hotkey/{STRANGER.ss58}", keypair=STRANGER)
        assert other.json() == {"sessions": []}


async def test_a_hanging_facilitator_is_answered_for_within_the_promised_time() -> None:
    async with running_gateway(payments={"answer_within_s": 0.3}) as gateway:
        gateway.facilitator.may_settle = trio.Event()
        body = {"tier": "lite", "duration_hours": 1}
        payment = gateway.payment(await gateway.ask("POST", "/sessions", body))
        with trio.fail_after(2):
            answer = await gateway.ask("POST", "/sessions", body, headers=payment)
        assert answer.status_code == 202
        assert answer.json()["code"] == "payment_pending"
        gateway.facilitator.may_settle.set()
        with trio.fail_after(5):
            while (await gateway.ask("POST", "/sessions", body, headers=payment)).json()["code"] != "accepted":
                await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_ledger_that_hangs_is_answered_for_within_the_promised_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_gateway(payments={"answer_within_s": 0.2}) as gateway:
        body = {"tier": "lite", "duration_hours": 1}
        payment = gateway.payment(await gateway.ask("POST", "/sessions", body))

        answering = trio.Event()

        def hanging(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def hang(*arguments: Any) -> Any:
                await answering.wait()
                return await method(*arguments)

            return hang

        monkeypatch.setattr(InlineLedger, "read", hanging(InlineLedger.read))
        monkeypatch.setattr(InlineLedger, "write", hanging(InlineLedger.write))
        monkeypatch.setattr(gateway.ledger, "rows", closed)
        for headers in (payment, {}):
            with trio.fail_after(3):
                answer = await gateway.ask("POST", "/sessions", body, headers=headers)
            assert_error(answer, 503, code="outcome_unknown")
            assert "PAYMENT-REQUIRED" not in answer.headers
        answering.set()
        assert (await gateway.ask("POST", "/sessions", body, headers=payment)).json()["code"] == "accepted"


async def test_a_client_that_goes_away_changes_nothing() -> None:
    async with running_gateway() as gateway:
        gateway.facilitator.may_settle = trio.Event()
        body = {"tier": "lite", "duration_hours": 1}
        payment = gateway.payment(await gateway.ask("POST", "/sessions", body))
        with trio.move_on_after(0.2) as left:
            await gateway.ask("POST", "/sessions", body, headers=payment)
        assert left.cancelled_caught
        gateway.facilitator.may_settle.set()
        answer = await gateway.ask("POST", "/sessions", body, headers=payment)
        assert answer.json()["code"] == "accepted"
        assert len(gateway.facilitator.settled) == 1


async def test_a_refused_payment_is_a_402_with_the_reason_and_a_fresh_offer() -> None:
    async with running_gateway() as gateway:
        gateway.facilitator.verification = outcomes.Invalid("insufficient_funds")
        body = {"tier": "lite", "duration_hours": 1}
        payment = gateway.payment(await gateway.ask("POST", "/sessions", body))
        refused = await gateway.ask("POST", "/sessions", body, headers=payment)
        assert_error(refused, 402, code="insufficient_funds")
        assert "PAYMENT-REQUIRED" in refused.headers


async def test_receipts_that_prove_nothing_are_refused_with_that_reason() -> None:
    async with running_gateway() as gateway:
        receipt = {"txHash": "0x" + "00" * 32, "amount": 0.1, "network": "base", "timestamp": 1, "devMode": True}
        header = base64.b64encode(json.dumps(receipt).encode()).decode()
        answer = await gateway.ask("POST", "/sessions", {"tier": "lite"}, headers={"X-Payment": header})
        body = assert_error(answer, 402, code="unproven_receipt")
        assert "proves no payment" in body["error"]


async def test_the_seeds_payment_header_is_x402_version_1() -> None:
    async with running_gateway() as gateway:
        body = {"tier": "lite", "duration_hours": 1}
        asked = await gateway.ask("POST", "/sessions", body)
        v2 = json.loads(base64.b64decode(gateway.payment(asked)["PAYMENT-SIGNATURE"]))
        v1 = {"x402Version": 1, "scheme": "exact", "network": asked.json()["network"], "payload": v2["payload"]}
        header = base64.b64encode(json.dumps(v1).encode()).decode()
        paid = await gateway.ask("POST", "/sessions", body, headers={"X-Payment": header})
        assert paid.status_code == 202, paid.text
        assert json.loads(base64.b64decode(paid.headers["PAYMENT-RESPONSE"]))["success"] is True


@pytest.mark.parametrize("header", ["", "%%%", "e30=", "bnVsbA==", "W10="])
async def test_an_unreadable_payment_is_a_400(header: str) -> None:
    async with running_gateway() as gateway:
        answer = await gateway.ask("POST", "/sessions", {"tier": "lite"}, headers={"PAYMENT-SIGNATURE": header})
        assert_error(answer, 400, code="malformed_payment")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "Invalid JSON body."),
        (b"{", "Invalid JSON body."),
        (b"[]", "Invalid JSON body."),
        (b"null", "Invalid JSON body."),
        (b"\xff\xfe", "Invalid JSON body."),
        (b'{"tier":"\xff"}', "Invalid JSON body."),
        (b"[" * 100_000, "Invalid JSON body."),
        (b'{"tier":"x"}', "Unknown tier 'x'. Valid: ['lite', 'standard', 'pro']"),
        (b'{"tier":null}', "Unknown tier None. Valid: ['lite', 'standard', 'pro']"),
        (b'{"tier":"x","duration_hours":"abc"}', "Unknown tier 'x'. Valid: ['lite', 'standard', 'pro']"),
        (b'{"duration_hours":"abc"}', "duration_hours must be between 0.5 and 720."),
        (b'{"duration_hours":true}', "duration_hours must be between 0.5 and 720."),
        (b'{"duration_hours":0.49}', "duration_hours must be between 0.5 and 720."),
        (b'{"duration_hours":720.1}', "duration_hours must be between 0.5 and 720."),
        (b'{"duration_hours":' + b"9" * 400 + b"}", "duration_hours must be between 0.5 and 720."),
    ],
)
async def test_bodies_are_refused_in_the_originals_words(body: bytes, text: str) -> None:
    async with running_gateway() as gateway:
        assert_error(await gateway.ask("POST", "/sessions", body), 400, text)


async def test_a_huge_tier_name_is_not_repeated_whole() -> None:
    async with running_gateway() as gateway:
        body = assert_error(await gateway.ask("POST", "/sessions", {"tier": "x" * 100_000}), 400)
        assert len(body["error"]) < 400


async def test_the_signature_is_checked_before_anything_else() -> None:
    async with running_gateway() as gateway:
        answer = await gateway.client.post(gateway.url + "/sessions", content=b"{")
        assert_error(answer, 401, "Invalid or missing gateway auth headers.", "missing_header")


async def test_a_clock_that_is_off_is_told_by_how_much() -> None:
    async with running_gateway() as gateway:
        signed = gateway.auth("POST", "/sessions")
        gateway.clock.advance(90)
        answer = await gateway.client.post(gateway.url + "/sessions", content=b"{}", headers=signed)
        body = assert_error(answer, 401, "Invalid or missing gateway auth headers.", "stale")
        assert body["clock_skew_ms"] == -90_000
        assert "90" in body["detail"]
        # Clients set their clock by it.
        stamp = signed["X-Timestamp"]
        answers.verify_answer(answer.headers, 401, stamp, answer.content, gateway=GATEWAY.public_key)


async def test_limits_are_told_before_money_moves() -> None:
    async with running_gateway(places=2, sessions={"live_per_hotkey": 1}) as gateway:
        await gateway.buy()
        full = await gateway.ask("POST", "/sessions", {"tier": "lite"})
        assert_error(full, 429, code="session_limit")
        assert int(full.headers["Retry-After"]) >= 1
        await gateway.buy(keypair=STRANGER)
        full = await gateway.ask("POST", "/sessions", {"tier": "lite"}, keypair=GATEWAY)
        assert_error(full, 503, code="no_capacity")
        assert int(full.headers["Retry-After"]) >= 1
        assert (await gateway.client.get(gateway.url + "/nodes")).json()["available"] is False


async def test_nothing_is_sold_while_selling_is_off_and_what_was_bought_is_still_found() -> None:
    async with running_gateway() as gateway:
        body = {"tier": "lite", "duration_hours": 1}
        payment = gateway.payment(await gateway.ask("POST", "/sessions", body))
        bought = await gateway.ask("POST", "/sessions", body, headers=payment)
        unused = gateway.payment(await gateway.ask("POST", "/sessions", body))
        await gateway.selling.switch(on=False)
        assert_error(await gateway.ask("POST", "/sessions", body), 503, code="not_selling")
        assert_error(await gateway.ask("POST", "/sessions", body, headers=unused), 503, code="not_selling")
        again = await gateway.ask("POST", "/sessions", body, headers=payment)
        assert again.json()["session_id"] == bought.json()["session_id"]
        await gateway.selling.switch(on=True)
        assert (await gateway.ask("POST", "/sessions", body)).status_code == 402


async def test_an_extension_adds_its_seconds_once() -> None:
    async with running_gateway() as gateway:
        session = await gateway.buy("standard", 1)
        path = f"/sessions/{session['session_id']}/extend"
        asked = await gateway.ask("POST", path, {"duration_hours": 2})
        assert asked.json()["amount_usd"] == 0.4
        payment = gateway.payment(asked)
        for _ in range(2):
            extended = await gateway.ask("POST", path, {"duration_hours": 2}, headers=payment)
            assert extended.status_code == 202, extended.text
            assert extended.json()["remaining_seconds"] == 3 * 3600.0
            assert extended.json()["amount_paid_usd"] == 0.6
        assert_error(await gateway.ask("POST", path, {"duration_hours": 2}, keypair=STRANGER), 403, "Not your session.")
        assert_error(await gateway.ask("POST", "/sessions/nothing/extend", {}), 404, "Session not found.")
        assert_error(await gateway.ask("POST", path, {"duration_hours": 0}), 400)


async def test_an_ended_session_cannot_be_extended() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        await gateway.happen(session_id, SessionEvent.END, SessionEvent.DESTROYED)
        assert_error(await gateway.ask("POST", f"/sessions/{session_id}/extend", {}), 409, code="session_over")


async def test_without_its_verifier_the_surface_says_what_the_ledger_knows_and_never_a_402() -> None:
    async with running_gateway() as gateway:
        body = {"tier": "lite", "duration_hours": 1}
        paid = gateway.payment(await gateway.ask("POST", "/sessions", body))
        unpaid = gateway.payment(await gateway.ask("POST", "/sessions", body))
        bought = await gateway.ask("POST", "/sessions", body, headers=paid)
        await gateway.system.registry.supervisor("payments").stop_child(PAYMENT_VERIFIER)
        again = await gateway.ask("POST", "/sessions", body, headers=paid)
        assert again.status_code == 202
        assert again.json()["session_id"] == bought.json()["session_id"]
        stolen = await gateway.ask("POST", "/sessions", {"tier": "pro"}, headers=paid)
        assert_error(stolen, 409, code="payment_conflict")
        unknown = await gateway.ask("POST", "/sessions", body, headers=unpaid)
        assert_error(unknown, 503, code="outcome_unknown")
        assert unknown.headers["Retry-After"]
        assert "PAYMENT-REQUIRED" not in unknown.headers
        assert (await gateway.client.get(gateway.url + "/tiers")).status_code == 200
        assert (await gateway.ask("GET", f"/sessions/{bought.json()['session_id']}")).status_code == 200


async def test_without_its_ledger_the_surface_answers_503_and_no_402() -> None:
    async with running_gateway() as gateway:
        body = {"tier": "lite", "duration_hours": 1}
        payment = gateway.payment(await gateway.ask("POST", "/sessions", body))
        gateway.ledger.close()
        answer = await gateway.ask("POST", "/sessions", body, headers=payment)
        assert_error(answer, 503, code="ledger_unavailable")
        assert answer.headers["Retry-After"]
        assert "PAYMENT-REQUIRED" not in answer.headers


@pytest.mark.parametrize(
    "body",
    [
        b'{"tier":"lite","tier":"pro"}',
        b'{"duration_hours":1,"duration_hours":1}',
        b'{"t\\u0069er":"lite","tier":"lite"}',
        b'{"tier":"lite","more":[{"a":1,"a":2}]}',
    ],
)
async def test_a_body_that_says_a_thing_twice_is_refused(body: bytes) -> None:
    async with running_gateway() as gateway:
        found = assert_error(await gateway.ask("POST", "/sessions", body), 400, "Invalid JSON body.", "invalid_json")
        assert "stands twice" in found["detail"]


async def test_numbers_of_any_length_in_a_body_are_no_accident() -> None:
    async with running_gateway() as gateway:
        for number in ("9" * 5000, "1e400", "-1e400", "0." + "0" * 5000 + "1"):
            answer = await gateway.ask("POST", "/sessions", b'{"duration_hours":%s}' % number.encode())
            assert_error(answer, 400)
