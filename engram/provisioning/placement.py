"""Which backend a node is placed on. No I/O, no clock.

A backend is a candidate while it answers and has a place left. Among candidates the one comes first where fewer nodes
of this session were given up already; then the operator's rule decides:

| provisioning.placement | order                                                             |
|------------------------|-------------------------------------------------------------------|
| first                  | as `provisioning.backends` names them                             |
| cheapest               | by what an hour of the tier costs there; equal ones as named      |
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from config.model import Placement
from engram.provisioning.model import Offers
from engram.sessions import TierName

_MOST: Final = 4_096
"""Sessions more that are reckoned with: no gateway sells as many between two looks."""


class Sold(msgspec.Struct, frozen=True):
    """A session that has been sold, and what is left of its time."""

    session_id: str
    tier: TierName
    seconds: float
    backend: str | None
    """Where its node is to run; None: that is not decided yet."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one backend."""

    name: str
    offers: Offers | None = None
    """What it offered when it last answered; None before it ever did."""
    answers: bool = False
    reason: str = ""
    """Why it does not answer, for the operator."""

    @property
    def places(self) -> int:
        """Nodes that may run there at once; 0 while it does not answer."""
        return self.offers.places if self.answers and self.offers is not None else 0

    def places_for(self, tier: TierName, seconds: float) -> int:
        """Nodes that may run there at once if the next ones are of this tier, for so long."""
        return self.offers.places_for(tier, seconds) if self.answers and self.offers is not None else 0


def ranked(
    rule: Placement,
    standings: Iterable[Standing],
    held: Mapping[str, int],
    tier: TierName,
    given_up: Mapping[str, int] | None = None,
    seconds: float = 0.0,
) -> list[Offers]:
    """Return what the backends offer that have room, and money for so many seconds, the one to be taken first.

    `standings` are in the operator's order; `held` counts the nodes of each backend that are not gone, `given_up` the
    nodes of this session that are.
    """
    tried = given_up or {}
    room = [
        standing.offers
        for standing in standings
        if standing.offers is not None
        and standing.places > held.get(standing.name, 0)
        and standing.places_for(tier, seconds) > len(standing.offers.paid_sessions)
    ]

    def order(offers: Offers) -> tuple[int, int]:
        cost = offers.hourly_usd_micros.get(tier, 0) if rule == "cheapest" else 0
        return tried.get(offers.backend, 0), cost

    return sorted(room, key=order)


def places(standings: Iterable[Standing], held: Mapping[str, int]) -> int:
    """Return how many nodes may run at once: those that run, wherever, and what is free where a backend answers.

    Nodes of a backend that is down count as places that are taken; they take none from the others.

    >>> up = Standing(name="a", offers=Offers(backend="a", places=2), answers=True)
    >>> down = Standing(name="b", offers=Offers(backend="b", places=9))
    >>> places([up, down], {"a": 1, "b": 3})
    5
    """
    return sum(max(standing.places, held.get(standing.name, 0)) for standing in standings)


def places_for(standings: Iterable[Standing], held: Mapping[str, int], tier: TierName, seconds: float) -> int:
    """Return the same where the next nodes are of this tier, for so long: no more than can be paid."""
    return sum(max(one.places_for(tier, seconds), held.get(one.name, 0)) for one in standings)


def places_now(
    standings: Sequence[Standing], held: Mapping[str, int], sold: Iterable[Sold], tier: TierName, seconds: float
) -> int:
    """Return the same by what is sold and held at this moment: what the sessions cost that were sold since a backend
    last counted its money is not there any more.

    Nobody knows where a session will run that has no place yet: wherever it does, all that are sold can be paid, which
    is so when all but the cheapest that find a free place elsewhere can be.
    """
    sold = list(sold)
    waiting = [one for one in sold if one.backend is None]
    limited = [one for one in standings if one.answers and one.offers is not None and _is_limited(one.offers)]
    free = sum(max(0, one.places - held.get(one.name, 0)) for one in standings if one not in limited)
    more = max(0, free - len(waiting)) if not limited else 0
    for number, one in enumerate(limited):
        assert one.offers is not None, "of what answers it is known what it offers"
        payable = _payable(one.offers, held.get(one.name, 0), sold, waiting, tier, seconds, free)
        more += payable if number == 0 else max(0, payable - free)
    return sum(held.get(one.name, 0) for one in standings) + len(waiting) + more


def _is_limited(offers: Offers) -> bool:
    return offers.spare_usd_micros is not None


def _payable(
    offers: Offers,
    held: int,
    sold: Iterable[Sold],
    waiting: Iterable[Sold],
    tier: TierName,
    seconds: float,
    free: int,
) -> int:
    """Return how many sessions more the backend's account pays for, where `free` places elsewhere cost nothing."""
    cost = offers.cost_usd_micros(tier, seconds)
    spare = float(offers.spare_usd_micros or 0)
    for one in sold:
        if one.backend == offers.backend and one.session_id not in offers.paid_sessions:
            spare -= offers.cost_usd_micros(one.tier, one.seconds)
    needs = [offers.cost_usd_micros(one.tier, one.seconds) for one in waiting]

    def can_pay(more: int) -> bool:
        return sum(sorted([*needs, *([cost] * more)])[free:]) <= max(0.0, spare)

    least, most = 0, max(0, min(free + offers.places - held - len(needs), _MOST))
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if can_pay(middle) else (least, middle - 1)
    return least
