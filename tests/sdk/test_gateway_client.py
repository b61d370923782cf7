"""The gateway's client against the real surface, and against servers that lie or lose answers."""

import hashlib
import json
import time
from collections.abc import Callable
from typing import TypeVar

import pytest
import trio

from engram.hotkeys import Keypair, answers
from engram.payments import outcomes, x402
from engram.payments.model import Quote, Requirements
from engram.payments.networks import PLAY
from engram.payments.play_wallet import PlayWallet
from engram.sdk import (
    ApiError,
    GatewayClient,
    Impostor,
    MalformedAnswer,
    NotReached,
    OutcomeUnknown,
    PaymentNeeded,
    PaymentRefused,
    Session,
    SessionOver,
    WaitedTooLong,
)
from engram.sessions import SessionEvent
from tests.gateway.surface import GATEWAY, PHONE, STRANGER, Gateway, running_gateway
from tests.sdk.doubles import Asked, Told, scripted

T = TypeVar("T")
SESSION = {
    "session_id": "s",
    "controller_hotkey": PHONE.ss58,
    "status": "provisioning",
    "created_at": 1.0,
    "expires_at": 2.0,
    "remaining_seconds": 1.0,
}


def wallet() -> PlayWallet:
    return PlayWallet(hashlib.sha256(b"buyer").digest())


async def using(gateway: Gateway, use: Callable[[GatewayClient], T], keypair: Keypair = PHONE) -> T:
    """Run `use` with a client in a thread, as programs do."""

    def run() -> T:
        with GatewayClient(gateway.url, keypair, wallet(), clock=gateway.clock, sleep=lambda _: None) as client:
            return use(client)

    return await trio.to_thread.run_sync(run)


async def test_an_order_is_paid_once_by_another_and_is_of_the_one_who_made_it() -> None:
    async with running_gateway() as gateway:
        order = await using(gateway, lambda client: client.make_order("lite", hours=1))
        paid = await using(gateway, lambda client: client.pay_order(order.order, max_usd=0.1), STRANGER)
        assert (paid.code, paid.payer, paid.amount_usd) == ("accepted", wallet().address_text, 0.1)
        status = await using(gateway, lambda client: client.order_status(order.order))
        assert status.status == "paid"
        assert [each.session_id for each in await using(gateway, GatewayClient.sessions)] == [status.session_id]
        assert await using(gateway, GatewayClient.sessions, STRANGER) == []
        with pytest.raises(ApiError, match="paid already"):
            await using(gateway, lambda client: client.pay_order(order.order))
        dearer = await using(gateway, lambda client: client.make_order("pro", hours=1))
        with pytest.raises(PaymentNeeded):
            await using(gateway, lambda client: client.pay_order(dearer.order, max_usd=0.1))


async def test_what_a_key_owns_is_read_and_play_money_is_given() -> None:
    async with running_gateway() as gateway:
        address = wallet().address_text
        before = await using(gateway, lambda client: client.balance(address))
        assert (before.address, before.network) == (address, "engram-play")
        if before.faucet:
            given = await using(gateway, lambda client: client.play_money(address))
            assert int(given.amount or 0) >= int(before.amount or 0)


async def test_the_whole_life_of_a_session() -> None:
    async with running_gateway() as gateway:

        def buy(client: GatewayClient) -> Session:
            assert [tier.tier for tier in client.tiers()] == ["lite", "standard", "pro"]
            assert client.health()["status"] == "ok"
            return client.create_session("lite", hours=2, max_usd=0.2)

        session = await using(gateway, buy)
        assert session.status == "provisioning"
        assert session.amount_paid_usd == 0.2
        await gateway.happen(session.session_id, SessionEvent.NODE_READY)

        def use(client: GatewayClient) -> Session:
            assert client.wait_active(session.session_id).status == "active"
            assert [one.session_id for one in client.sessions()] == [session.session_id]
            assert client.payment(session.payment_id or "").status == "settled"
            longer = client.extend(session.session_id, hours=1)
            assert longer.remaining_seconds == pytest.approx(3 * 3600, abs=1)
            assert client.stop(session.session_id).stopped
            return client.get(session.session_id)

        assert (await using(gateway, use)).status == "stopping"
        await gateway.happen(session.session_id, SessionEvent.DESTROYED)
        ended = await using(gateway, lambda client: client.wait_ended(session.session_id))
        assert (ended.status, ended.ended) == ("stopped", True)
        with pytest.raises(SessionOver, match="stopped_by_user"):
            await using(gateway, lambda client: client.wait_active(session.session_id))


async def test_events_are_read_to_the_end_and_go_on_after_a_lost_connection() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        steps = (SessionEvent.NODE_READY, SessionEvent.END, SessionEvent.DESTROYED)
        await gateway.happen(session_id, *steps)

        def read(client: GatewayClient) -> list[object]:
            return [event.data["what"] for event in client.events(session_id, last_event_id="0")]

        wanted = ["payment_pending", "provisioning", "active", "stopping", "stopped"]
        assert await using(gateway, read) == wanted
        last = str(
            await gateway.ledger.read(lambda c: c.exec_driver_sql("select max(id) from session_events").scalar())
        )
        again = await using(gateway, lambda client: list(client.events(session_id, last_event_id=last)))
        assert again == []


