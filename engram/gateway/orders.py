"""Pay links: POST /orders makes an order by a signed request, POST /orders/pay sells it to whoever has its link.

What is bought belongs to the key that made the order; whoever pays learns the payment's state and nothing of the
session. The rules are in engram/payments/pay_links.py.
"""

from functools import partial
from typing import Final

import trio
from sqlalchemy import Connection

from engram.api import gateway as api
from engram.api.call import Call, Reply
from engram.api.gateway_model import LinkPaymentAnswer, MakeOrderBody, OrderAnswer, OrderBody, OrderStatusAnswer
from engram.api.serving import Endpoints
from engram.gateway.caller import Caller
from engram.gateway.payments import refund_answers
from engram.gateway.phone import HOME, is_served
from engram.gateway.purchases import (
    LATEST_S,
    come_again,
    counted_address,
    named_tier,
    paid_duration,
    purchase_refusal,
)
from engram.gateway.services import Services
from engram.gateway.sessions import owned
from engram.hotkeys.scheme import TIMESTAMP_MS
from engram.http.errors import ApiError
from engram.http.request import HeaderPairs
from engram.payments import (
    Bought,
    MalformedPayment,
    Payment,
    Quote,
    Refund,
    Refused,
    StillPending,
    pay_links,
    receipt_headers,
    records,
    short_name,
)
from engram.payments.keccak import checksummed
from engram.payments.pay_links import LINK_PATH, LinkState, PayLink
from engram.payments.purchasing import Extension, NewSession, Order, Wanted, request_hash
from engram.sessions import Tier, TierName, rules

PENDING_RETRY_S: Final = 5
PAYMENT_HEADERS: Final = ("payment-signature", "x-payment")
"""Headers of which one bears the payment; a request without is answered with the price."""


def bind_orders(endpoints: Endpoints[Caller], services: Services) -> None:
    """Bind the endpoints under /orders."""
    tiers = rules.tiers(services.settings.pricing.lite_usd_per_hour)

    async def make_order(call: Call[MakeOrderBody, Caller]) -> OrderAnswer:
        body = call.request
        session_id, tier = body.session_id, None
        if session_id is not None:
            tier = tiers[(await owned(services, call.caller, session_id)).tier]
        tier = tier or named_tier(tiers, body.tier)
        hours, seconds = paid_duration(services, body.duration_hours)
        quote = (
            services.shop.quotes.session(tier, hours)
            if session_id is None
            else services.shop.quotes.extension(session_id, tier, hours)
        )
        link = _link(services, call.caller, quote, tier, (hours, seconds), session_id)
        await _require_offer(services, link, quote)
        text = pay_links.seal(link, services.keypair)
        return OrderAnswer(
            order=text,
            url=f"{services.public_url()}{HOME}#/pay/{text}" if is_served(services.settings) else "",
            expires_at=float(link.expires_at),
            amount_usd=quote.amount_usd,
            network=quote.requirements.network.v1_name,
            recipient=checksummed(quote.requirements.pay_to),
            tier=link.tier,
            duration_hours=hours,
            session_id=session_id,
        )

    async def show_order(call: Call[OrderBody, Caller]) -> OrderStatusAnswer:
        link = _read(services, call.request.order)
        if link.controller != call.caller.public_key.hex():
            raise ApiError(403, "not_yours", "Not your order.")
        payment = await _counting(services, link)
        return OrderStatusAnswer(
            status=str(pay_links.state(link, payment, services.clock.now())),
            expires_at=float(link.expires_at),
            amount_usd=link.amount / 1_000_000,
            session_id=payment.session_id if payment else None,
            payment_id=payment.id if payment else None,
            payer=checksummed(payment.payer) if payment else None,
        )

    async def pay_order(call: Call[OrderBody, Caller]) -> Reply[LinkPaymentAnswer]:
        # Signed with nothing but the caller's word for the time: so it is for any signed request of a key made up.
        if TIMESTAMP_MS.match(timestamp := call.header("x-timestamp") or ""):
            call.http.signed_at = timestamp
        link = _read(services, call.request.order)
        quote = services.shop.quotes.link(link)
        if quote is None:
            raise ApiError(410, pay_links.EXPIRED, "Payment is taken elsewhere by now: ask for another link.")
        if all(call.header(name) is None for name in PAYMENT_HEADERS):
            await _require_open(services, link)
        order = _order(link, quote, counted_address(services, call.exchange.client))
        with trio.move_on_after(services.settings.payments.answer_within_s + LATEST_S):
            answer = await services.shop.purchasing.answer(order, call.http.lines)
            match answer:
                case Bought(payment):
                    return await _paid(services, payment, None)
                case StillPending(payment, retry_after_s):
                    return await _paid(services, payment, retry_after_s if payment.settled_at is None else None)
                case Refused(pay_links.EXPIRED, message):
                    raise ApiError(410, pay_links.EXPIRED, message)
                case _:
                    raise purchase_refusal(services, quote, answer)
        raise come_again("outcome_unknown", "It is not known yet what became of this; send the same request again.", 2)

    endpoints.bind(api.MAKE_ORDER, make_order)
    endpoints.bind(api.SHOW_ORDER, show_order)
    endpoints.bind(api.PAY_ORDER, pay_order)


