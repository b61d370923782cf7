"""Pays for uploads by x402: an authorization of USDC (EIP-3009), written down before it is sent, sent again unchanged.

| written down  | its time  | the chain, at a final block behind its end | then                              |
|---------------|-----------|--------------------------------------------|-----------------------------------|
| nothing       |           |                                            | the terms are asked for, one made |
| authorization | runs      |                                            | it is sent again, unchanged       |
| authorization | is over   | never used, or cancelled                   | it is dropped, a new one is made  |
| authorization | is over   | used, or cannot be told                    | nothing: PaymentUnknown           |

Whoever holds a signed authorization can submit it while its time runs: a second one before that may be paid as well.
"""

import secrets
from collections.abc import Awaitable, Callable
from typing import Final, final

import msgspec

from engram import wire
from engram.archive.errors import Damaged, PaymentUnknown, TooDear
from engram.archive.item_keys import EthereumKey
from engram.payments import x402
from engram.payments.evidence import Finding, NoEvidence, Paid, Question, Spent, Unused
from engram.payments.model import Authorization, Requirements
from engram.payments.networks import Network

Look = Callable[[Question], Awaitable[Finding]]
"""Asks the chain what became of an authorization."""
_LONGEST_S: Final = 3_600
"""For how long an authorization may run, whatever the terms say."""
_NONCE_BYTES: Final = 32


class Authorized(msgspec.Struct, frozen=True):
    """A signed authorization, as it lies on disk. Times are unix seconds, `value` millionths of a USDC."""

    pay_to: bytes
    value: int
    valid_before: int
    nonce: bytes
    signed_at: float
    header: str
    """The X-PAYMENT header."""


_decode = wire.msgpack_decoder(Authorized).decode


@final
class UploadWallet:
    """The USDC of one key on one network. `most` is what it may authorize as long as this object lives."""

    def __init__(self, key: EthereumKey, network: Network, look: Look, most: int, now: Callable[[], float]) -> None:
        self.network = network
        self._key = key
        self._look = look
        self._most = most
        self._now = now
        self._spent = 0

    def require_within(self, price: int, what: str) -> None:
        """Refuse what costs more than is left. Raises TooDear."""
        if self._spent + price > self._most:
            spent = f" after {_dollars(self._spent)}" if self._spent else ""
            raise TooDear(f"{what} cost {_dollars(price)} USDC{spent}; at most {_dollars(self._most)} are paid at once")

    def authorize(self, terms: Requirements, what: str) -> Authorized:
        """Return a new authorization, which counts as spent. Raises TooDear."""
        self.require_within(terms.amount, what)
        now = self._now()
        made = Authorization(
            payer=self._key.address,
            pay_to=terms.pay_to,
            value=terms.amount,
            valid_after=0,
            valid_before=int(now) + min(terms.max_timeout_s, _LONGEST_S),
            nonce=secrets.token_bytes(_NONCE_BYTES),
        )
        payload = x402.v1_payload_json(made, self._key.authorize(made, self.network), self.network)
        self._spent += made.value
        return Authorized(made.pay_to, made.value, made.valid_before, made.nonce, now, x402.encode_payload(payload))

    async def is_void(self, held: Authorized) -> bool:
        """Return whether an authorization can never move money any more, and did not; False while its time runs.

        Raises PaymentUnknown when its time is over and it was used, or when that cannot be told.
        """
        if self._now() < held.valid_before:
            self._spent += held.value
            return False
        question = Question(
            asset=self.network.asset,
            payer=self._key.address,
            nonce=held.nonce,
            pay_to=held.pay_to,
            amount=held.value,
            since=held.signed_at,
        )
        match await self._look(question):
            case Unused(as_of) if as_of >= held.valid_before:
                return True
            case Spent(final=True):
                return True
            case Paid(transaction):
                raise PaymentUnknown(
                    f"{_dollars(held.value)} USDC were paid for it in transaction {transaction}, and it was not taken: "
                    "nothing is paid again; show that transaction to the bundler"
                )
            case NoEvidence(why):
                raise PaymentUnknown(
                    f"whether {_dollars(held.value)} USDC were paid cannot be read from the chain: {why}"
                )
            case Unused() | Spent():
                raise PaymentUnknown(
                    f"whether {_dollars(held.value)} USDC were paid is not final on the chain yet: run it again in "
                    "some minutes"
                )


def encode(held: Authorized) -> bytes:
    """Return what is written down."""
    return msgspec.msgpack.encode(held)


def decode(content: bytes, where: str) -> Authorized:
    """Return what was written down at `where`. Raises Damaged: it may have been paid, and is not to be replaced."""
    try:
        return _decode(content)
    except msgspec.MsgspecError:
        raise Damaged(f"{where} is no authorization: what it was may be paid, so nothing else is") from None


def _dollars(micros: int) -> str:
    """Return an amount as text.

    >>> _dollars(1_514), _dollars(2_000_000)
    ('0.001514', '2.000000')
    """
    return f"{micros // 1_000_000}.{micros % 1_000_000:06d}"
