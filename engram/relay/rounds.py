"""Feeds the outbox: in each round, what the stats poller learned of the managed nodes becomes `memory` payloads.

Each node is asked for the root that it signs, all at once and for a bounded time; one that gives none, or one that does
not hold, is relayed with `root` null.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, final

import msgspec
import structlog
import trio
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from actors import Context
from engram.clock import Clock
from engram.hints import Hints
from engram.hotkeys import ss58
from engram.ledger import CommitUnknown, Ledger, LedgerError, owners
from engram.relay import records
from engram.relay.model import Enqueued, NodeMemory, SignedRoot, ToolCall
from engram.relay.queueing import queue
from engram.relay.rules import memory_of, memory_payload
from engram.sessions import records as session_records
from engram.stats import NodeStats, StatsView
from engram.telemetry.metrics import Metrics

ROOTS_AT_ONCE: Final = 64
ROOTS_WITHIN_S: Final = 30.0
"""For the roots of a round, all together."""
NODES_A_PAYLOAD: Final = 256
"""More nodes than that make several payloads, so that none outgrows a receiver's body limit."""

LOST: Final = ("outbox_full", "no_block", "ledger")
"""Why a round's payloads were not queued: too many wait, no block of the chain is known, or a write failed."""

_log = structlog.get_logger(__name__)


CallsTool = Callable[[int, int], Awaitable[ToolCall]]
"""(netuid, block) -> what a tool said, or why it said nothing. Bounded in time; raises nothing."""
AsksRoot = Callable[[str, bytes, str], Awaitable[SignedRoot | None]]
"""(endpoint, the node's public key, session id) -> its root, checked; None when it gave none. Raises no HttpError."""


@final
class RoundLosses:
    """Counts the payloads that never reached the outbox; they are not made again. Outlives the rounds' restarts."""

    def __init__(self, metrics: Metrics) -> None:
        self._counted = {reason: metrics.relay_not_queued.labels(reason) for reason in LOST}
        self.payloads = 0

    def add(self, reason: str, payloads: int) -> None:
        """`reason` is one of LOST."""
        self._counted[reason].inc(payloads)
        self.payloads += payloads


class RoundPorts(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of the rounds."""

    ledger: Ledger
    view: StatsView
    clock: Clock
    netuid: int
    signer: str
    """ss58 of the gateway's hotkey, whose stream the payloads are."""
    block: Callable[[], int | None]
    """The newest finalized block, None while there is none."""
    interval_s: float
    hints: Hints
    losses: RoundLosses
    block_hash: Callable[[int], bytes | None] = lambda block: None
    """The hash of that finalized block, as it is known now; None where it is not."""
    bound: int | None = None
    """Entries that may wait; None: records.OPEN_BOUND."""
    ask_root: AsksRoot | None = None
    """None: nodes are not asked, and all roots are null."""
    call_tool: CallsTool | None = None
    """Called once a round, for all of its payloads; None: no tool is configured."""


@final
class MemoryRounds:
    """The job that queues one round every `interval_s`; a node that has not answered since the last one is left out."""

    def __init__(self, ports: RoundPorts) -> None:
        self._ledger = ports.ledger
        self._view = ports.view
        self._clock = ports.clock
        self._netuid = ports.netuid
        self._signer = ports.signer
        self._block = ports.block
        self._interval_s = ports.interval_s
        self._hints = ports.hints
        self._losses = ports.losses
        self._bound = ports.bound
        self._block_hash = ports.block_hash
        self._ask_root = ports.ask_root
        self._call_tool = ports.call_tool

    async def run(self, context: Context) -> None:
        """Run until cancelled."""
        context.ready()
        while True:
            await trio.sleep(self._interval_s)
            try:
                await self.queue_round()
            except CommitUnknown as error:  # it may well be queued
                _log.error("relay_round_unknown", reason=str(error))
            except LedgerError as error:
                self._lost("ledger", 1, cause=str(error))

    async def queue_round(self) -> int:
        """Queue what was learned in the last interval; returns how many payloads. Raises LedgerError.

        What is not queued is logged and counted: without a block, or with a full outbox, it is lost.
        """
        block, oldest = self._block(), self._clock.monotonic() - self._interval_s
        fresh = {session_id: sample.stats for session_id, sample in self._view.items() if sample.at >= oldest}
        if not fresh:
            return 0
        if block is None:
            self._lost("no_block", 1)
            return 0
        block_hash = self._block_hash(block)  # before anything is awaited: only the newest block's is known
        roots = await self._roots(fresh)
        tool = UNSET if self._call_tool is None else await self._call_tool(self._netuid, block)
        now = self._clock.now()
        outcomes = await queue(
            self._ledger,
            lambda connection: self._queue(connection, fresh, roots, tool, (block, block_hash), now),
            self._hints.outbox_changed,
        )
        if refused := outcomes.count(Enqueued.REFUSED):
            self._lost("outbox_full", refused, bound=self._bound or records.OPEN_BOUND)
        return outcomes.count(Enqueued.QUEUED)

    def _lost(self, reason: str, payloads: int, **facts: object) -> None:
        _log.error("relay_round_not_queued", reason=reason, payloads=payloads, **facts)
        self._losses.add(reason, payloads)

    async def _roots(self, fresh: Mapping[str, NodeStats]) -> dict[str, SignedRoot]:
        """Return the roots of these sessions' nodes, as many as come in time."""
        found: dict[str, SignedRoot] = {}
        if (ask_root := self._ask_root) is None:
            return found
        running = await self._ledger.read(session_records.list_running)
        room = trio.CapacityLimiter(ROOTS_AT_ONCE)

        async def ask(endpoint: str, hotkey: bytes, session_id: str) -> None:
            async with room:
                root = await ask_root(endpoint, hotkey, session_id)
            if root is not None:
                found[session_id] = root

        with trio.move_on_after(ROOTS_WITHIN_S):
            async with trio.open_nursery() as nursery:
                for session in running:
                    if session.session_id in fresh and session.endpoint and session.hotkey is not None:
                        nursery.start_soon(ask, session.endpoint, session.hotkey, session.session_id)
        return found

    def _queue(
        self,
        connection: Connection,
        fresh: Mapping[str, NodeStats],
        roots: Mapping[str, SignedRoot],
        tool: ToolCall | UnsetType,
        at: tuple[int, bytes | None],
        now: float,
    ) -> list[Enqueued]:
        """Queue the payloads of a round; `at` is its block and the block's hash."""
        block, block_hash = at
        nodes: dict[str, NodeMemory] = {}
        for session_id, hotkey in session_records.node_hotkeys(connection, fresh).items():
            nodes[ss58.encode(hotkey)] = memory_of(msgspec.structs.asdict(fresh[session_id]), roots.get(session_id))
        names = sorted(nodes)
        parts = [names[first : first + NODES_A_PAYLOAD] for first in range(0, len(names), NODES_A_PAYLOAD)]
        # Gateways that share a ledger and a hotkey each tell of their own nodes.
        me = owners.me(connection)
        own = "" if me == owners.ALONE else f"g{me}."
        outcomes = []
        for number, part in enumerate(parts):
            payload = memory_payload(
                {name: nodes[name] for name in part},
                netuid=self._netuid,
                block=block,
                source=f"{own}nodes{number}",
                round_ts=now,
                tool=tool,
            )
            outcomes.append(
                records.enqueue(connection, payload, now, bound=self._bound, block_hash=block_hash, signer=self._signer)
            )
        return outcomes
