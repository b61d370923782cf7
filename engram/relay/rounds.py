"""Feeds the outbox: in each round, what the stats poller learnt of the managed nodes becomes `memory` payloads."""

from collections.abc import Callable, Mapping
from typing import Final, final

import msgspec
import structlog
import trio
from sqlalchemy import Connection, select

from actors import Context
from engram.clock import Clock
from engram.hotkeys import ss58
from engram.ledger import Ledger, LedgerError
from engram.ledger.schema import sessions
from engram.relay import records
from engram.relay.model import NodeMemory
from engram.relay.rules import memory_of, memory_payload
from engram.stats import NodeStats, StatsView

NODES_A_PAYLOAD: Final = 256
"""More nodes than that make several payloads, so that none outgrows a receiver's body limit."""

_log = structlog.get_logger(__name__)


@final
class MemoryRounds:
    """The job that queues one round every `interval_s`; a node that has not answered since the last one is left out."""

    def __init__(
        self,
        ledger: Ledger,
        view: StatsView,
        clock: Clock,
        *,
        netuid: int,
        block: Callable[[], int | None],
        interval_s: float,
        on_queued: Callable[[], None],
    ) -> None:
        """`block` is the newest finalized block, None while there is none; `on_queued` is a hint, after the commit."""
        self._ledger = ledger
        self._view = view
        self._clock = clock
        self._netuid = netuid
        self._block = block
        self._interval_s = interval_s
        self._on_queued = on_queued

    async def run(self, context: Context) -> None:
        """Runs until cancelled."""
        context.ready()
        while True:
            await trio.sleep(self._interval_s)
            try:
                await self.queue_round()
            except LedgerError as error:
                _log.error("relay_round_not_queued", reason=str(error))

    async def queue_round(self) -> int:
        """Queue what was learnt in the last interval; returns how many payloads. Raises LedgerError."""
        block, oldest = self._block(), self._clock.monotonic() - self._interval_s
        fresh = {session_id: sample.stats for session_id, sample in self._view.items() if sample.at >= oldest}
        if block is None or not fresh:
            return 0
        now = self._clock.now()
        queued = await self._ledger.write(lambda connection: self._queue(connection, fresh, block, now))
        if queued:
            self._on_queued()
        return queued

    def _queue(self, connection: Connection, fresh: Mapping[str, NodeStats], block: int, now: float) -> int:
        nodes: dict[str, NodeMemory] = {}
        query = select(sessions.c.id, sessions.c.node_hotkey).where(
            sessions.c.id.in_(sorted(fresh)), sessions.c.node_hotkey.is_not(None)
        )
        for row in connection.execute(query):
            nodes[ss58.encode(row.node_hotkey)] = memory_of(msgspec.structs.asdict(fresh[row.id]))
        names = sorted(nodes)
        parts = [names[first : first + NODES_A_PAYLOAD] for first in range(0, len(names), NODES_A_PAYLOAD)]
        queued = 0
        for number, part in enumerate(parts):
            payload = memory_payload(
                {name: nodes[name] for name in part},
                netuid=self._netuid,
                block=block,
                source=f"nodes{number}",
                round_ts=now,
            )
            queued += records.enqueue(connection, payload, now)
        return queued
