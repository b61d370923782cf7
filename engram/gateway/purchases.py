"""What costs money: POST /sessions and POST /sessions/{id}/extend.

Order of the checks, as phones rely on it: signature, JSON, tier, duration, payment, limits. A 402 uses nothing up, so
the same signed request may come again with its payment. What a payment does is the payment verifier's work: here it is
only asked, and its answer put into HTTP. A client that goes away changes nothing.
"""

import ipaddress
from typing import Final, assert_never

import msgspec
import trio
from sqlalchemy import Connection

from actors import ActorDown, CallTimeout, MailboxFull
from engram.gateway.answers import BoughtAnswer
from engram.gateway.caller import Caller, identify_request
from engram.gateway.replies import json_object, shortened
from engram.gateway.services import Services
from engram.gateway.sessions import owned
from engram.gateway.views import session_answer
from engram.http.direct import Answer, Direct, Request, json_answer
from engram.http.errors import ApiError
from engram.http.limits import bucket_of
from engram.ledger import LaneClosed
from engram.payments import records as payment_records
from engram.payments import rules as payment_rules
from engram.payments import x402
from engram.payments.errors import MalformedPayment, UnprovenReceipt
from engram.payments.model import AuthorizationKey, Payload, Payment, PaymentState, Quote
from engram.payments.protocol import Extension, NewSession, Purchase, Wanted
from engram.payments.purchase_answer import (
    Bought,
    Conflict,
    NoRoom,
    PurchaseAnswer,
    Refused,
    Replayed,
    StillPending,
    Unavailable,
)
from engram.payments.x402 import Challenge
from engram.sessions import InvalidDuration, Session, UnknownTier, rules
from engram.sessions import records as session_records

UNSIGNED: Final = "Invalid or missing gateway auth headers."
NO_ROOM_STATUS: Final = {
    "no_capacity": 503,
    "session_limit": 429,
    "too_many_open_payments": 429,
    "session_over": 409,
    "below_minimum": 400,
}
MARGIN_S: Final = 0.4
"""How much longer than promised the verifier's answer is waited for."""
LATEST_S: Final = 0.9
"""How much longer than the verifier's promise the whole answer may take, whatever else is slow."""


def add_purchase_routes(direct: Direct, services: Services) -> None:
    """Add the endpoints that sell."""
    tiers = rules.tiers(services.settings.pricing.lite_usd_per_hour)

    async def create_session(request: Request) -> Answer:
        caller = identify_request(services, request, UNSIGNED)
        asked = json_object(request.body)
        try:
            tier = rules.tier_named(tiers, asked.get("tier", "standard"))
        except UnknownTier as unknown:
            raise ApiError(400, "unknown_tier", shortened(str(unknown))) from None
        hours, seconds = _duration(services, asked.get("duration_hours", 1.0))
        quote = services.shop.quote_session(tier, hours)
        return await _sell(services, request, caller, NewSession(tier.name, seconds), quote)

    async def extend_session(request: Request) -> Answer:
        (session_id,) = request.parameters
        caller = identify_request(services, request)
        session = await owned(services, caller, session_id)
        hours, seconds = _duration(services, json_object(request.body).get("duration_hours", 1.0))
        quote = services.shop.quote_extension(session_id, tiers[session.tier], hours)
        return await _sell(services, request, caller, Extension(session_id, seconds), quote)

    direct.bind("POST", "/sessions", create_session)
    direct.bind("POST", "/sessions/<session_id>/extend", extend_session)


async def _sell(services: Services, request: Request, caller: Caller, wanted: Wanted, quote: Quote) -> Answer:
    asked = payment_rules.request_hash(request.method, request.raw_path, caller.public_key, request.body)
    try:
        payload = x402.find_payload(request.lines)
    except UnprovenReceipt as unproven:
        challenge = x402.challenge(quote, str(unproven))
        raise _payment_required(challenge, "unproven_receipt", str(unproven)) from None
    except MalformedPayment as malformed:
        raise ApiError(400, "malformed_payment", shortened(str(malformed))) from None
    if payload is not None and payload.identifier is None and quote.identifier_required:
        raise ApiError(400, "payment_identifier_required", "Payments here must bear an x402 payment-identifier.")
    with trio.move_on_after(services.settings.payments.answer_within_s + LATEST_S):
        if payload is None:
            return await _offer(services, caller, wanted, quote, asked)
        return await _take(services, request, caller, wanted, quote, asked, payload)
    raise _unavailable("outcome_unknown", "It is not known yet what became of this; send the same request again.", 2)


async def _offer(services: Services, caller: Caller, wanted: Wanted, quote: Quote, asked: bytes) -> Answer:
    """What is said to a request without a payment: its stored answer when it has one, else the price."""

    def query(connection: Connection) -> tuple[payment_records.Answered | None, NoRoom | None]:
        return (
            payment_records.answered(connection, caller.public_key, caller.message_sha256),
            _room(services, connection, caller, wanted),
        )

    answered, no_room = await services.ledger.read(query)
    if answered is not None:
        if answered.request_hash != asked:
            raise _replayed("this signed request was used before for something else: sign with a new timestamp")
        return await _bought(services, answered.payment)
    if (refusal := await services.shop.refusal(quote) or no_room) is not None:
        raise _no_room(refusal)
    raise _payment_required(services.shop.offer(quote), "payment_required", "Payment required")


