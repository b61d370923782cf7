"""A client of the cloud gateway: buy a session, watch it, prolong it, stop it.

    with GatewayClient("http://127.0.0.1:9000", keypair, wallet) as gateway:
        session = gateway.create_session("lite", hours=1, max_usd=0.2)
        session = gateway.wait_active(session.session_id)
        ...
        gateway.stop(session.session_id)

Blocking; use one client per thread. Every request is signed (version 2: the body too), every answer that is acted on
must be signed by the gateway's key: the one given, else the one it published at first contact.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Final, Self, TypeVar, final

import msgspec

from engram.api import gateway as api
from engram.api.gateway_model import (
    CreateSessionBody,
    ExtendSessionBody,
    MakeOrderBody,
    OrderBody,
    RestoredBody,
)
from engram.api.route import NoBody, Route
from engram.clock import Clock, SystemClock
from engram.hotkeys import AuthError, Keypair, PublicKey, answers, gateway_scheme, parse_hotkey
from engram.sdk import event_stream
from engram.sdk.errors import (
    ApiError,
    Impostor,
    NotReached,
    OutcomeUnknown,
    PaymentNeeded,
    PaymentRefused,
    SdkError,
    SessionOver,
    WaitedTooLong,
)
from engram.sdk.gateway_rules import dearest_usd, decode, wait_s
from engram.sdk.model import (
    Event,
    Identity,
    OrderPayment,
    OrderStatus,
    Payment,
    PayOrder,
    Session,
    Spending,
    Stopped,
    Tier,
)
from engram.sdk.transport import Answer, Transport, error_of
from engram.sdk.wallet import Wallet

A = TypeVar("A")
Q = TypeVar("Q")

POLL_S: Final = 0.5
PAID_ATTEMPTS: Final = 4
"""How often a paid request is sent when its answer is lost, always with the same payment."""
STREAM_SILENCE_S: Final = 45.0
"""The gateway sends a heartbeat every 15 s."""
RECONNECTS: Final = 5
"""Connections lost in a row, with nothing received between, before `events` gives up."""


@final
class GatewayClient:
    """Speaks for one hotkey to one gateway."""

    def __init__(
        self,
        url: str,
        keypair: Keypair,
        wallet: Wallet | None = None,
        *,
        gateway_hotkey: str | None = None,
        timeout_s: float = 15.0,
        clock: Clock | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`gateway_hotkey` pins the gateway's key (SS58 or hex). Raises MalformedHotkey when it is none."""
        self._transport = Transport(url, timeout_s=timeout_s)
        self._keypair = keypair
        self._wallet = wallet
        self._gateway: PublicKey | None = None if gateway_hotkey is None else parse_hotkey(gateway_hotkey)
        self._clock = clock or SystemClock()
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def tiers(self) -> list[Tier]:
        """Return what can be bought, cheapest first."""
        return self._public(api.TIERS).tiers

    def identity(self) -> Identity:
        """Return the key that signs the gateway's answers."""
        return self._public(api.IDENTITY)

    def health(self) -> dict[str, object]:
        """`{"status":"ok","service":"engram-cloud-gateway"}`."""
        return msgspec.structs.asdict(self._public(api.HEALTH))

    def create_session(self, tier: str = "standard", *, hours: float = 1.0, max_usd: float | None = None) -> Session:
        """Buy a session and return it, paid but not yet active.

        `max_usd` is the most to pay; None accepts any price. If the answer is lost, the same payment is sent again and
        returns the same session. Raises PaymentNeeded (no wallet, or dearer than `max_usd`),
        PaymentRefused, ApiError, Impostor, NotReached, OutcomeUnknown.
        """
        return self._buy(api.CREATE_SESSION, CreateSessionBody(tier, hours), max_usd)

    def extend(self, session_id: str, *, hours: float, max_usd: float | None = None) -> Session:
        """Buy more time for a live session. Raises like `create_session`."""
        return self._buy(api.EXTEND_SESSION, ExtendSessionBody(hours), max_usd, session_id=session_id)

    def make_order(self, tier: str = "standard", *, hours: float = 1.0, session_id: str | None = None) -> PayOrder:
        """Make a link by which somebody else, or another wallet, pays once for a session of this hotkey.

        `session_id` names a session that gets more time, whatever the tier; None: a new one. Raises ApiError.
        """
        body = MakeOrderBody(tier, hours, session_id)
        return self._ask(api.MAKE_ORDER, body)

    def order_status(self, order: str) -> OrderStatus:
        """Return what became of an order of this hotkey. Raises ApiError (403, 400)."""
        return self._ask(api.SHOW_ORDER, OrderBody(order))

    def pay_order(self, order: str, *, max_usd: float | None = None) -> OrderPayment:
        """Pay somebody's order with this client's wallet: what is bought is theirs, refunds come back to the wallet.

        Raises like `create_session`; ApiError 409 `order_taken` or 410 `order_expired`, and then nothing was paid.
        """
        return self._buy(api.PAY_ORDER, OrderBody(order), max_usd)

    def balance(self, address: str) -> Spending:
        """Return what an address (0x…) owns of the token that is paid with. Raises ApiError."""
        return self._signed(api.SHOW_BALANCE, address=address)

    def play_money(self, address: str) -> Spending:
        """Give play money to an address, in `local` alone, and return what it owns then. Raises ApiError (404)."""
        return self._signed(api.GIVE_PLAY_MONEY, address=address)

    def get(self, session_id: str) -> Session:
        """Return the session as it is now. Raises ApiError (404, 403)."""
        return self._signed(api.SHOW_SESSION, session_id=session_id)

    def sessions(self) -> list[Session]:
        """Return all sessions of this hotkey, the newest first."""
        return self._signed(api.LIST_SESSIONS, hotkey=self._keypair.ss58).sessions

    def payment(self, payment_id: str) -> Payment:
        """Return a payment of this hotkey. Raises ApiError (404)."""
        return self._signed(api.SHOW_PAYMENT, payment_id=payment_id)

    def stop(self, session_id: str) -> Stopped:
        """Stop a session permanently; its node is destroyed soon after. Repeating it is harmless."""
        return self._signed(api.STOP_SESSION, session_id=session_id)

    def mark_restored(self, session_id: str, emptied_at: float) -> Session:
        """Say that what the node lost at `emptied_at` was restored; `restoring.restore_session` does this by itself.

        Raises ApiError (409 `not_this_loss`: the node has lost its memory again).
        """
        return self._ask(api.MARK_RESTORED, RestoredBody(emptied_at), session_id=session_id)

    def wait_active(self, session_id: str, *, timeout_s: float = 180.0) -> Session:
        """Wait until the node of a session answers. Raises SessionOver, WaitedTooLong, ApiError."""
        return self._wait(session_id, lambda session: session.status in ("active", "degraded"), "active", timeout_s)

    def wait_ended(self, session_id: str, *, timeout_s: float = 60.0) -> Session:
        """Wait until a session's node is confirmed to be destroyed. Raises WaitedTooLong, ApiError."""
        return self._wait(session_id, lambda session: session.ended, "over", timeout_s)

    def events(self, session_id: str, *, last_event_id: str | None = None) -> Iterator[Event]:
        """Yield the session's events as they happen (`state`, `stats`), until it is over.

        Reconnects and resumes after a lost connection. Raises ApiError, NotReached, OutcomeUnknown.
        """
        lost = 0
        while True:
            try:
                for event in self._stream(session_id, last_event_id):
                    lost, last_event_id = 0, event.id or last_event_id
                    if event.event == "end":
                        return
                    yield event
            except (NotReached, OutcomeUnknown):
                lost += 1
                if lost > RECONNECTS:
                    raise
            else:
                lost += 1
                if lost > RECONNECTS:
                    raise OutcomeUnknown(f"the gateway ended the event stream {lost} times without saying anything")
            self._sleep(min(10.0, 0.5 * 2**lost))

    def _stream(self, session_id: str, last_event_id: str | None) -> Iterator[Event]:
        path = api.STREAM_EVENTS.url(session_id=session_id)
        headers = self._auth("GET", path, b"") | {"accept": "text/event-stream"}
        if last_event_id is not None:
            headers["last-event-id"] = last_event_id
        with self._transport.lines(path, headers, silence_s=STREAM_SILENCE_S) as (answer, lines):
            if answer.status == 204:
                yield Event(event="end", data={})
            elif answer.status != 200:
                raise error_of(answer)
            yield from event_stream.parse(lines)

    def _wait(self, session_id: str, reached: Callable[[Session], bool], what: str, timeout_s: float) -> Session:
        deadline = self._clock.monotonic() + timeout_s
        while True:
            session = self.get(session_id)
            if reached(session):
                return session
            if session.ended:
                reason = session.error or session.end_reason or "no reason was given"
                raise SessionOver(f"session {session_id} is {session.status}: {reason}")
            if self._clock.monotonic() >= deadline:
                raise WaitedTooLong(f"session {session_id} is {session.status}, not {what}, after {timeout_s:g} s")
            self._sleep(POLL_S)

    def _buy(self, route: Route[Q, A], order: Q, max_usd: float | None, **names: str) -> A:
        path, body = route.url(**names), msgspec.json.encode(order)
        answer = self._send(route.method, path, body)
        if answer.status == route.success.status:
            return decode(answer, route)
        if answer.status != 402:
            raise error_of(answer, verified=True)
        return self._pay(route, path, body, self._payment(answer, max_usd))

    def _payment(self, answer: Answer, max_usd: float | None) -> dict[str, str]:
        required = answer.headers.get("payment-required", "")
        price_usd = dearest_usd(required)
        if self._wallet is None:
            raise PaymentNeeded(f"this costs {price_usd} USD: give GatewayClient a wallet to pay with")
        if max_usd is not None and price_usd > max_usd:
            raise PaymentNeeded(f"this costs {price_usd} USD, more than the {max_usd} USD allowed")
        payment = self._wallet.pay(required, self._clock.now(), secrets.token_bytes(32))
        return {"PAYMENT-SIGNATURE": payment}

    def _pay(self, route: Route[Q, A], path: str, body: bytes, payment: dict[str, str]) -> A:
        """Send the paid request until it is answered, always with the same payment, so that it is charged once."""
        for attempt in range(1, PAID_ATTEMPTS + 1):
            try:
                answer = self._send(route.method, path, body, payment)
            except (NotReached, OutcomeUnknown) as lost:
                error: SdkError = lost
                waits_s: float | None = POLL_S * 2**attempt
            except ApiError as refused:  # refused before the signature was checked
                error, waits_s = refused, wait_s(refused, POLL_S)
            else:
                if answer.status == route.success.status:
                    return decode(answer, route)
                refusal = error_of(answer, verified=True)
                if answer.status == 402:
                    raise PaymentRefused(refusal.message)
                error, waits_s = refusal, wait_s(refusal, POLL_S)
            if waits_s is None or attempt == PAID_ATTEMPTS:
                raise error
            self._sleep(waits_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _public(self, route: Route[NoBody, A]) -> A:
        answer = self._transport.request(route.method, route.path)
        if answer.status != route.success.status:
            raise error_of(answer)
        return decode(answer, route)

    def _ask(self, route: Route[Q, A], request: Q, **names: str) -> A:
        answer = self._send(route.method, route.url(**names), msgspec.json.encode(request))
        if answer.status != route.success.status:
            raise error_of(answer, verified=True)
        return decode(answer, route)

    def _signed(self, route: Route[NoBody, A], **names: str) -> A:
        answer = self._send(route.method, route.url(**names), None)
        if answer.status != route.success.status:
            raise error_of(answer, verified=True)
        return decode(answer, route)

    def _send(self, method: str, path: str, body: bytes | None, payment: dict[str, str] | None = None) -> Answer:
        """Send a signed request and return the gateway's signed answer. Unsigned refusals are raised as ApiError."""
        gateway = self._gateway_key()
        headers = self._auth(method, path, body or b"")
        answer = self._transport.request(method, path, body=body, headers=headers | (payment or {}))
        try:
            answers.verify_answer(answer.headers, answer.status, headers["X-Timestamp"], answer.body, gateway=gateway)
        except AuthError as refused:
            if refused.code == "missing_header" and answer.status >= 400 and answer.status != 402:
                raise error_of(answer) from None
            raise Impostor(f"{self._transport.url}: {refused.message}") from None
        return answer

    def _auth(self, method: str, path: str, body: bytes) -> dict[str, str]:
        now_ms = int(self._clock.now() * 1000)
        return gateway_scheme.sign_request(self._keypair, method, path, now_ms, body, version=2)

    def _gateway_key(self) -> PublicKey:
        if self._gateway is None:
            self._gateway = parse_hotkey(self.identity().hotkey)
        return self._gateway
