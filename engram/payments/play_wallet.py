"""A buyer with play money: a key that signs x402 payments for the demo, the Python client and tests."""

from typing import final

from coincurve import PrivateKey

from engram.payments import x402
from engram.payments.eip712 import address_of, sign
from engram.payments.errors import MalformedPayment, NotForPlay
from engram.payments.keccak import checksummed
from engram.payments.model import Authorization, Requirements


@final
class PlayWallet:
    """A secp256k1 key that pays with play money only, so that a mistake can never cost anything."""

    def __init__(self, secret: bytes) -> None:
        """`secret` is 32 bytes from a secure source. Raises ValueError when it is no key."""
        self._key = PrivateKey(secret)
        self.address = address_of(self._key.public_key)
        """20 bytes."""

    def __repr__(self) -> str:
        return f"PlayWallet({self.address_text})"

    @property
    def address_text(self) -> str:
        """The address with its checksum."""
        return checksummed(self.address)

    def pay(self, payment_required: str, now: float, nonce: bytes) -> str:
        """Return the PAYMENT-SIGNATURE header that pays the first play offer of a PAYMENT-REQUIRED header.

        `now` is unix seconds, `nonce` 32 random bytes. Raises MalformedPayment, and NotForPlay when only real money
        is offered.
        """
        offers = x402.decode_challenge(payment_required)
        if not offers:
            raise MalformedPayment("nothing is offered that this wallet can pay")
        for offer in offers:
            if offer.network.play:
                return self.sign_payment(offer, now, nonce)
        raise NotForPlay(f"{offers[0].network.caip2} wants real money")

    def sign_payment(self, requirements: Requirements, now: float, nonce: bytes) -> str:
        """Return the PAYMENT-SIGNATURE header that meets `requirements`. Raises NotForPlay off the play network."""
        if not requirements.network.play:
            raise NotForPlay(f"{requirements.network.caip2} wants real money")
        authorization = Authorization(
            payer=self.address,
            pay_to=requirements.pay_to,
            value=requirements.amount,
            valid_after=0,
            valid_before=int(now) + requirements.max_timeout_s,
            nonce=nonce,
        )
        signature = sign(authorization, requirements.network, self._key)
        return x402.encode_payload(x402.payload_json(authorization, signature, requirements))