async def _take(
    services: Services,
    request: Request,
    caller: Caller,
    wanted: Wanted,
    quote: Quote,
    asked: bytes,
    payload: Payload,
) -> Answer:
    key = payment_rules.key_of(payload, quote.requirements)
    if (refusal := await services.shop.refusal(quote)) is not None and await _known(services, key) is None:
        raise _no_room(refusal)
    purchase = Purchase(
        payload=payload,
        quote=quote,
        wanted=wanted,
        controller=caller.public_key,
        request_hash=asked,
        message_hash=caller.message_sha256 if services.settings.gateway.auth_required else None,
        client_address=_counted_address(services, request.exchange.client),
    )
    within_s = services.settings.payments.answer_within_s + MARGIN_S
    try:
        answer = await services.shop.verifier.call(purchase, timeout=within_s)
    except (CallTimeout, ActorDown, MailboxFull):
        return await _observed(services, caller, key, asked)
    return await _told(services, quote, answer)


async def _told(services: Services, quote: Quote, answer: PurchaseAnswer) -> Answer:
    match answer:
        case Bought(payment):
            return await _bought(services, payment)
        case StillPending(payment, retry_after_s):
            return await _bought(services, payment, retry_after_s)
        case Refused(code, message):
            raise _payment_required(x402.challenge(quote, message), code, message)
        case Conflict(message):
            raise ApiError(409, "payment_conflict", message)
        case Replayed(message):
            raise _replayed(message)
        case NoRoom():
            raise _no_room(answer)
        case Unavailable(code, message, retry_after_s):
            raise _unavailable(code, message, retry_after_s)
        case _:
            assert_never(answer)


async def _observed(services: Services, caller: Caller, key: AuthorizationKey, asked: bytes) -> Answer:
    """The verifier's answer was lost, its work was not: say what the ledger knows, never that it failed."""
    payment = await _known(services, key)
    if payment is None:
        raise _unavailable("outcome_unknown", "It is not known yet what became of this payment; send it again.", 2)
    if (payment.controller, payment.request_hash) != (caller.public_key, asked):
        raise ApiError(409, "payment_conflict", "this payment was presented with another request: sign a new one")
    if payment.state is PaymentState.REJECTED:
        raise _unavailable("outcome_unknown", "The payment was not taken; send it again.", 2)
    return await _bought(services, payment, None if payment.settled_at is not None else 2)


async def _known(services: Services, key: AuthorizationKey) -> Payment | None:
    return await services.ledger.read(lambda connection: payment_records.find_authorization(connection, key))


async def _bought(services: Services, payment: Payment, retry_after_s: int | None = None) -> Answer:
    """202 with the session; `retry_after_s` when it is not settled yet."""
    session = await _session_of(services, payment)
    pending = payment.settled_at is None
    shown = session_answer(
        session,
        services.instants.now(),
        services.clock.monotonic(),
        transaction=payment.transaction_hash,
        stats=services.stats.latest(session.id),
    )
    fields = msgspec.structs.asdict(msgspec.structs.replace(shown, payment_id=payment.id))
    answer = BoughtAnswer(
        **fields, payment_status=str(payment.state), code="payment_pending" if pending else "accepted"
    )
    headers = list(x402.receipt_headers(payment))
    if pending:
        headers.append(("Retry-After", str(retry_after_s or 2)))
    return json_answer(answer, 202, headers)


async def _session_of(services: Services, payment: Payment) -> Session:
    """On the loop, where it costs a tenth of a hop to a reader; in a thread where the lane is closed."""
    try:
        session = session_records.look(services.ledger, payment.session_id)
    except LaneClosed:
        return await services.ledger.read(lambda connection: _session(connection, payment.session_id))
    assert session is not None, "a payment is written together with its session"
    return session


def _session(connection: Connection, session_id: str) -> Session:
    session = session_records.get(connection, session_id)
    assert session is not None, "a payment is written together with its session"
    return session


def _room(services: Services, connection: Connection, caller: Caller, wanted: Wanted) -> NoRoom | None:
    match wanted:
        case NewSession():
            return payment_records.room(connection, caller.public_key, services.shop.limits())
        case Extension(session_id):
            if rules.takes_time(_session(connection, session_id)):
                return None
            return NoRoom("session_over", "the session has ended: buy a new one", 0)
        case _:
            assert_never(wanted)


def _duration(services: Services, hours: object) -> tuple[float, float]:
    """Hours as asked, and the seconds they are. Raises ApiError 400."""
    limits = services.settings.sessions
    try:
        seconds = rules.paid_seconds(hours, limits.min_hours, limits.max_hours)
    except InvalidDuration as wrong:
        raise ApiError(400, "bad_duration", str(wrong)) from None
    assert isinstance(hours, int | float)
    return float(hours), seconds


def _counted_address(services: Services, address: str) -> str:
    """The buyer's address, empty where loopback is everybody's."""
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        return bucket_of(address)
    return "" if loopback and services.settings.environment == "local" else bucket_of(address)


def _payment_required(challenge: Challenge, code: str, message: str) -> ApiError:
    return ApiError(402, code, message, headers=challenge.headers, extra=challenge.fields)


def _no_room(refusal: NoRoom) -> ApiError:
    status = NO_ROOM_STATUS.get(refusal.code, 503)
    headers = (("Retry-After", str(refusal.retry_after_s)),) if refusal.retry_after_s else ()
    return ApiError(status, refusal.code, refusal.message, headers=headers)


def _unavailable(code: str, message: str, retry_after_s: int) -> ApiError:
    return ApiError(503, code, message, headers=(("Retry-After", str(retry_after_s)),))


def _replayed(message: str) -> ApiError:
    return ApiError(401, "replayed", message)
