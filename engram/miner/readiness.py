"""Decides whether a node is ready: its index and its embedder have each worked once since its start.

A process that answers HTTP proves neither: with a library missing, both fail only at the first text, which a buyer has
paid for by then. A later failure shows in `index` and `embedder` of /health.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import structlog
import trio

from engram.memory.embed.protocol import Embedder
from engram.memory.errors import EmbedderUnavailable

TEXT: Final = "engram"
"""The text with which the embedder is tried; it is not stored."""
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 60.0

_log = structlog.get_logger("engram.miner")


@final
class Readiness:
    """Tries the embedder until it answers. A node that holds records has worked before and needs only its
    index: an embedding server that is down must not keep it from starting again."""

    def __init__(
        self, embedder: Embedder, index_has_answered: Callable[[], bool], has_records: Callable[[], bool]
    ) -> None:
        self._embedder = embedder
        self._index_has_answered = index_has_answered
        self._has_records = has_records
        self._embedded = False

    @property
    def ready(self) -> bool:
        """Whether both have worked."""
        return self._index_has_answered() and (self._embedded or self._has_records())

    async def run(self, ready: Callable[[], None]) -> None:
        """Try the embedder with growing pauses until it answers or has failed for good."""
        ready()
        wait_s = _FIRST_WAIT_S
        while not self._embedded and self._embedder.state != "failed":
            try:
                await self._embedder.embed([TEXT])
                self._embedded = True
            except EmbedderUnavailable as error:
                _log.warning("embedder_not_ready", reason=str(error))
                await trio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        await trio.sleep_forever()
