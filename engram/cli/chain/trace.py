"""`--logging.debug`: logs each call to an endpoint to standard error, with its duration and result."""

import sys
from collections.abc import Sequence
from typing import Final, final

import trio

from engram.chain.errors import CallRefused, ChainError
from engram.chain.read.node import ChainEndpoint, Json, RpcCall
from engram.cli.output import printable

_NAMED_BY_FIRST: Final = frozenset({"state_call"})
"""Methods whose first parameter is shown too; other parameters are keys and hashes."""


@final
class TracedEndpoint:
    """A ChainEndpoint that logs the calls to `node`. Signed extrinsics are parameters, which are not logged."""

    def __init__(self, node: ChainEndpoint) -> None:
        self._node = node

    @property
    def name(self) -> str:
        return self._node.name

    async def ask(self, calls: Sequence[RpcCall]) -> list[Json]:
        """See ChainEndpoint."""
        named = ", ".join(_named(call) for call in calls)
        started_s = trio.current_time()
        try:
            answers = await self._node.ask(calls)
        except ChainError as error:
            self._report(named, started_s, f"{type(error).__name__}: {error}")
            raise
        refused = [str(answer) for answer in answers if isinstance(answer, CallRefused)]
        self._report(named, started_s, "refused: " + "; ".join(refused) if refused else "answered")
        return answers

    def _report(self, calls: str, started_s: float, how: str) -> None:
        took_ms = (trio.current_time() - started_s) * 1_000
        sys.stderr.write(printable(f"debug: {self.name}: {calls}: {how} in {took_ms:.0f} ms") + "\n")


def _named(call: RpcCall) -> str:
    return f"{call.method} {call.params[0]}" if call.method in _NAMED_BY_FIRST and call.params else call.method
