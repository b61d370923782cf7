"""Confirms answers by a second endpoint, where honest answers cannot differ: reads at one block hash.

Two endpoints are asked at once and the first two answers that agree are taken. A third is asked when one of them is
slow or fails; two that differ are an error. An unconfirmed answer is accepted only when no other endpoint follows the
chain: otherwise an endpoint that invents blocks would only have to be ahead (`hold`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Final, assert_never, final

import trio

from engram.chain.errors import (
    AnswerMalformed,
    AnswersDiffer,
    CallRefused,
    ChainError,
    EndpointBusy,
    EndpointsForked,
    EndpointUnreachable,
    HeadAwaited,
)
from engram.chain.model import FinalizedBlock
from engram.chain.read.head_opinions import Opinion, compared, read_fork, stance
from engram.chain.read.hedging import hedged
from engram.chain.read.node import ChainEndpoint, Json, RpcCall
from engram.chain.read.watched import preferred
from engram.clock import Clock, SystemClock

_COMPARED: Final = frozenset({"state_call", "state_getStorage", "state_getKeysPaged", "state_queryStorageAt"})
_SILENT: Final = (EndpointBusy, EndpointUnreachable, AnswerMalformed)
_CLOCK: Final = SystemClock()


@final
class QuorumEndpoint:
    """A ChainEndpoint whose answers come from `node` and are confirmed by one of `others`.

    An endpoint that does not answer is not asked again; when none is left, `node` alone is trusted. When `node` fails,
    two of the others that agree stand in for it, provided every call can be compared.
    """

    def __init__(self, node: ChainEndpoint, others: Sequence[ChainEndpoint], clock: Clock = _CLOCK) -> None:
        self._node = node
        self._others = list(others)
        self._clock = clock

    @property
    def name(self) -> str:
        return self._node.name

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        """See ChainEndpoint. Raises AnswersDiffer when two endpoints answer differently."""
        places = [place for place, call in enumerate(calls) if call.method in _COMPARED]
        if not places or not self._others:
            return await self._node.ask(calls)
        comparison = _Comparison(self._node, calls, places)
        others = [partial(self._ask_other, other, comparison) for other in preferred(self._others)]
        await hedged([comparison.ask_first, *others], at_once=2)
        return comparison.taken()

    async def _ask_other(self, other: ChainEndpoint, comparison: "_Comparison") -> bool:
        try:
            return await comparison.ask_other(other)
        except _SILENT:
            self._leave_out(other)
            return False

    async def hold(self, head: FinalizedBlock) -> None:
        """Raise unless another endpoint has this block, or no other endpoint can say.

        An endpoint whose finalized block is lower is compared at that block. Raises EndpointsForked, with both headers,
        when another endpoint has a different finalized block of one number; HeadAwaited when none has this block yet
        but one follows the chain and will soon.
        """
        awaited: list[str] = []
        others = [partial(self._holds, other, head, awaited) for other in preferred(self._others)]
        if not await hedged(others) and awaited:
            raise HeadAwaited(f"{awaited[-1]} has not finalized block {head.number} of {self.name} yet")

    async def _holds(self, other: ChainEndpoint, head: FinalizedBlock, awaited: list[str]) -> bool:
        try:
            its = await stance(other, head, self._clock.now())
        except _SILENT:
            self._leave_out(other)
            return False
        except CallRefused:
            return False
        its = await compared(its, self._node)
        match its.opinion:
            case Opinion.OTHER:
                assert its.contested is not None
                raise EndpointsForked(await read_fork(self._node, other, its.contested, self._clock.now()))
            case Opinion.SAME:
                return True
            case Opinion.NOT_YET:
                awaited.append(other.name)
            case Opinion.NONE:
                pass
            case _:
                assert_never(its.opinion)
        return False

    def _leave_out(self, silent: ChainEndpoint) -> None:
        self._others = [other for other in self._others if other is not silent]


class _Comparison:
    """The answers to one batch of calls, as they arrive."""

    def __init__(self, node: ChainEndpoint, calls: Sequence[RpcCall], places: Sequence[int]) -> None:
        self._node = node
        self._calls = calls
        self._places = places
        self._heard: list[tuple[str, list[Json]]] = []
        """Endpoint name, and its answers to the calls that can be compared."""
        self._first: list[Json] | None = None
        self._first_ended = trio.Event()
        self._failure: ChainError = EndpointUnreachable(f"{node.name}: no answer")
        self._stand_in: list[Json] | None = None

    async def ask_first(self) -> bool:
        """Send `node` all calls; return whether the answers are settled."""
        try:
            self._first = await self._node.ask(self._calls)
        except ChainError as error:
            self._failure = error
            return False
        finally:
            self._first_ended.set()
        comparable = [self._first[place] for place in self._places]
        refused = all(isinstance(answer, CallRefused) for answer in comparable)
        return refused or self._agrees(self._node.name, comparable)

    async def ask_other(self, other: ChainEndpoint) -> bool:
        """Send another endpoint the comparable calls; return whether the answers are settled. Raises as its `ask`."""
        answers = await other.ask([self._calls[place] for place in self._places])
        if any(isinstance(answer, CallRefused) for answer in answers):
            return False
        if self._agrees(other.name, answers):
            if self._first is not None:
                return True
            if len(self._places) == len(self._calls):
                self._stand_in = answers
                return True
        await self._first_ended.wait()
        return False

    def taken(self) -> list[Json]:
        """Return the settled answers. Raises the node's failure when no other endpoint stands in for it."""
        if self._first is not None:
            return self._first
        if self._stand_in is not None:
            return self._stand_in
        raise self._failure

    def _agrees(self, name: str, answers: list[Json]) -> bool:
        """Return whether an earlier endpoint gave the same answers. Raises AnswersDiffer when one gave others.

        Calls that an endpoint refused are not compared.
        """
        for earlier, known in self._heard:
            for place, one, other in zip(self._places, known, answers, strict=True):
                if not isinstance(one, CallRefused) and not isinstance(other, CallRefused) and one != other:
                    first, second = (name, earlier) if name == self._node.name else (earlier, name)
                    raise AnswersDiffer(f"{first} and {second} differ on {self._calls[place].method} at one block")
        self._heard.append((name, answers))
        return len(self._heard) > 1
