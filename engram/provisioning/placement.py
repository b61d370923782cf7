"""Which backend a node is placed on. No I/O, no clock.

A backend is a candidate while it answers and has a place left. Among candidates the one comes first where fewer nodes
of this session were given up already; then the operator's rule decides:

| provisioning.placement | order                                                             |
|------------------------|-------------------------------------------------------------------|
| first                  | as `provisioning.backends` names them                             |
| cheapest               | by what an hour of the tier costs there; equal ones as named      |
"""

from collections.abc import Iterable, Mapping

import msgspec

from config.model import Placement
from engram.provisioning.model import Offers
from engram.sessions import TierName


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


def ranked(
    rule: Placement,
    standings: Iterable[Standing],
    held: Mapping[str, int],
    tier: TierName,
    given_up: Mapping[str, int] | None = None,
) -> list[Offers]:
    """Return what is offered by the backends that have room, the one to be taken first.

    `standings` are in the operator's order; `held` counts the nodes of each backend that are not gone, `given_up` the
    nodes of this session that are.
    """
    tried = given_up or {}
    room = [
        standing.offers
        for standing in standings
        if standing.offers is not None and standing.places > held.get(standing.name, 0)
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
