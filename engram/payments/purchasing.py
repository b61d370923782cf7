"""The facade of the payments area: a surface prices an order, buys it, and maps the PurchaseAnswer to its protocol.

An order is a signed request for something that costs money. Without a payment it is answered with what the same signed
request was answered before, else with the price; that uses nothing up, so the same request may come again with its
payment. With a payment it goes to the payment verifier. Where the verifier's answer is lost its work is not, so the
ledger says what is known; an open outcome is never answered as a failure.
"""

from collections.abc import Awaitable, Callable
from typing import Final, final

from sqlalchemy import Connection

from actors import ActorDown, ActorRef, CallTimeout, MailboxFull
from config.model import Settings
from engram import sessions
from engram.ledger import LaneClosed, Ledger
from engram.payments import records, reservations, rules, x402
from engram.payments.errors import MalformedPayment, UnprovenReceipt
from engram.payments.model import AuthorizationKey, Payload, Payment
from engram.payments.protocol import Credit, Extension, NewSession, Order, Purchase, VerifierMessage, Wanted
from engram.payments.purchase_answer import Malformed, NoRoom, PurchaseAnswer, Refused, Replayed
from engram.payments.quotes import OFFERED, Quotes
from engram.payments.reservations import Known
from engram.payments.rules import request_hash

__all__ = [
    "Credit",
    "Extension",
    "NewSession",
    "Order",
    "Purchasing",
    "Quotes",
    "VerifierMessage",
    "Wanted",
    "request_hash",
]

MARGIN_S: Final = 0.4
"""How much longer than promised the verifier's answer is waited for."""


@final
class Purchasing:
    """Prices and buys orders. Raises LedgerError where the ledger cannot be read."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        verifier: ActorRef[VerifierMessage],
        places: Callable[[Wanted | None], int],
        sales_refusal: Callable[[int], Awaitable[NoRoom | None]],
    ) -> None:
        """`places` is how many sessions may hold a node if this one is to; `sales_refusal` says why an amount buys
        nothing."""
        self._settings = settings
        self._ledger = ledger
        self._verifier = verifier
        self._places = places
        self._sales_refusal = sales_refusal

    async def answer(self, order: Order, headers: x402.Headers) -> PurchaseAnswer:
        """Buy the order with the payment in the request's headers, or price it where there is none."""
        try:
            payload = x402.find_payload(headers)
        except UnprovenReceipt as unproven:
            return Refused("unproven_receipt", str(unproven))
        except MalformedPayment as malformed:
            return Malformed("malformed_payment", str(malformed))
        if payload is None:
            return await self.price_or_answer(order)
        if payload.identifier is None and order.quote.identifier_required:
            return Malformed("payment_identifier_required", "Payments here must bear an x402 payment-identifier.")
        return await self.buy(order, payload)

    async def price_or_answer(self, order: Order) -> PurchaseAnswer:
        """Return the stored answer of the same signed request, else why it cannot be sold now, else its price.

        The price is Refused with the code `payment_required`.
        """

        def query(connection: Connection) -> tuple[Known | Replayed | None, NoRoom | None]:
            return reservations.answered_request(connection, order), self._room(connection, order)

        try:
            no_room = self._look(order)
        except LaneClosed:
            answered, no_room = await self._ledger.read(query)
            if answered is not None:
                return rules.answer(answered.payment) if isinstance(answered, Known) else answered
        return await self._unsold(order) or no_room or Refused("payment_required", OFFERED)

    async def buy(self, order: Order, payload: Payload) -> PurchaseAnswer:
        """Buy the order; answers within settings.payments.answer_within_s and MARGIN_S."""
        key = rules.key_of(payload, order.quote.requirements)
        if (refusal := await self._unsold(order)) is not None and await self._known(key) is None:
            return refusal
        within_s = self._settings.payments.answer_within_s + MARGIN_S
        try:
            return await self._verifier.call(Purchase(order, payload, key), timeout=within_s)
        except (CallTimeout, ActorDown, MailboxFull):
            return reservations.lost_answer(await self._known(key), order)

    async def _unsold(self, order: Order) -> NoRoom | None:
        return await self._sales_refusal(order.quote.requirements.amount)

    async def _known(self, key: AuthorizationKey) -> Payment | None:
        return await self._ledger.read(lambda connection: records.find_authorization(connection, key))

    def _look(self, order: Order) -> NoRoom | None:
        """Judge an order for a session that was not answered before on the event loop; raises LaneClosed for others."""
        if not isinstance(order.wanted, NewSession) or reservations.is_answered(self._ledger, order):
            raise LaneClosed("this order needs more than an indexed row")
        limits = reservations.limits_of(self._settings, self._places(order.wanted))
        return records.no_room(*sessions.counts.look(self._ledger, order.controller), limits)

    def _room(self, connection: Connection, order: Order) -> NoRoom | None:
        if isinstance(order.wanted, NewSession):
            return records.room(
                connection, order.controller, reservations.limits_of(self._settings, self._places(order.wanted))
            )
        if isinstance(order.wanted, Credit):
            return None
        session = sessions.records.get(connection, order.wanted.session_id)
        if session is not None and sessions.rules.takes_time(session):
            return None
        return NoRoom("session_over", "the session has ended: buy a new one", 0)
