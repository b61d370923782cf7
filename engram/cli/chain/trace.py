"""What `--logging.debug` tells on standard error: each question to an endpoint, how long it took, how it ended."""

import sys
from collections.abc import Sequence
from typing import Final, final

import trio

from engram.chain.errors import CallRefused, ChainError
from engram.chain.read.node import ChainEndpoint, Json, RpcCall
from engram.cli.output import printable

_NAMED_BY_FIRST: Final = frozenset({"state_call"})
"""Methods whose first parameter says what is asked; other parameters are keys and hashes that tell a reader little."""


@final
class TracedEndpoint:
    """A Node that tells what is asked of `node`. What is signed is never told: it is a parameter."""

    def __init__(self, node: ChainEndpoint) -> None:
        self._node = node

    @property
    def name(self) -> str:
        return self._node.name

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        """See Node."""
        asked = ", ".join(_named(call) for call in calls)
        started_s = trio.current_time()
        try:
            answers = await self._node.ask(calls)
        except ChainError as error:
            self._tell(asked, started_s, f"{type(error).__name__}: {error}")
            raise
        refused = [str(answer) for answer in answers if isinstance(answer, CallRefused)]
        self._tell(asked, started_s, "refused: " + "; ".join(refused) if refused else "answered")
        return answers

    def _tell(self, asked: str, started_s: float, how: str) -> None:
        took_ms = (trio.current_time() - started_s) * 1_000
        sys.stderr.write(printable(f"debug: {self.name}: {asked}: {how} in {took_ms:.0f} ms") + "\n")


def _named(call: RpcCall) -> str:
    return f"{call.method} {call.params[0]}" if call.method in _NAMED_BY_FIRST and call.params else call.method
