"""Sending what is owed back: sign, commit, send, and send the identical authorization again until it is known.

The refund goes through the same facilitator as a payment, from the refund key to the payer: a reversed EIP-3009
authorization, whose nonce belongs to this part of this payment for ever. However often it is signed and sent, the
token moves the money once.
"""

from typing import Final, final

import structlog

from engram.ledger import Ledger, crash
from engram.sessions import Instants

from . import owing, refunds
from .facilitator import Facilitator
from .model import Payment, Refund, RefundState, RefundTransfer
from .networks import NETWORKS
from .outcomes import Settled, Settlement
from .owing import REFUND_VALID_S, Next
from .refund_key import RefundKey
from .refunds import NO_KEY, PARK_S, NotSigned

_log = structlog.get_logger("engram.payments")

PARTS_AT_ONCE: Final = 16
"""Parts of one payment sent in one go; the next reading goes on."""


@final
class Refunding:
    """Works on payments in `refund_due` and `refunding`."""

    def __init__(
        self, *, ledger: Ledger, facilitator: Facilitator, instants: Instants, key: RefundKey | None, daily_limit: int
    ) -> None:
        """`key` None: refunds wait for the operator. `daily_limit` in atomic units."""
        self._ledger: Final = ledger
        self._facilitator: Final = facilitator
        self._instants: Final = instants
        self._key: Final = key
        self._daily_limit: Final = daily_limit

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
        """True when the part is paid, so that the next one may follow."""
        if self._key is None:
            await self._park(refund, NO_KEY, None)
            return False
        if refund.state is RefundState.DUE:
            signed = await self._sign(self._key, payment, refund)
            if signed is None:
                return False
            refund = signed
        return await self._send(self._key, payment, refund)

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
        transfer = RefundTransfer(payment.network, refund.sender, refund.nonce, refund.payload, refund.requirements)
        crash.point("refund:before")
        settlement = await self._facilitator.settle(transfer)
        crash.point("refund:after")
        now = self._instants.now()
        play = NETWORKS[payment.network].play
        match owing.after_answer(settlement, play=play, valid_before=refund.valid_before, now=now.wall):
            case Next.CONFIRM:
                return await self._confirm(refund, settlement)
            case Next.RESIGN:
                again = await self._sign(key, payment, refund)
                if again is not None:  # it is sent with the next look, as anything else that is on its way
                    _log.info("refund_signed_again", payment=payment.id, number=refund.number)
            case Next.WAIT:
                answer = owing.told(settlement)
                _log.warning("refund_not_confirmed", payment=payment.id, number=refund.number, answer=answer)
                await self._ledger.write(lambda connection: refunds.wait(connection, refund, answer, now))
        return False

    async def _confirm(self, refund: Refund, settlement: Settlement) -> bool:
        transaction = settlement.transaction if isinstance(settlement, Settled) else None
        now = self._instants.now()
        confirmed = await self._ledger.write(lambda connection: refunds.confirm(connection, refund, transaction, now))
        if confirmed:
            _log.info("refunded", payment=refund.payment_id, number=refund.number, amount=refund.amount)
        return confirmed

    async def _park(self, refund: Refund, answer: str, until: float | None) -> None:
        if refund.answer != answer:
            _log.warning("refund_waits", payment=refund.payment_id, number=refund.number, answer=answer)
        now = self._instants.now()
        await self._ledger.write(lambda connection: refunds.park(connection, refund, answer, now, until=until))
