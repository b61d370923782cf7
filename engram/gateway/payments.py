"""GET /payments/{id}: what became of a payment and of its refunds."""

from collections.abc import Sequence

from quart import Response
from sqlalchemy import Connection

from engram.gateway.answers import PaymentAnswer, RefundAnswer
from engram.gateway.caller import identify
from engram.gateway.replies import reply
from engram.gateway.services import Services
from engram.http.app import App
from engram.http.errors import ApiError
from engram.payments import records
from engram.payments.model import Payment, Refund
from engram.payments.networks import short_name


def add_payment_routes(app: App, services: Services) -> None:
    """Add the endpoint under /payments."""

    @app.get("/payments/<payment_id>")
    async def show_payment(payment_id: str) -> Response:
        caller = await identify(services)

        def query(connection: Connection) -> tuple[Payment | None, list[Refund]]:
            return records.get(connection, payment_id), records.refunds_of(connection, payment_id)

        payment, refunds = await services.ledger.read(query)
        if payment is None:
            raise ApiError(404, "not_found", "Payment not found.")
        if payment.controller != caller.public_key:
            raise ApiError(403, "not_yours", "Not your payment.")
        return reply(payment_answer(payment, refunds))


def payment_answer(payment: Payment, refunds: Sequence[Refund]) -> PaymentAnswer:
    """The payment as its buyer sees it."""
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
        refunds=[
            RefundAnswer(
                number=refund.number,
                status=str(refund.state),
                amount_usd=refund.amount / 1_000_000,
                reason=refund.reason,
                transaction=refund.transaction_hash,
            )
            for refund in refunds
        ],
    )