async def test_errors_carry_what_to_do() -> None:
    async with running_gateway(sessions={"live_per_hotkey": 1}) as gateway:
        session_id = (await gateway.buy())["session_id"]
        with pytest.raises(ApiError, match="Session not found") as missing:
            await using(gateway, lambda client: client.get("a b?c"))
        assert (missing.value.status, missing.value.code, missing.value.verified) == (404, "not_found", True)
        with pytest.raises(ApiError) as others:
            await using(gateway, lambda client: client.get(session_id), keypair=STRANGER)
        assert others.value.status == 403
        with pytest.raises(ApiError) as full:
            await using(gateway, lambda client: client.create_session("lite"))
        assert (full.value.status, full.value.code) == (429, "session_limit")
        assert full.value.retry_after_s is not None


async def test_a_clock_that_is_off_is_told_by_the_gateway() -> None:
    async with running_gateway() as gateway:

        def run() -> None:
            with GatewayClient(gateway.url, PHONE) as client:  # the real clock, years away from the gateway's
                client.sessions()

        with pytest.raises(ApiError) as refused:
            await trio.to_thread.run_sync(run)
        assert refused.value.code == "future"
        assert refused.value.verified  # by its signed answer alone a client may set its clock


async def test_waiting_ends() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]

        def wait(client: GatewayClient) -> None:
            client.wait_active(session_id, timeout_s=0)

        with pytest.raises(WaitedTooLong, match="is provisioning, not active"):
            await using(gateway, wait)


async def test_no_more_is_paid_than_allowed() -> None:
    async with running_gateway() as gateway:
        with pytest.raises(PaymentNeeded, match=r"costs 3\.6 USD, more than the 3\.5"):
            await using(gateway, lambda client: client.create_session("pro", hours=10, max_usd=3.5))

        def without_wallet() -> None:
            with GatewayClient(gateway.url, PHONE, clock=gateway.clock) as client:
                client.create_session()

        with pytest.raises(PaymentNeeded, match="wallet"):
            await trio.to_thread.run_sync(without_wallet)
        assert gateway.facilitator.settled == []


async def test_a_refused_payment_says_why() -> None:
    async with running_gateway() as gateway:
        gateway.facilitator.verification = outcomes.Invalid("insufficient_funds")
        with pytest.raises(PaymentRefused, match="insufficient_funds"):
            await using(gateway, lambda client: client.create_session("lite"))


def client_of(url: str, **options: object) -> GatewayClient:
    return GatewayClient(url, PHONE, wallet(), sleep=lambda _: None, **options)  # type: ignore[arg-type]


def signed(asked: Asked, told: Told, keypair: Keypair = GATEWAY) -> Told:
    stamp = asked.headers["x-timestamp"]
    return Told(told.status, told.body, told.headers | answers.sign_answer(keypair, told.status, stamp, told.body))


def offer(usd: float = 0.2) -> Told:
    requirements = Requirements(PLAY, round(usd * 1_000_000), b"\x11" * 20, 120)
    challenge = x402.challenge(Quote(requirements, "http://gateway/sessions", "a node"))
    required = dict(challenge.headers)["PAYMENT-REQUIRED"]
    body = json.dumps({"error": "Payment required", "amount_usd": 0.01}).encode()
    return Told(402, body, {"PAYMENT-REQUIRED": required})


def identity(asked: Asked) -> Told | None:
    return Told(body=json.dumps({"hotkey": GATEWAY.ss58}).encode()) if asked.path == "/identity" else None


def test_a_lost_answer_to_a_payment_is_asked_for_again_with_the_same_payment() -> None:
    payments: list[str] = []

    def script(asked: Asked) -> Told:
        payment = asked.headers.get("payment-signature")
        if (known := identity(asked)) is not None:
            return known
        if payment is None:
            return signed(asked, offer())
        payments.append(payment)
        told = signed(asked, Told(202, json.dumps(SESSION).encode()))
        told.cut = 10 if len(payments) < 3 else None
        return told

    with scripted(script) as url, client_of(url) as client:
        assert client.create_session("lite").session_id == "s"
    assert len(payments) == 3
    assert len(set(payments)) == 1


def test_an_answer_that_stays_lost_is_an_unknown_outcome() -> None:
    def script(asked: Asked) -> Told:
        if "payment-signature" in asked.headers:
            return Told(202, b"{}" * 20, cut=3)
        return identity(asked) or signed(asked, offer())

    with scripted(script) as url, client_of(url) as client, pytest.raises(OutcomeUnknown):
        client.create_session("lite")


