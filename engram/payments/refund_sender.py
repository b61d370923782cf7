"""Sending what is owed back: sign, commit, send, and send the identical authorization again until it is known.

The refund goes through the same facilitator as a payment, from the refund key to the payer: a reversed EIP-3009
authorization, whose nonce belongs to this part of this payment for ever. However often it is signed and sent, the
token moves the money once.
"""

from typing import Final, final

import structlog

from config.pricing import units_of
from engram import kill_points
from engram.ledger import owners
from engram.payments import refund_rules, refunds
from engram.payments.evidence import about, about_refund, after_look, is_final, transaction_of, word
from engram.payments.model import Payment, Refund, RefundState, RefundTransfer
from engram.payments.networks import NETWORKS
from engram.payments.outcomes import Settled
from engram.payments.ports import PaymentPorts
from engram.payments.refund_key import RefundKey
from engram.payments.refund_rules import REFUND_VALID_S, Next
from engram.payments.refunds import NO_KEY, PARK_S, NotSigned

_log = structlog.get_logger("engram.payments")

NOT_FINAL: Final = "payment_not_final_yet"
NOT_FINAL_S: Final = 10.0
PARTS_AT_ONCE: Final = 16
"""Parts of one payment sent in one go; the next reading goes on."""


@final
class Refunding:
    """Works on payments in `refund_due` and `refunding`."""

    def __init__(self, ports: PaymentPorts) -> None:
        self._ledger: Final = ports.ledger
        self._facilitator: Final = ports.facilitator
        self._instants: Final = ports.instants
        self._key: Final = ports.refund_key
        self._daily_limit: Final = units_of(ports.settings.payments.refund_daily_usd)
        self._evidence: Final = ports.evidence

    @property
    def sends(self) -> bool:
        """False when refunds wait for the operator."""
        return self._key is not None

    async def run(self, payment_id: str) -> None:
        """Bring the payment's refunds as far as they go now."""
        for _ in range(PARTS_AT_ONCE):
            found = await self._ledger.read(lambda connection: refunds.next_part(connection, payment_id))
            if found is None or not await self._part(*found):
                return

    async def _part(self, payment: Payment, refund: Refund) -> bool:
        """Return whether the part is paid, so that the next one may follow."""
        if self._key is None:
            await self._park(refund, NO_KEY, None)
            return False
        if refund.state is RefundState.DUE:
            if not await self._has_arrived(payment):
                await self._park(refund, NOT_FINAL, self._instants.now().wall + NOT_FINAL_S)
                return False
            signed = await self._sign(self._key, payment, refund)
            if signed is None:
                return False
            refund = signed
        return await self._send(self._key, payment, refund)

    async def _has_arrived(self, payment: Payment) -> bool:
        """Return whether the payment is final: what a reorganization may still take away is not refunded."""
        return self._evidence is None or is_final(await self._evidence.look(about(payment)))

    async def _sign(self, key: RefundKey, payment: Payment, refund: Refund) -> Refund | None:
        now = self._instants.now()
        signed = key.sign(refund, NETWORKS[payment.network], now.wall, REFUND_VALID_S)
        written = await self._ledger.write(
            lambda connection: refunds.sign(connection, refund, signed, now, self._daily_limit)
        )
        if isinstance(written, NotSigned):
            await self._park(refund, written.reason, now.wall + PARK_S)
            return None
        return written.refund

    async def _send(self, key: RefundKey, payment: Payment, refund: Refund) -> bool:
        if (
            refund.sender is None
            or refund.payload is None
            or refund.requirements is None
            or refund.valid_before is None
        ):
            raise ValueError(f"refund {refund.number} of payment {payment.id} is on its way and was never signed")
        if self._evidence is not None and refund.attempts > 0:
            finding = await self._evidence.look(about_refund(payment, refund, refund.sender))
            found = after_look(refund, finding)
            if found is not None:
                return await self._go_on(key, payment, refund, found, transaction_of(finding), word(finding))
        transfer = RefundTransfer(payment.network, refund.sender, refund.nonce, refund.payload, refund.requirements)
        await owners.until_held(self._ledger)
        kill_points.point("refund:before")
        settlement = await self._facilitator.settle(transfer)
        kill_points.point("refund:after")
        found = refund_rules.after_answer(
            settlement,
            play=NETWORKS[payment.network].play,
            valid_before=refund.valid_before,
            now=self._instants.now().wall,
        )
        if found is Next.RESIGN and self._evidence is not None:
            found = Next.WAIT  # the chain says when it has expired
        if found is Next.CONFIRM and self._evidence is not None:  # and whether it was paid
            finding = await self._evidence.look(about_refund(payment, refund, refund.sender))
            proven = after_look(refund, finding) is Next.CONFIRM
            return await self._go_on(
                key, payment, refund, Next.CONFIRM if proven else Next.WAIT, transaction_of(finding), word(finding)
            )
        transaction = settlement.transaction if isinstance(settlement, Settled) else None
        return await self._go_on(key, payment, refund, found, transaction, refund_rules.word(settlement))

    async def _go_on(
        self, key: RefundKey, payment: Payment, refund: Refund, found: Next, transaction: str | None, answer: str
    ) -> bool:
        now = self._instants.now()
        match found:
            case Next.CONFIRM:
                confirmed = await self._ledger.write(
                    lambda connection: refunds.confirm(connection, refund, transaction, now)
                )
                if confirmed:
                    _log.info("refunded", payment_id=payment.id, number=refund.number, amount=refund.amount)
                return confirmed
            case Next.RESIGN:
                again = await self._sign(key, payment, refund)
                if again is not None:  # it is sent with the next look, as anything else that is on its way
                    _log.info("refund_signed_again", payment_id=payment.id, number=refund.number)
            case Next.WAIT:
                _log.warning("refund_not_confirmed", payment_id=payment.id, number=refund.number, answer=answer)
                await self._ledger.write(lambda connection: refunds.wait(connection, refund, answer, now))
        return False

    async def _park(self, refund: Refund, answer: str, until: float | None) -> None:
        if refund.answer != answer:
            _log.warning("refund_waits", payment_id=refund.payment_id, number=refund.number, answer=answer)
        now = self._instants.now()
        await self._ledger.write(lambda connection: refunds.park(connection, refund, answer, now, until=until))
