"""Submissions that are paid for: bought by the number through the payments' facade, used one for each accepted payload.

| a payload comes | |
|---|---|
| its signer, as it says itself, has a submission left | it is judged; accepted, one is used, in the same transaction |
| none is left, and this payload was accepted before | it gets its acknowledgement again, as any repeat |
| it is a gap marker or an anchor | it is judged, and costs nothing |
| none is left | 402 with the offer, before anything is verified |

Refused payloads, repeats, gap markers and anchors use nothing, so that nobody can use up what somebody else has paid
for. 402 says something about the receiver to an emitter: it holds it back, parks nothing, and tells its operator.
"""

from typing import Final, final

import msgspec
from sqlalchemy import Connection

from engram import wire
from engram.hotkeys import MalformedHotkey, PublicKey, ss58
from engram.http.request import Request
from engram.ledger import Ledger
from engram.payments import PurchaseAnswer, Quote, prepaid
from engram.payments.purchasing import Credit, Order, Purchasing, Quotes, request_hash
from engram.payments.x402 import PaymentChallenge
from engram.xeris import records
from engram.xeris.judging import FREE

PATH: Final = "/credits"


class _Claim(msgspec.Struct, frozen=True):
    kind: str = ""
    validator_hotkey: str = ""
    signed_hash: str = ""


@final
class Selling:
    """Sells submissions. `units` are bought at once, for `amount` atomic units of the token."""

    def __init__(self, ledger: Ledger, quotes: Quotes, purchasing: Purchasing, *, units: int, amount: int) -> None:
        self._ledger = ledger
        self._quotes = quotes
        self._purchasing = purchasing
        self._units = units
        self._amount = amount

    @property
    def quote(self) -> Quote:
        """The offer."""
        return self._quotes.credit(PATH, self._amount, f"{self._units} submissions to a receiver of the relay")

    def challenge(self, message: str) -> PaymentChallenge:
        """Return the 402."""
        return self._quotes.challenge(self.quote, message)

    async def must_pay(self, body: bytes) -> bool:
        """Return whether the payload's claimed signer has no submission left for it. Raises LedgerError.

        What cannot be read at all is left to the judging.
        """
        try:
            claim = wire.decode(body, _Claim)
            account = ss58.decode(claim.validator_hotkey)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, MalformedHotkey):
            return False

        if claim.kind in FREE:
            return False

        def query(connection: Connection) -> bool:
            return prepaid.left(connection, account) <= 0 and not records.is_accepted(
                connection, account, claim.signed_hash
            )

        return await self._ledger.read(query)

    async def buy(self, account: PublicKey, request: Request) -> PurchaseAnswer:
        """Buy submissions with the payment in the request's headers. Raises LedgerError."""
        order = Order(
            quote=self.quote,
            wanted=Credit(self._units),
            controller=account,
            request_hash=request_hash(request.method, request.raw_path, account, request.body),
            message_hash=None,
            client_address="",
        )
        return await self._purchasing.answer(order, request.lines)

    async def left(self, account: PublicKey) -> int:
        """Return how many submissions a key has left, 0 at least. Raises LedgerError."""
        return max(0, await self._ledger.read(lambda connection: prepaid.left(connection, account)))
