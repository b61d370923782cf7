"""Pay links against the real surface and ledger: paid once, by anybody, for the key that made them, or not at all."""

import base64
import hashlib
import json
from typing import Any

import httpx2
import pytest
import trio

from engram.hotkeys import answers
from engram.payments import outcomes, pay_links, refunds
from engram.payments.play_wallet import PlayWallet
from engram.payments.refund_settings import refund_terms
from engram.sessions import SessionEvent
from tests.gateway.surface import GATEWAY, PHONE, STRANGER, Gateway, running_gateway
from tests.gateway.test_purchases import assert_error

BODY = {"tier": "lite", "duration_hours": 1}


async def made(gateway: Gateway, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = await gateway.ask("POST", "/orders", body or BODY)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def post(gateway: Gateway, order: str, payment: dict[str, str] | None = None) -> httpx2.Response:
    """Ask for the price or pay, with nothing but the link."""
    return await gateway.client.post(f"{gateway.url}/orders/pay", json={"order": order}, headers=payment or {})


async def paid(gateway: Gateway, order: str, wallet: PlayWallet | None = None) -> httpx2.Response:
    asked = await post(gateway, order)
    assert asked.status_code == 402, asked.text
    return await post(gateway, order, payment_of(gateway, asked, wallet))


def payment_of(gateway: Gateway, asked: httpx2.Response, wallet: PlayWallet | None = None) -> dict[str, str]:
    nonce = bytes.fromhex(gateway.nonces.token(32))
    signed = (wallet or gateway.wallet).pay(asked.headers["PAYMENT-REQUIRED"], gateway.clock.now(), nonce)
    return {"PAYMENT-SIGNATURE": signed}


def other_wallet() -> PlayWallet:
    return PlayWallet(hashlib.sha256(b"another wallet").digest())


async def status(gateway: Gateway, order: str) -> dict[str, Any]:
    answer = await gateway.ask("POST", "/orders/status", {"order": order})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_whoever_has_the_link_pays_and_the_key_that_made_it_owns_the_session() -> None:
    async with running_gateway() as gateway:
        order = await made(gateway)
        assert (order["amount_usd"], order["duration_hours"], order["tier"]) == (0.1, 1.0, "lite")
        assert order["url"] == f"{gateway.url}/app/#/pay/{order['order']}"
        assert (await status(gateway, order["order"]))["status"] == "open"
        answer = await paid(gateway, order["order"])
        assert answer.status_code == 202, answer.text
        body = answer.json()
        assert (body["code"], body["payment_status"], body["payer"]) == (
            "accepted",
            "settled",
            gateway.wallet.address_text,
        )
        assert "session_id" not in body
        assert answer.headers["PAYMENT-RESPONSE"]
        known = await status(gateway, order["order"])
        assert (known["status"], known["payer"]) == ("paid", gateway.wallet.address_text)
        session = await gateway.ask("GET", f"/sessions/{known['session_id']}")
        assert session.json()["controller_hotkey"] == PHONE.ss58
        assert_error(await gateway.ask("GET", f"/sessions/{known['session_id']}", keypair=STRANGER), 403)


async def test_a_link_is_paid_once_however_many_pay_it_at_once() -> None:
    async with running_gateway() as gateway:
        order = (await made(gateway))["order"]
        asked = await post(gateway, order)
        wallets = [PlayWallet(hashlib.sha256(b"wallet %d" % n).digest()) for n in range(10)]
        answers_: list[httpx2.Response] = []

        async def pay(wallet: PlayWallet) -> None:
            answers_.append(await post(gateway, order, payment_of(gateway, asked, wallet)))

        async with trio.open_nursery() as nursery:
            for wallet in wallets:
                nursery.start_soon(pay, wallet)
        assert sorted(each.status_code for each in answers_) == [202] + [409] * 9
        assert {each.json()["code"] for each in answers_ if each.status_code == 409} == {"order_taken"}
        assert len(gateway.facilitator.settled) == 1
        assert_error(await post(gateway, order), 409, code="order_taken")


async def test_the_same_payment_again_gets_its_answer_also_after_the_links_time() -> None:
    async with running_gateway() as gateway:
        order = (await made(gateway))["order"]
        payment = payment_of(gateway, await post(gateway, order))
        first = await post(gateway, order, payment)
        gateway.clock.advance(pay_links.LIFETIME_S + 1)
        spaced = f'{{ "order": "{order}" }}'.encode()
        again = await gateway.client.post(f"{gateway.url}/orders/pay", content=spaced, headers=payment)
        assert (again.status_code, again.json()) == (202, first.json())
        assert len(gateway.facilitator.settled) == 1


async def test_an_expired_link_takes_nothing() -> None:
    async with running_gateway() as gateway:
        order = (await made(gateway))["order"]
        asked = await post(gateway, order)
        gateway.clock.advance(pay_links.LIFETIME_S)
        late = payment_of(gateway, asked)
        assert_error(await post(gateway, order, late), 410, code="order_expired")
        assert_error(await post(gateway, order), 410, code="order_expired")
        assert (await status(gateway, order))["status"] == "expired"
        assert gateway.facilitator.settled == []


async def test_a_payment_of_one_link_pays_no_other_and_no_session_of_somebody_else() -> None:
    async with running_gateway() as gateway:
        first, second = (await made(gateway))["order"], (await made(gateway))["order"]
        payment = payment_of(gateway, await post(gateway, first))
        assert (await post(gateway, first, payment)).status_code == 202
        assert_error(await post(gateway, second, payment), 409, code="payment_conflict")
        stolen = await gateway.ask("POST", "/sessions", BODY, keypair=STRANGER, headers=payment)
        assert_error(stolen, 409, code="payment_conflict")
        assert len(gateway.facilitator.settled) == 1
        assert (await status(gateway, second))["status"] == "open"


async def test_an_outcome_that_is_not_known_is_pending_and_keeps_others_from_paying() -> None:
    async with running_gateway(payments={"answer_within_s": 0.3}) as gateway:
        order = (await made(gateway))["order"]
        gateway.facilitator.settlement = outcomes.Unknown("read_timeout")
        answer = await paid(gateway, order)
        assert (answer.status_code, answer.json()["code"]) == (202, "payment_pending")
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await status(gateway, order))["status"] == "pending"
        waiting = await post(gateway, order)
        assert_error(waiting, 409, code="order_taken")
        assert int(waiting.headers["Retry-After"]) >= 1
        asked = await gateway.ask("POST", "/sessions", BODY)
        refused = await post(gateway, order, payment_of(gateway, asked, other_wallet()))
        assert_error(refused, 409, code="order_taken")


