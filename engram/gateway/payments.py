"""GET /payments/{id}: the state of a payment and of its refunds."""

from collections.abc import Sequence

from sqlalchemy import Connection

from engram.api import gateway as api
from engram.api.call import Call
from engram.api.gateway_model import PaymentAnswer, RefundAnswer
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.gateway.caller import Caller
from engram.gateway.services import Services
from engram.http.errors import ApiError
from engram.payments import Payment, Refund, records, short_name


def bind_payments(endpoints: Endpoints[Caller], services: Services) -> None:
    """Bind the endpoint under /payments."""

    async def show_payment(call: Call[NoBody, Caller]) -> PaymentAnswer:
        payment_id = call.path("payment_id")

        def query(connection: Connection) -> tuple[Payment | None, list[Refund]]:
            return records.get(connection, payment_id), records.refunds_of(connection, payment_id)

        payment, refunds = await services.ledger.read(query)
        if payment is None:
            raise ApiError(404, "not_found", "Payment not found.")
        if payment.controller != call.caller.public_key:
            raise ApiError(403, "not_yours", "Not your payment.")
        return payment_answer(payment, refunds)

    endpoints.bind(api.SHOW_PAYMENT, show_payment)


def payment_answer(payment: Payment, refunds: Sequence[Refund]) -> PaymentAnswer:
    """Return the payment as its buyer sees it."""
    return PaymentAnswer(
        payment_id=payment.id,
        session_id=payment.session_id,
        kind=str(payment.kind),
        status=str(payment.state),
        amount_usd=payment.amount / 1_000_000,
        network=short_name(payment.network),
        transaction=payment.transaction_hash,
        reason=payment.reason,
        created_at=payment.created_at,
        settled_at=payment.settled_at,
        refunds=refund_answers(refunds),
    )


def refund_answers(refunds: Sequence[Refund]) -> list[RefundAnswer]:
    """Return the refunds as those see them whom they go to."""
    return [
        RefundAnswer(
            number=refund.number,
            status=str(refund.state),
            amount_usd=refund.amount / 1_000_000,
            reason=refund.reason,
            transaction=refund.transaction_hash,
        )
        for refund in refunds
    ]
