"""All backends of this gateway: which of them answer, and the one that holds a node.

Whether a backend answers is known from the last look at it, and from sagas that could not reach it. One that does not
answer delays nobody: it is asked again every RETRY_S, with a bound, beside the others.
"""

from collections.abc import Mapping, Sequence
from typing import Final, final

import structlog
import trio
from sqlalchemy import Connection

from engram.provisioning import placement, records
from engram.provisioning.errors import ProvisioningError, Unavailable
from engram.provisioning.node_backend import NodeBackend
from engram.provisioning.placement import Standing
from engram.sessions import TierName

LOOK_S: Final = 5.0
"""A backend that has not said by then what it offers does not answer."""
RETRY_S: Final = 10.0

_log = structlog.get_logger("engram.provisioning")


@final
class Backends:
    """The backends in the operator's order, by name."""

    def __init__(self, backends: Sequence[NodeBackend]) -> None:
        """Raise ValueError when two bear one name."""
        self._backends = {backend.name: backend for backend in backends}
        if len(self._backends) != len(backends):
            raise ValueError(f"two backends bear one name: {', '.join(backend.name for backend in backends)}")
        self._standings = {name: Standing(name=name) for name in self._backends}
        self._looked_at: dict[str, float] = {}
        self._held: Mapping[str, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the operator's order."""
        return tuple(self._backends)

    @property
    def all(self) -> tuple[NodeBackend, ...]:
        """The backends, in the operator's order."""
        return tuple(self._backends.values())

    @property
    def standings(self) -> tuple[Standing, ...]:
        """What is known of each, in the operator's order."""
        return tuple(self._standings.values())

    @property
    def places(self) -> int:
        """How many nodes may run at once now: those that run, and what is free where a backend answers."""
        return placement.places(self.standings, self._held)

    def places_for(self, tier: TierName, seconds: float) -> int:
        """Return how many nodes may run at once now, where the next is of this tier, for so long."""
        return placement.places_for(self.standings, self._held, tier, seconds)

    def places_in(self, connection: Connection, tier: TierName, seconds: float) -> int:
        """Return the same by what the ledger shows in this transaction: sales of this moment count, also those of other
        gateways."""
        standings = self.standings
        if all(one.offers is None or one.offers.spare_usd_micros is None for one in standings):
            return placement.places_for(standings, self._held, tier, seconds)
        held, sold = records.count_by_backend(connection), records.sold(connection)
        return placement.places_now(standings, held, sold, tier, seconds)

    def free(self, name: str) -> int:
        """Return how many places are free at this one; 0 while it does not answer."""
        return max(0, self._standings[name].places - self._held.get(name, 0))

    @property
    def not_enforced(self) -> tuple[str, ...]:
        """The limits of a tier that some backend cannot enforce."""
        offered = [standing.offers for standing in self.standings if standing.offers is not None]
        return tuple(dict.fromkeys(limit for offers in offered for limit in offers.not_enforced))

    @property
    def silent(self) -> tuple[str, ...]:
        """The names of all backends where none of them answers; empty where one does."""
        return () if any(standing.answers for standing in self.standings) else self.names

    def note_held(self, held: Mapping[str, int]) -> None:
        """Note how many nodes of each backend are not gone."""
        self._held = held

    def of(self, name: str) -> NodeBackend:
        """Return the backend of that name. Raises Unavailable when there is none: another gateway's, perhaps."""
        try:
            return self._backends[name]
        except KeyError:
            raise Unavailable(f"no backend {name!r} is configured here") from None

    async def look(self) -> tuple[Standing, ...]:
        """Ask what each offers, all at once; one that did not answer lately is left alone for RETRY_S."""
        now = trio.current_time()
        async with trio.open_nursery() as nursery:
            for name, standing in self._standings.items():
                if standing.answers or now - self._looked_at.get(name, -RETRY_S) >= RETRY_S:
                    nursery.start_soon(self.look_at, name)
        return self.standings

    async def look_at(self, name: str) -> Standing:
        """Ask what this one offers."""
        self._looked_at[name] = trio.current_time()
        try:
            with trio.fail_after(LOOK_S):
                offers = await self._backends[name].offers()
        except ProvisioningError as error:
            self.note_silence(name, str(error))
        except trio.TooSlowError:
            self.note_silence(name, f"no answer within {LOOK_S:g} s")
        else:
            if not self._standings[name].answers:
                _log.info("backend_answers", backend=name, places=offers.places)
            self._standings[name] = Standing(name=name, offers=offers, answers=True)
        return self._standings[name]

    def is_elsewhere(self, name: str) -> bool:
        """Return whether launches there take minutes, on machines of others."""
        offers = self._standings[name].offers if name in self._standings else None
        return offers is not None and offers.is_elsewhere

    def note_silence(self, name: str, reason: str) -> None:
        """Note that this one could not be reached."""
        before = self._standings[name]
        if before.answers or not before.reason:
            _log.warning("backend_silent", backend=name, reason=reason)
        self._looked_at[name] = trio.current_time()
        self._standings[name] = Standing(name=name, offers=before.offers, answers=False, reason=reason)
