"""What the chain's answers to a transaction mean. Pure.

| answer                                                    | meaning                                               |
|-----------------------------------------------------------|-------------------------------------------------------|
| accepted (code 0), "already in the mempool" (sdk 19)      | TAKEN: look for it until its time is over             |
| sequence mismatch (sdk 32), ours too low, never sent yet  | RENUMBER: it can never be on chain                    |
| sequence mismatch, ours too high                          | AGAIN: this endpoint is behind                        |
| mempool full (sdk 20), no answer, 5xx                     | AGAIN: perhaps it was taken                           |
| fee too low here (sdk 13), timeout not good (sdk 18)      | AGAIN: endpoints differ in fees, and in what they saw |
| any other code, and these bytes may have been sent before | AGAIN: the first copy may be on its way               |
| any other code, the first time these bytes are sent       | REFUSED: nothing changed, nothing will                |
"""

import re
from enum import StrEnum
from typing import Final

from engram.provisioning.akash.events import Refusal

SDK: Final = "sdk"
OUT_OF_GAS: Final = (SDK, 11)
LOW_FEE: Final = (SDK, 13)
_IN_MEMPOOL: Final = 19
_MEMPOOL_FULL: Final = 20
_OF_THIS_ENDPOINT: Final = frozenset({_MEMPOOL_FULL, 13, 18})
"""Refusals by which another endpoint is not bound: mempool full, its own least fee, and a timeout that it takes for
past, too far ahead or used (the messages themselves were simulated)."""
_SEQUENCE: Final = 32
_EXPECTED = re.compile(r"expected (\d{1,18}), got (\d{1,18})", re.ASCII)

GAS_FACTOR: Final = 2.0
"""Of what a simulation used; an escrow settles rent, so its gas grows with the height."""
GAS_AGAIN: Final = 1.6
"""Of what a transaction had used when it ran out of gas."""

MOST_GAS: Final = 4_000_000
"""Ten times what our largest transaction takes. No endpoint's word makes us pay for more."""


class Taken(StrEnum):
    """What an endpoint did with a transaction."""

    TAKEN = "taken"
    AGAIN = "again"
    RENUMBER = "renumber"
    REFUSED = "refused"


def taken(codespace: str, code: int, log: str, *, maybe_sent: bool) -> Taken:
    """Return what the answer to a broadcast means; `maybe_sent`: the same bytes may have been taken before."""
    if code == 0 or (codespace, code) == (SDK, _IN_MEMPOOL):
        return Taken.TAKEN
    if codespace == SDK and code in _OF_THIS_ENDPOINT:
        return Taken.AGAIN
    if (codespace, code) == (SDK, _SEQUENCE):
        expected = expected_sequence(log)
        too_low = expected is not None and expected[0] > expected[1]
        return Taken.RENUMBER if too_low and not maybe_sent else Taken.AGAIN
    return Taken.AGAIN if maybe_sent else Taken.REFUSED


def expected_sequence(log: str) -> tuple[int, int] | None:
    """Return the sequence that the chain expected and the one it got.

    >>> expected_sequence("account sequence mismatch, expected 62332, got 62331: incorrect account sequence")
    (62332, 62331)
    """
    found = _EXPECTED.search(log)
    return None if found is None else (int(found[1]), int(found[2]))


def sequence_wanted(text: str) -> int | None:
    """Return the sequence that a simulation was refused for not having: it says nothing about the messages.

    >>> sequence_wanted("account sequence mismatch, expected 5, got 4: incorrect account sequence")
    5
    """
    found = expected_sequence(text) if "account sequence mismatch" in text.lower() else None
    return None if found is None else found[0]


_FUNDS = ("insufficient balance", "insufficient funds", "deposit invalid", "deposit too low")
_BID = ("bid not open", "order not open", "bid not found", "order not found", "group not open", "order closed")
_GONE = ("deployment closed", "deployment not found", "account closed")
_REFUSALS: Final = {
    ("market", 28): Refusal.NO_FUNDS,
    (SDK, 5): Refusal.NO_FUNDS,
    ("market", 12): Refusal.BID_GONE,
    ("market", 13): Refusal.BID_GONE,
    ("market", 15): Refusal.BID_GONE,
    ("market", 16): Refusal.BID_GONE,
    ("market", 17): Refusal.BID_GONE,
    ("market", 18): Refusal.BID_GONE,
    ("deployment", 4): Refusal.GONE,
    ("deployment", 5): Refusal.GONE,
}


def refusal_of(codespace: str, code: int, text: str) -> Refusal:
    """Return why the chain refused. A simulation gives only the text.

    >>> refusal_of("market", 28, ""), refusal_of("", 3, "rpc error: ...: bid not open")
    (<Refusal.NO_FUNDS: 'no_funds'>, <Refusal.BID_GONE: 'bid_gone'>)
    """
    known = _REFUSALS.get((codespace, code))
    if known is not None:
        return known
    lower = text.lower()
    for words, meaning in ((_FUNDS, Refusal.NO_FUNDS), (_BID, Refusal.BID_GONE), (_GONE, Refusal.GONE)):
        if any(word in lower for word in words):
            return meaning
    return Refusal.OTHER


def exists(text: str) -> bool:
    """Return whether the chain refused since what is asked for is there already."""
    return "deployment exists" in text.lower()


def needs_order(text: str) -> bool:
    """Return whether a simulation was refused because the chain takes no unordered transactions."""
    lower = text.lower()
    return "unordered" in lower and ("not supported" in lower or "not enabled" in lower or "disabled" in lower)


def is_of_its_time(text: str) -> bool:
    """Return whether a simulation was refused for the timeout that it bore: it took too long, and says nothing.

    >>> is_of_its_time("unordered transaction has a timeout_timestamp that has already passed: invalid request")
    True
    """
    return "timeout_timestamp" in text.lower()


def gas_limit(simulated: int, ran_out_at: int | None) -> int:
    """Return the gas to pay for: twice the simulation's, or more than what ran out before, at most `MOST_GAS`.

    >>> gas_limit(131_202, None), gas_limit(131_202, 400_000)
    (262404, 640000)
    """
    wanted = -int(-simulated * GAS_FACTOR // 1)
    again = 0 if ran_out_at is None else -int(-ran_out_at * GAS_AGAIN // 1)
    return min(max(wanted, again), MOST_GAS)
