"""Buying as a caller sees it: always an answer in time, and never "failed" for what is not known."""

from actors import ActorDown, ActorRef, ActorsError, CallTimeout
from engram.ledger import Ledger, LedgerError

from . import records, rules
from .answers import Conflict, PurchaseAnswer, Unavailable
from .protocol import Purchase, VerifierMessage

GRACE_S = 0.3
"""The verifier answers in time by itself; this is for the way back."""


async def buy(
    verifier: ActorRef[VerifierMessage], ledger: Ledger, purchase: Purchase, answer_within_s: float
) -> PurchaseAnswer:
    """Returns the answer to `purchase`; what the verifier cannot tell any more is looked up in the ledger."""
    try:
        return await verifier.call(purchase, timeout=answer_within_s + GRACE_S)
    except (CallTimeout, ActorDown):
        try:
            return await _as_recorded(ledger, purchase)
        except (LedgerError, ActorsError):
            return _come_back()


async def _as_recorded(ledger: Ledger, purchase: Purchase) -> PurchaseAnswer:
    key = rules.key_of(purchase.payload, purchase.quote.requirements)
    known = await ledger.read(lambda connection: records.find_authorization(connection, key))
    if known is None:
        return _come_back()
    answer = records.known_answer(known, purchase.controller, purchase.request_hash)
    return answer if isinstance(answer, Conflict) else rules.answer(answer.payment)


def _come_back() -> Unavailable:
    return Unavailable("payments_unavailable", "send the same request again", rules.UNAVAILABLE_RETRY_S)