async def test_a_refused_payment_leaves_the_link_open_for_another_wallet() -> None:
    async with running_gateway() as gateway:
        order = (await made(gateway))["order"]
        gateway.facilitator.verification = outcomes.Invalid("insufficient_funds")
        refused = assert_error(await paid(gateway, order), 402, code="insufficient_funds")
        assert refused["accepts"][0]["maxAmountRequired"] == "100000"
        gateway.facilitator.verification = outcomes.Valid()
        answer = await paid(gateway, order, other_wallet())
        assert (answer.status_code, answer.json()["payer"]) == (202, other_wallet().address_text)


async def test_what_comes_back_goes_to_the_address_that_paid() -> None:
    async with running_gateway() as gateway:
        order = (await made(gateway))["order"]
        payment = payment_of(gateway, await post(gateway, order), other_wallet())
        await post(gateway, order, payment)
        session_id = (await status(gateway, order))["session_id"]
        await gateway.ask("DELETE", f"/sessions/{session_id}")
        await gateway.happen(session_id, SessionEvent.DESTROYED)
        terms = refund_terms(gateway.services.settings.payments)
        await gateway.ledger.write(
            lambda connection: refunds.settle_up(connection, session_id, terms, gateway.instants.now())
        )
        again = (await post(gateway, order, payment)).json()
        assert [(each["amount_usd"], each["status"]) for each in again["refunds"]] == [(0.1, "due")]
        assert again["payer"] == other_wallet().address_text
        assert (await status(gateway, order))["status"] == "paid", "it is not for sale again"


async def test_a_link_adds_time_to_a_session_of_the_one_who_made_it() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        await gateway.happen(session_id, SessionEvent.NODE_READY)
        body = {"session_id": session_id, "duration_hours": 2}
        stranger = await gateway.ask("POST", "/orders", body, keypair=STRANGER)
        assert_error(stranger, 403, code="not_yours")
        order = await made(gateway, body)
        assert (order["session_id"], order["amount_usd"]) == (session_id, 0.2)
        assert (await paid(gateway, order["order"])).status_code == 202
        session = (await gateway.ask("GET", f"/sessions/{session_id}")).json()
        assert session["remaining_seconds"] > 2.9 * 3_600
        assert (await status(gateway, order["order"]))["session_id"] == session_id


