"""Asks a second endpoint the same as the first, where honest answers cannot differ: reads at one block hash.

An answer that no other can give is believed only where none of them follows the chain: whoever makes blocks up would
only have to be ahead (`hold`).
"""

from collections.abc import Sequence
from typing import Final, assert_never, final

from engram.chain.errors import (
    AnswerMalformed,
    AnswersDiffer,
    CallRefused,
    EndpointBusy,
    EndpointUnreachable,
    HeadAwaited,
)
from engram.chain.model import Head
from engram.chain.node import Json, Node, RpcCall
from engram.chain.reading import opinion
from engram.chain.rules import Opinion
from engram.clock import Clock, SystemClock

_COMPARED: Final = frozenset({"state_call", "state_getStorage", "state_getKeysPaged", "state_queryStorageAt"})
_SILENT: Final = (EndpointBusy, EndpointUnreachable, AnswerMalformed)
_CLOCK: Final = SystemClock()


@final
class Agreeing:
    """A Node: the answers of `node`, which the first of `others` that knows the block must give too.

    One that does not answer is not asked again; when none can be asked, `node` alone is believed.
    """

    def __init__(self, node: Node, others: Sequence[Node], clock: Clock = _CLOCK) -> None:
        self._node = node
        self._others = list(others)
        self._clock = clock

    @property
    def name(self) -> str:
        return self._node.name

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        """See Node. Raises AnswersDiffer when a second endpoint answers otherwise."""
        answers = await self._node.ask(calls)
        compared = [(call, ours) for call, ours in zip(calls, answers, strict=True) if _is_compared(call, ours)]
        if not compared:
            return answers
        for other in tuple(self._others):
            try:
                theirs = await other.ask([call for call, _ in compared])
            except _SILENT:
                self._others.remove(other)
                continue
            if any(isinstance(answer, CallRefused) for answer in theirs):
                continue
            for (call, ours), answer in zip(compared, theirs, strict=True):
                if ours != answer:
                    raise AnswersDiffer(f"{self.name} and {other.name} differ on {call.method} at one block")
            break
        return answers

    async def hold(self, head: Head) -> None:
        """Raises AnswersDiffer when another endpoint has another finalized block of this number, and none has it.

        Raises HeadAwaited when none has it yet, and one of them follows the chain: it will have it, or another.
        """
        awaited = ""
        for other in tuple(self._others):
            try:
                its = await opinion(other, head, self._clock.now())
            except _SILENT:
                self._others.remove(other)
                continue
            except CallRefused:
                continue
            match its:
                case Opinion.OTHER:
                    raise AnswersDiffer(f"{self.name} and {other.name} have different finalized blocks {head.number}")
                case Opinion.SAME:
                    return
                case Opinion.NOT_YET:
                    awaited = other.name
                case Opinion.NONE:
                    pass
                case _:
                    assert_never(its)
        if awaited:
            raise HeadAwaited(f"{awaited} has not finalized block {head.number} of {self.name} yet")


def _is_compared(call: RpcCall, answer: Json) -> bool:
    return call.method in _COMPARED and not isinstance(answer, CallRefused)