def _link(
    services: Services, caller: Caller, quote: Quote, tier: Tier, duration: tuple[float, float], session_id: str | None
) -> PayLink:
    return PayLink(
        id=services.ids.token(16),
        controller=caller.public_key.hex(),
        tier=str(tier.name),
        hours=duration[0],
        seconds=duration[1],
        session_id=session_id,
        network=quote.requirements.network.caip2,
        amount=quote.requirements.amount,
        pay_to=quote.requirements.pay_to.hex(),
        expires_at=int(services.clock.now()) + pay_links.LIFETIME_S,
    )


def _order(link: PayLink, quote: Quote, client_address: str) -> Order:
    """Return the order of a link: it is the same request whoever sends it, and however its body is written."""
    controller = bytes.fromhex(link.controller)
    wanted: Wanted = NewSession(TierName(link.tier), link.seconds)
    if link.session_id is not None:
        wanted = Extension(link.session_id, link.seconds)
    return Order(
        quote=quote,
        wanted=wanted,
        controller=controller,
        request_hash=request_hash("POST", LINK_PATH.encode(), controller, link.id.encode()),
        message_hash=None,
        client_address=client_address,
        identifier=link.identifier,
        expires_at=float(link.expires_at),
    )


def _read(services: Services, text: str) -> PayLink:
    try:
        return pay_links.read(text, services.keypair.public_key)
    except MalformedPayment as malformed:
        raise ApiError(400, "bad_link", f"{malformed}") from None


async def _counting(services: Services, link: PayLink) -> Payment | None:
    controller = bytes.fromhex(link.controller)
    query = partial(records.of_identifier, controller=controller, identifier=link.identifier)
    return pay_links.counting(await services.ledger.read(query))


async def _require_offer(services: Services, link: PayLink, quote: Quote) -> None:
    """Raise ApiError where the order could not be sold now: a link to it would be of no use."""
    order = _order(link, quote, "")
    answer = await services.shop.purchasing.price_or_answer(order)
    if not isinstance(answer, Refused):
        assert not isinstance(answer, Bought | StillPending), "an order that was just made has no payment"
        raise purchase_refusal(services, quote, answer)


async def _require_open(services: Services, link: PayLink) -> None:
    """Raise ApiError where a link cannot be paid any more, or not while another pays it."""
    match pay_links.state(link, await _counting(services, link), services.clock.now()):
        case LinkState.PAID:
            raise ApiError(409, "order_taken", "This link is paid already.")
        case LinkState.PENDING:
            raise come_again("order_taken", "This link is being paid at the moment.", PENDING_RETRY_S, 409)
        case LinkState.EXPIRED:
            raise ApiError(410, pay_links.EXPIRED, "This link's time is over; nothing was taken. Ask for another.")
        case LinkState.OPEN:
            return


async def _paid(services: Services, payment: Payment, retry_after_s: int | None) -> Reply[LinkPaymentAnswer]:
    def refunds_of(connection: Connection) -> list[Refund]:
        return records.refunds_of(connection, payment.id)

    answer = LinkPaymentAnswer(
        code="payment_pending" if retry_after_s else "accepted",
        payment_status=str(payment.state),
        payment_id=payment.id,
        amount_usd=payment.amount / 1_000_000,
        network=short_name(payment.network),
        payer=checksummed(payment.payer),
        transaction=payment.transaction_hash,
        refunds=refund_answers(await services.ledger.read(refunds_of)),
    )
    headers: HeaderPairs = receipt_headers(payment)
    if retry_after_s:
        headers = (*headers, ("Retry-After", str(retry_after_s)))
    return Reply(answer, headers)