async def test_a_link_keeps_its_price_and_dies_with_its_recipient() -> None:
    async with running_gateway() as gateway:
        order = (await made(gateway))["order"]
        dearer = pay_links.read(order, GATEWAY.public_key)
        asked = await post(gateway, order)
        assert asked.json()["accepts"][0]["payTo"].lower() == "0x" + dearer.pay_to
        elsewhere = pay_links.PayLink(
            **{name: getattr(dearer, name) for name in dearer.__struct_fields__ if name != "pay_to"}, pay_to="22" * 20
        )
        moved = await post(gateway, pay_links.seal(elsewhere, GATEWAY))
        assert_error(moved, 410, code="order_expired")
        asked = await gateway.ask("POST", "/sessions", {"tier": "pro", "duration_hours": 9})
        assert_error(
            await post(gateway, order, payment_of(gateway, asked)),
            402,
            code="invalid_payment_requirements",
        )


async def test_a_forged_link_and_garbage_are_refused() -> None:
    async with running_gateway() as gateway:
        order = (await made(gateway))["order"]
        content, _, signature = order.partition(".")
        changed = json.loads(base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)))
        changed["amount"] = 1
        forged = base64.urlsafe_b64encode(json.dumps(changed).encode()).decode().rstrip("=")
        for given in (f"{forged}.{signature}", "x", ""):
            assert_error(await post(gateway, given), 400, code="bad_link")
            assert_error(await gateway.ask("POST", "/orders/status", {"order": given}), 400, code="bad_link")
        for body in (b"", b"[]", b'{"order": 1}', b'{"order": "' + b"x" * 3_000 + b'"}'):
            answer = await gateway.client.post(f"{gateway.url}/orders/pay", content=body)
            assert_error(answer, 400, code="invalid_json")
        assert_error(await post(gateway, order, {"PAYMENT-SIGNATURE": "x"}), 400, code="malformed_payment")


async def test_only_who_made_an_order_reads_what_became_of_it() -> None:
    async with running_gateway() as gateway:
        order = (await made(gateway))["order"]
        refused = await gateway.ask("POST", "/orders/status", {"order": order}, keypair=STRANGER)
        assert_error(refused, 403, code="not_yours")
        unsigned = await gateway.client.post(f"{gateway.url}/orders", json=BODY)
        assert_error(unsigned, 401)


async def test_answers_to_the_payer_are_signed_where_they_name_a_time() -> None:
    async with running_gateway() as gateway:
        order = (await made(gateway))["order"]
        stamp = str(round(gateway.clock.now() * 1_000))
        asked = await post(gateway, order, {"X-Timestamp": stamp})
        answers.verify_answer(asked.headers, 402, stamp, asked.content, gateway=GATEWAY.public_key)
        assert answers.SIGNATURE_HEADER not in (await post(gateway, order, {"X-Timestamp": "soon"})).headers
        done = await post(gateway, order, payment_of(gateway, asked) | {"X-Timestamp": stamp})
        answers.verify_answer(done.headers, 202, stamp, done.content, gateway=GATEWAY.public_key)


@pytest.mark.parametrize(
    ("body", "status_code", "code"),
    [
        ({"tier": "huge"}, 400, "unknown_tier"),
        ({"duration_hours": 0}, 400, "bad_duration"),
        ({"session_id": "none"}, 404, "not_found"),
        ({"session_id": "x" * 65}, 400, "invalid_json"),
    ],
)
async def test_an_order_that_cannot_be_is_not_made(body: dict[str, Any], status_code: int, code: str) -> None:
    async with running_gateway() as gateway:
        assert_error(await gateway.ask("POST", "/orders", body), status_code, code=code)


async def test_no_link_is_made_for_what_has_no_room_and_an_old_one_says_so() -> None:
    async with running_gateway(places=1) as gateway:
        order = (await made(gateway))["order"]
        asked = await post(gateway, order)
        await gateway.buy()
        assert_error(await gateway.ask("POST", "/orders", BODY), 503, code="no_capacity")
        assert_error(await post(gateway, order, payment_of(gateway, asked)), 503, code="no_capacity")
        assert len(gateway.facilitator.settled) == 1


async def test_without_an_app_a_link_has_no_address() -> None:
    async with running_gateway(phone={"serve": "off"}) as gateway:
        assert (await made(gateway))["url"] == ""
