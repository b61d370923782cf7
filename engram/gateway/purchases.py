"""The paid endpoints: POST /sessions and POST /sessions/{id}/extend.

Order of the checks, which phones rely on: signature, JSON, tier, duration, payment, limits. A 402 does not consume the
signature, so the same signed request may be sent again with its payment. The payments area makes every decision about
money; this module maps its PurchaseAnswer to HTTP. A client that disconnects changes nothing.
"""

import ipaddress
from collections.abc import Mapping
from typing import Final, assert_never

import msgspec
import trio

from engram.api import gateway as api
from engram.api.call import Call
from engram.api.gateway_model import BoughtAnswer, CreateSessionBody, ExtendSessionBody
from engram.api.serving import Endpoints
from engram.gateway.caller import Caller
from engram.gateway.replies import shortened
from engram.gateway.services import Services
from engram.gateway.sessions import owned
from engram.gateway.views import session_answer
from engram.http.errors import ApiError
from engram.http.limits import bucket_of
from engram.http.request import Answer, Request, json_answer
from engram.ledger import LaneClosed
from engram.payments import (
    Bought,
    CannotNow,
    Conflict,
    Malformed,
    NoRoom,
    NotBought,
    Payment,
    PurchaseAnswer,
    Quote,
    Refused,
    Replayed,
    StillPending,
    receipt_headers,
)
from engram.payments.purchasing import Extension, NewSession, Order, Wanted, request_hash
from engram.sessions import InvalidDuration, Session, Tier, TierName, UnknownTier, rules
from engram.sessions import records as session_records

NO_ROOM_STATUS: Final = {
    "no_capacity": 503,
    "session_limit": 429,
    "too_many_open_payments": 429,
    "session_over": 409,
    "below_minimum": 400,
}
LATEST_S: Final = 0.9
"""Seconds that the whole answer may take beyond `payments.answer_within_s`."""


def bind_purchases(endpoints: Endpoints[Caller], services: Services) -> None:
    """Bind the paid endpoints."""
    tiers = rules.tiers(services.settings.pricing.lite_usd_per_hour)

    async def create_session(call: Call[CreateSessionBody, Caller]) -> Answer:
        order = call.request
        tier = named_tier(tiers, order.tier)
        hours, seconds = paid_duration(services, order.duration_hours)
        quote = services.shop.quotes.session(tier, hours)
        return await _sell(services, call.http, call.caller, NewSession(tier.name, seconds), quote)

    async def extend_session(call: Call[ExtendSessionBody, Caller]) -> Answer:
        session_id = call.path("session_id")
        session = await owned(services, call.caller, session_id)
        hours, seconds = paid_duration(services, call.request.duration_hours)
        quote = services.shop.quotes.extension(session_id, tiers[session.tier], hours)
        return await _sell(services, call.http, call.caller, Extension(session_id, seconds), quote)

    endpoints.bind(api.CREATE_SESSION, create_session)
    endpoints.bind(api.EXTEND_SESSION, extend_session)


async def _sell(services: Services, request: Request, caller: Caller, wanted: Wanted, quote: Quote) -> Answer:
    order = Order(
        quote=quote,
        wanted=wanted,
        controller=caller.public_key,
        request_hash=request_hash(request.method, request.raw_path, caller.public_key, request.body),
        message_hash=caller.message_sha256 if services.settings.gateway.auth_required else None,
        client_address=counted_address(services, request.exchange.client),
    )
    with trio.move_on_after(services.settings.payments.answer_within_s + LATEST_S):
        return await _respond(services, quote, await services.shop.purchasing.answer(order, request.lines))
    raise come_again("outcome_unknown", "It is not known yet what became of this; send the same request again.", 2)


async def _respond(services: Services, quote: Quote, answer: PurchaseAnswer) -> Answer:
    """Map the outcome of an order to HTTP."""
    match answer:
        case Bought(payment):
            return await _bought(services, payment)
        case StillPending(payment, retry_after_s):
            # A paid one whose block was reorganized away is no longer the buyer's to wait for.
            return await _bought(services, payment, retry_after_s if payment.settled_at is None else None)
        case _:
            raise purchase_refusal(services, quote, answer)


def purchase_refusal(services: Services, quote: Quote, answer: NotBought) -> ApiError:
    """Return the error that an order which was not bought is answered with."""
    match answer:
        case Refused(code, message):
            challenge = services.shop.quotes.challenge(quote, message)
            return ApiError(402, code, message, headers=challenge.headers, extra=challenge.fields)
        case Malformed(code, message):
            return ApiError(400, code, shortened(message))
        case Conflict(message, code):
            return ApiError(409, code, message)
        case Replayed(message):
            return ApiError(401, "replayed", message)
        case NoRoom(code, message, retry_after_s):
            return come_again(code, message, retry_after_s, NO_ROOM_STATUS.get(code, 503))
        case CannotNow(code, message, retry_after_s):
            return come_again(code, message, retry_after_s)
        case _:
            assert_never(answer)


def come_again(code: str, message: str, retry_after_s: int, status: int = 503) -> ApiError:
    """Return the error of something that cannot be done now; 0 seconds name no time."""
    headers = (("Retry-After", str(retry_after_s)),) if retry_after_s else ()
    return ApiError(status, code, message, headers=headers)


async def _bought(services: Services, payment: Payment, retry_after_s: int | None = None) -> Answer:
    """Return 202 with the session: `accepted`, or `payment_pending` where there is a time to ask again after."""
    session = await _session_of(services, payment)
    shown = session_answer(
        session,
        services.instants.now(),
        services.clock.monotonic(),
        transaction=payment.transaction_hash,
        stats=services.stats.latest(session.id),
    )
    fields = msgspec.structs.asdict(msgspec.structs.replace(shown, payment_id=payment.id))
    answer = BoughtAnswer(
        **fields, payment_status=str(payment.state), code="payment_pending" if retry_after_s else "accepted"
    )
    headers = list(receipt_headers(payment))
    if retry_after_s:
        headers.append(("Retry-After", str(retry_after_s)))
    return json_answer(answer, 202, headers)


async def _session_of(services: Services, payment: Payment) -> Session:
    """Read the session on the loop (a tenth of a reader thread's cost), or in a thread while the lane is closed."""
    try:
        session = session_records.look(services.ledger, payment.session_id)
    except LaneClosed:
        session = await services.ledger.read(lambda connection: session_records.get(connection, payment.session_id))
    assert session is not None, "a payment is written together with its session"
    return session


def named_tier(tiers: Mapping[TierName, Tier], name: object) -> Tier:
    """Return the tier of that name. Raises ApiError 400."""
    try:
        return rules.tier_named(tiers, name)
    except UnknownTier as unknown:
        raise ApiError(400, "unknown_tier", shortened(str(unknown))) from None


def paid_duration(services: Services, hours: object) -> tuple[float, float]:
    """Return the requested hours, and the same in seconds. Raises ApiError 400."""
    limits = services.settings.sessions
    try:
        seconds = rules.paid_seconds(hours, limits.min_hours, limits.max_hours)
    except InvalidDuration as wrong:
        raise ApiError(400, "bad_duration", str(wrong)) from None
    assert isinstance(hours, int | float)
    return float(hours), seconds


def counted_address(services: Services, address: str) -> str:
    """Return the buyer's address for the limits; empty where all buyers share loopback."""
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        return bucket_of(address)
    return "" if loopback and services.settings.environment == "local" else bucket_of(address)
