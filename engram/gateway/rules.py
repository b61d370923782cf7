"""Decides whether anything can be sold, and why not: one pure rule behind /ready, /nodes, the 503 of a purchase, the
log, the metric and `engram doctor`.

| code | the gateway cannot sell because | lasting |
|---|---|---|
| not_selling | the operator switched selling off | no |
| node_parts_missing | this installation cannot run nodes: the extra `node` is not installed | yes |
| price_out_of_range | a session would cost less than one atomic unit, or more than can be written down | yes |
| no_recipient | no address is paid | yes |
| no_hotkeys | the pool of node hotkeys is empty, where keys are not made on demand | yes |
| no_places | no node may run here | yes |
| backends_silent | nothing that nodes run on answers | no |
| disk_full | the disk of the data folder has no room for a node | yes |
| chain_unknown | nodes are to be announced on a chain that has not been read | no |
| facilitator_unavailable | the facilitator cannot be asked, or has not been yet | no |
| facilitator_unsupported, below_minimum | the facilitator does not settle this | no |
| no_capacity | every place is taken | no |

A lasting reason is the operator's to mend: with one the gateway is not ready. The others pass, or are wanted: the
gateway is ready, goes on serving what it sold, and says so.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from config.pricing import MOST_UNITS
from engram.payments import NoRoom

LEAST_FREE_BYTES: Final = 64 * 1024**2
"""An empty node takes half of this."""
LASTING: Final = frozenset(
    {"node_parts_missing", "price_out_of_range", "no_recipient", "no_hotkeys", "no_places", "disk_full"}
)
CODES: Final = (
    "not_selling",
    "node_parts_missing",
    "price_out_of_range",
    "no_recipient",
    "no_hotkeys",
    "no_places",
    "backends_silent",
    "disk_full",
    "chain_unknown",
    "facilitator_unavailable",
    "facilitator_unsupported",
    "below_minimum",
    "no_capacity",
)
"""All codes, in the order in which reasons are listed."""

CLOSED_RETRY_S: Final = 300
LASTING_RETRY_S: Final = 600
FULL_RETRY_S: Final = 30
CHAIN_RETRY_S: Final = 10
BACKENDS_RETRY_S: Final = 15


class SalesFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The input of the rule. None means not known, which is no reason to refuse a sale."""

    selling: bool = True
    """The operator's switch."""
    missing_parts: tuple[str, ...] = ()
    """Distributions that nodes need and this installation lacks."""
    parts_remedy: str = ""
    prices: tuple[int, int] = (1, 1)
    """The lowest and the highest price of a session, in atomic units."""
    recipient: str = "?"
    usable_keys: int | None = None
    """Node hotkeys in use or free; None where keys are made on demand."""
    places: int | None = None
    """Nodes that may run at once, whatever the pool of keys holds."""
    silent_backends: tuple[str, ...] = ()
    """The backends that nodes run on, where none of them answers."""
    held: int | None = None
    """Places that sessions occupy."""
    free_bytes: int | None = None
    """Free space on the data folder's disk."""
    chain_read: bool | None = None
    """Whether the chain has been read; None where nodes are not announced."""
    facilitator: NoRoom | None = None
    """Why the facilitator would refuse to settle now."""


class Reason(msgspec.Struct, frozen=True):
    """One reason why nothing can be sold: a code for programs, a message for buyers, a remedy for the operator."""

    code: str
    message: str
    remedy: str = ""
    """What the operator should do; empty when waiting is enough."""
    retry_after_s: int = 0

    @property
    def lasting(self) -> bool:
        """Whether the reason lasts until the operator acts."""
        return self.code in LASTING

    @property
    def text(self) -> str:
        """The message and the remedy."""
        return f"{self.message.rstrip('.')}; {self.remedy}" if self.remedy else self.message

    @property
    def answer(self) -> NoRoom:
        """The answer to a buyer."""
        return NoRoom(self.code, self.message, self.retry_after_s)


def reasons(facts: SalesFacts) -> tuple[Reason, ...]:
    """Return every reason why nothing can be sold, in the order of CODES; empty when something can."""
    return tuple(_reasons(facts))


def not_ready(found: Iterable[Reason]) -> str:
    """Return what /ready reports of the lasting reasons; empty when there are none."""
    return "; ".join(reason.text for reason in found if reason.lasting)


def _reasons(facts: SalesFacts) -> Iterator[Reason]:
    if not facts.selling:
        yield Reason(
            "not_selling",
            "Nothing is sold at the moment; running sessions go on.",
            "engram selling on",
            CLOSED_RETRY_S,
        )
    if facts.missing_parts:
        what = ", ".join(facts.missing_parts)
        verb = "is" if len(facts.missing_parts) == 1 else "are"
        yield Reason(
            "node_parts_missing",
            f"This gateway cannot run nodes: {what} {verb} not installed",
            facts.parts_remedy,
            LASTING_RETRY_S,
        )
    yield from _terms(facts)
    yield from _room(facts)
    if facts.chain_read is False:
        yield Reason("chain_unknown", "The chain that nodes are announced on has not been read yet.", "", CHAIN_RETRY_S)
    if facts.facilitator is not None:
        yield Reason(facts.facilitator.code, facts.facilitator.message, "", facts.facilitator.retry_after_s)
    if facts.held is not None and facts.held >= _places(facts) > 0:
        yield Reason("no_capacity", "every node is taken at the moment", "", FULL_RETRY_S)


def _terms(facts: SalesFacts) -> Iterator[Reason]:
    lowest, highest = facts.prices
    if lowest < 1 or highest > MOST_UNITS:
        yield Reason(
            "price_out_of_range",
            f"A session would cost {lowest} to {highest} atomic units of USDC",
            f"set pricing.lite_usd_per_hour so that it is 1 to {MOST_UNITS}",
            LASTING_RETRY_S,
        )
    if not facts.recipient:
        yield Reason("no_recipient", "There is no address to pay", "set payments.recipient", LASTING_RETRY_S)


def _room(facts: SalesFacts) -> Iterator[Reason]:
    if facts.usable_keys is not None and facts.usable_keys < 1:
        yield Reason(
            "no_hotkeys",
            "The pool of node hotkeys is empty",
            "add keys while the gateway runs (engram hotkeys pool add FILE …)",
            LASTING_RETRY_S,
        )
    if facts.silent_backends:
        yield Reason(
            "backends_silent",
            "Where nodes run cannot be reached at the moment.",
            f"see what `engram status` says of {' and '.join(facts.silent_backends)}",
            BACKENDS_RETRY_S,
        )
    elif facts.places is not None and facts.places < 1:
        yield Reason("no_places", "No node may run here", "raise provisioning.places", LASTING_RETRY_S)
    if facts.free_bytes is not None and facts.free_bytes < LEAST_FREE_BYTES:
        yield Reason(
            "disk_full",
            f"The disk has {facts.free_bytes // 1024**2} MB left, a node needs {LEAST_FREE_BYTES // 1024**2}",
            "free some space",
            LASTING_RETRY_S,
        )


def _places(facts: SalesFacts) -> int:
    limits = [limit for limit in (facts.places, facts.usable_keys) if limit is not None]
    return min(limits, default=0)
