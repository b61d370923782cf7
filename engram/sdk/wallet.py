"""What pays for a session."""

from typing import Protocol


class Wallet(Protocol):
    """Signs x402 payments. The play-money wallet is `engram.payments.buyer.PlayWallet`."""

    def pay(self, payment_required: str) -> dict[str, str]:
        """Return the request headers that pay an offer.

        `payment_required` is the value of the `PAYMENT-REQUIRED` header (base64 of x402 v2's PaymentRequired).
        Signing is all that happens here: money moves only when the gateway settles.
        """
        ...
