"""The wallet interface of the SDK."""

from typing import Protocol


class Wallet(Protocol):
    """Signs x402 payments. The play-money wallet is `engram.payments.play_wallet.PlayWallet`."""

    def pay(self, payment_required: str, now: float, nonce: bytes) -> str:
        """Return the value of the `PAYMENT-SIGNATURE` header that pays an offer.

        `payment_required` is the value of the `PAYMENT-REQUIRED` header (base64 of x402 v2's PaymentRequired), `now`
        unix seconds, `nonce` 32 random bytes. Signing is all that happens here: money moves only when the gateway
        settles.
        """
        ...
