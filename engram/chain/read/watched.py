"""Remembers how each endpoint behaved, so that one that hangs costs its timeout once and not at every question.

| how a question ended                          | what follows for its endpoint                                       |
|-----------------------------------------------|---------------------------------------------------------------------|
| answered                                      | it may be asked first again                                         |
| not reached, after more than HUNG_S           | set aside: not asked while another endpoint can be                  |
| not reached, at once                          | nothing: asking again costs nothing                                 |
| refused for load                              | set aside for as long as it asked                                   |
| given up, because others had answered already | asked last                                                          |

The last endpoint that is not set aside is always asked. A command keeps this for its own time, a process for all that
ask the same endpoints in it.
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
from engram.chain.read.node import Json, Node, RpcCall
from engram.clock import Clock

HUNG_S: Final = 0.3
"""A failure that took longer costs too much to have it again."""
LATE_S: Final = 60.0
"""An endpoint that others were faster than is asked after them for so long."""
SetAside = Callable[[EndpointHealth, str, float], EndpointHealth]
"""The health after a failure: the health before it, why, and the monotonic time."""


@final
class Watched:
    """A Node that is not asked while it is set aside; see the table above."""

    def __init__(
        self, node: Node, place: int, healths: list[EndpointHealth], clock: Clock, rng: Random, set_aside: SetAside
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
        """Whether other endpoints are asked before it."""
        return self._health.not_before_s > self._clock.monotonic()

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        """See Node. Raises EndpointUnreachable at once, with nothing sent, while it is set aside."""
        started_s = self._clock.monotonic()
        health = self._health
        if health.silent_until_s > started_s and self._another_may_be_asked(started_s):
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

    def _another_may_be_asked(self, now_s: float) -> bool:
        return any(health.silent_until_s <= now_s for health in self._healths)


def watch(
    nodes: Sequence[Node],
    clock: Clock,
    rng: Random,
    *,
    healths: list[EndpointHealth] | None = None,
    set_aside: SetAside = after_hang,
) -> tuple[Watched, ...]:
    """The nodes, watched together; `healths` (one a node, in their order) are shared with who asks them otherwise."""
    shared = [EndpointHealth() for _ in nodes] if healths is None else healths
    return tuple(Watched(node, place, shared, clock, rng, set_aside) for place, node in enumerate(nodes))


def preferred(nodes: Sequence[Node]) -> list[Node]:
    """The nodes in their order, those that were late last."""
    return sorted(nodes, key=lambda node: isinstance(node, Watched) and node.is_late)
