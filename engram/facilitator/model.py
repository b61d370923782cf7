"""What the play-money facilitator is asked and what it answers, as x402 names it."""

import msgspec

from engram.payments.model import Payload, Requirements


class PaymentRequest(msgspec.Struct, frozen=True):
    """The body of /verify and /settle, read."""

    payload: Payload
    requirements: Requirements


class SettledTransfer(msgspec.Struct, frozen=True):
    """One settled authorization in the books."""

    payer: bytes
    nonce: bytes
    pay_to: bytes
    amount: int
    transaction_hash: str