@pytest.mark.parametrize(("status", "code"), [(503, "busy"), (429, "rate_limited")])
@pytest.mark.parametrize("is_signed", [True, False])
def test_a_payment_that_is_not_taken_now_is_sent_again(status: int, code: str, is_signed: bool) -> None:
    tries: list[int] = []
    busy = Told(status, json.dumps({"error": "busy", "code": code}).encode(), {"Retry-After": "1"})

    def script(asked: Asked) -> Told:
        if "payment-signature" not in asked.headers:
            return identity(asked) or signed(asked, offer())
        tries.append(1)
        if len(tries) == 1:
            return signed(asked, busy) if is_signed else busy
        return signed(asked, Told(202, json.dumps(SESSION).encode()))

    with scripted(script) as url, client_of(url) as client:
        assert client.create_session("lite").session_id == "s"


def test_a_payment_that_conflicts_is_not_sent_again() -> None:
    tries: list[int] = []

    def script(asked: Asked) -> Told:
        if "payment-signature" not in asked.headers:
            return identity(asked) or signed(asked, offer())
        tries.append(1)
        return signed(asked, Told(409, b'{"error":"no","code":"payment_conflict"}'))

    with scripted(script) as url, client_of(url) as client, pytest.raises(ApiError, match="payment_conflict"):
        client.create_session("lite")
    assert tries == [1]


@pytest.mark.parametrize("who", ["nobody", "another"])
def test_an_impostor_is_neither_paid_nor_believed(who: str) -> None:
    def script(asked: Asked) -> Told:
        assert "payment-signature" not in asked.headers
        told = offer()
        return identity(asked) or (told if who == "nobody" else signed(asked, told, STRANGER))

    with scripted(script) as url, client_of(url) as client, pytest.raises(Impostor):
        client.create_session("lite")


def test_a_pinned_gateway_is_not_asked_who_it_is() -> None:
    def script(asked: Asked) -> Told:
        assert asked.path != "/identity"
        return signed(asked, Told(body=json.dumps(SESSION).encode()), STRANGER)

    with scripted(script) as url, client_of(url, gateway_hotkey=GATEWAY.ss58) as client, pytest.raises(Impostor):
        client.get("s")


def test_an_old_answer_is_not_believed_for_a_new_request() -> None:
    kept: list[Told] = []

    def script(asked: Asked) -> Told:
        if not kept:
            kept.append(signed(asked, Told(body=json.dumps(SESSION).encode())))
        return kept[0]

    with scripted(script) as url, client_of(url, gateway_hotkey=GATEWAY.ss58) as client:
        client.get("s")
        time.sleep(0.002)
        with pytest.raises(Impostor):
            client.get("s")


def test_the_price_that_counts_is_the_one_that_would_be_signed() -> None:
    def script(asked: Asked) -> Told:
        return identity(asked) or signed(asked, offer(usd=50))  # the body says 0.01

    with scripted(script) as url, client_of(url) as client, pytest.raises(PaymentNeeded, match="50"):
        client.create_session("lite", max_usd=1)


@pytest.mark.parametrize(
    "told",
    [
        Told(402, b"{}"),
        Told(402, b"{}", {"PAYMENT-REQUIRED": "!!"}),
        Told(402, b"{}", {"PAYMENT-REQUIRED": "eyJhY2NlcHRzIjpbXX0="}),
        Told(202, b"[]"),
        Told(202, b"\xff"),
        Told(202, b"[" * 10_000),
    ],
)
def test_an_unreadable_answer_is_said_to_be_one(told: Told) -> None:
    with (
        scripted(lambda asked: identity(asked) or signed(asked, told)) as url,
        client_of(url) as client,
        pytest.raises(MalformedAnswer),
    ):
        client.create_session("lite")


def test_an_answer_without_end_is_refused() -> None:
    told = Told(200, b"x" * 5_000_000)
    with scripted(lambda _: told) as url, client_of(url) as client, pytest.raises(MalformedAnswer, match="more than"):
        client.tiers()


def test_an_error_page_of_something_between_is_an_api_error() -> None:
    told = Told(502, b"<html>bad gateway</html>")
    with scripted(lambda _: told) as url, client_of(url) as client, pytest.raises(ApiError, match="bad gateway"):
        client.tiers()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "ftp://127.0.0.1"])
def test_a_gateway_that_is_not_there_is_said_so(url: str) -> None:
    with client_of(url) as client, pytest.raises(NotReached):
        client.tiers()


def test_a_stream_that_says_nothing_is_given_up() -> None:
    opened: list[str] = []

    def script(asked: Asked) -> Told:
        if asked.path.endswith("/events"):
            opened.append(asked.headers.get("last-event-id", ""))
            text = b'id: 7\nevent: state\ndata: {"a":1}\n\n' if len(opened) == 2 else b": nothing\n\n"
            return Told(200, text, {"content-type": "text/event-stream"})
        return identity(asked) or Told(404)

    with (
        scripted(script) as url,
        client_of(url) as client,
        pytest.raises(OutcomeUnknown, match="ended the event stream"),
    ):
        for event in client.events("s"):
            assert event.id == "7"
    assert opened[:2] == ["", ""]
    assert set(opened[2:]) == {"7"}
