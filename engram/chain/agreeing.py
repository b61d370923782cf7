"""Asks a second endpoint the same as the first, where honest answers cannot differ: reads at one block hash."""

from collections.abc import Sequence
from typing import Final, final

from engram.chain.errors import AnswerMalformed, AnswersDiffer, CallRefused, EndpointBusy, EndpointUnreachable
from engram.chain.model import Head
from engram.chain.node import Json, Node, RpcCall
from engram.chain.reading import read_finalized_number, read_hash_at
from engram.chain.rules import Opinion, opinion_of

_COMPARED: Final = frozenset({"state_call", "state_getStorage", "state_getKeysPaged", "state_queryStorageAt"})
_SILENT: Final = (EndpointBusy, EndpointUnreachable, AnswerMalformed)


@final
class Agreeing:
    """A Node: the answers of `node`, which the first of `others` that knows the block must give too.

    One that does not answer is not asked again; when none can be asked, `node` alone is believed.
    """

    def __init__(self, node: Node, others: Sequence[Node]) -> None:
        self._node = node
        self._others = list(others)

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
        """Raises AnswersDiffer when another endpoint has another finalized block of this number, and none has it."""
        for other in tuple(self._others):
            try:
                opinion = await _opinion(other, head)
            except _SILENT:
                self._others.remove(other)
                continue
            except CallRefused:
                continue
            if opinion is Opinion.OTHER:
                raise AnswersDiffer(f"{self.name} and {other.name} have different finalized blocks {head.number}")
            if opinion is Opinion.SAME:
                return


async def _opinion(node: Node, head: Head) -> Opinion:
    its_hash = await read_hash_at(node, head.number)
    if its_hash is None or its_hash == head.hash:
        return opinion_of(head, its_hash, head.number)
    its_finalized = await read_finalized_number(node)
    # Read again: the first one may have been a block that was not to become the finalized one.
    return opinion_of(head, await read_hash_at(node, head.number), its_finalized)


def _is_compared(call: RpcCall, answer: Json) -> bool:
    return call.method in _COMPARED and not isinstance(answer, CallRefused)
