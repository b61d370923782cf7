"""Remembers the health of each endpoint, so that one that hangs costs its timeout once and not at every call.

| how a call ended                              | what follows for its endpoint                                       |
|-----------------------------------------------|---------------------------------------------------------------------|
| answered                                      | it may be asked first again                                         |
| not reached, after more than HUNG_S           | set aside: not asked while another endpoint can be                  |
| not reached, at once                          | nothing: asking again costs nothing                                 |
| refused for load                              | set aside for as long as it asked                                   |
| given up, because others had answered already | asked last                                                          |

The last endpoint that is not set aside is always asked. A command keeps the health while it runs, a process for all
readers of the same endpoints.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, final

import msgspec
import trio

from engram.chain.errors import EndpointBusy, EndpointUnreachable
from engram.chain.model import EndpointHealth
from engram.chain.read.endpoint_health import after_busy, after_hang, after_success
from engram.chain.read.hedging import HEDGE_S
from engram.chain.read.node import ChainEndpoint, Json, RpcCall
from engram.clock import Clock

HUNG_S: Final = 0.3
"""A failure that took longer than this sets its endpoint aside."""
LATE_S: Final = 60.0
"""Time for which an endpoint that was slower than others is asked last."""
SetAside = Callable[[EndpointHealth, str, float], EndpointHealth]
"""The health after a failure: the health before it, why, and the monotonic time."""


@final
class WatchedEndpoint:
    """A ChainEndpoint that is not asked while it is set aside; see the table above."""

    def __init__(
        self,
        node: ChainEndpoint,
        place: int,
        healths: list[EndpointHealth],
        clock: Clock,
        rng: Random,
        set_aside: SetAside,
    ) -> None:
        self._node = node
        self._place = place
        self._healths = healths
        self._clock = clock
        self._rng = rng
        self._set_aside = set_aside

    @property
    def name(self) -> str:
        return self._node.name

    @property
    def is_late(self) -> bool:
        """Whether it is asked after the others."""
        return self._health.not_before_s > self._clock.monotonic()

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        """See ChainEndpoint. Raises EndpointUnreachable at once, with nothing sent, while it is set aside."""
        started_s = self._clock.monotonic()
        health = self._health
        if health.silent_until_s > started_s and self._another_is_available(started_s):
            why = f"not asked again for now, after: {health.last_error}"
            raise EndpointUnreachable(f"{self.name}: {why}", may_have_arrived=False)
        try:
            answers = await self._node.ask(calls)
        except EndpointUnreachable as error:
            now_s = self._clock.monotonic()
            if now_s - started_s >= HUNG_S:
                self._health = self._set_aside(self._health, str(error), now_s)
            raise
        except EndpointBusy as error:
            now_s = self._clock.monotonic()
            self._health = after_busy(self._health, str(error), error.retry_after_s, now_s, self._rng)
            raise
        except trio.Cancelled:
            now_s = self._clock.monotonic()
            if now_s - started_s >= HEDGE_S:
                until_s = max(self._health.not_before_s, now_s + LATE_S)
                self._health = msgspec.structs.replace(self._health, not_before_s=until_s)
            raise
        if 0.0 < self._health.silent_until_s <= self._clock.monotonic():
            self._health = after_success()
        return answers

    @property
    def _health(self) -> EndpointHealth:
        return self._healths[self._place]

    @_health.setter
    def _health(self, health: EndpointHealth) -> None:
        self._healths[self._place] = health

    def _another_is_available(self, now_s: float) -> bool:
        return any(health.silent_until_s <= now_s for health in self._healths)


def watch(
    nodes: Sequence[ChainEndpoint],
    clock: Clock,
    rng: Random,
    *,
    healths: list[EndpointHealth] | None = None,
    set_aside: SetAside = after_hang,
) -> tuple[WatchedEndpoint, ...]:
    """Return the endpoints with shared health; `healths` (one each, in order) may be shared with other readers too."""
    shared = [EndpointHealth() for _ in nodes] if healths is None else healths
    return tuple(WatchedEndpoint(node, place, shared, clock, rng, set_aside) for place, node in enumerate(nodes))


def preferred(nodes: Sequence[ChainEndpoint]) -> list[ChainEndpoint]:
    """Return the endpoints in their order, late ones last."""
    return sorted(nodes, key=lambda node: isinstance(node, WatchedEndpoint) and node.is_late)
