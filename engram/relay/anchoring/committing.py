"""Commits the root of what was acknowledged, at most once an epoch, and queues the anchors once that is final.

Whatever became of a commit is seen in the chain's own commitment of the hotkey, by the next look; nothing is sent again
while an extrinsic of before may still be included.
"""

from collections.abc import Callable, Sequence
from typing import Final, final

import msgspec
import structlog
import trio

from actors import Context
from engram import kill_points
from engram.chain.epochs import epoch_at
from engram.chain.errors import CallNotComposable, ChainError
from engram.chain.model import Metagraph
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.runtime import ERA_BLOCKS
from engram.chain.read.view import View, open_view
from engram.chain.registry.commitment_fields import (
    CommittedFields,
    commit_fields,
    octets_of,
    read_fields,
    with_field,
)
from engram.chain.submit.sender import Sender
from engram.clock import Clock
from engram.hotkeys import Keypair
from engram.ledger import Ledger, LedgerError
from engram.relay.anchoring import records, rules
from engram.relay.anchoring.records import IntendedAnchor
from engram.relay.anchoring.rules import Decision
from engram.relay.errors import OutboxFull
from engram.relay.queueing import queue
from engram.relay.signer import PayloadSigner
from engram.telemetry.metrics import Metrics

ANCHOR_WAITS: Final = "anchor_waits"
"""Why a root's anchors were not queued yet: too many payloads wait. Counted once a root."""
LOOK_S: Final = 24.0
"""Two blocks' time."""

_log = structlog.get_logger("engram.relay")


class CommittingPorts(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of the job."""

    ledger: Ledger
    keypair: Keypair
    clock: Clock
    netuid: int
    metagraph: Callable[[], Metagraph | None]
    nodes: Sequence[ChainEndpoint]
    sender: Sender
    bound: int
    """Payloads that may wait in the outbox."""
    queued: Callable[[], None]
    """A hint to the emitter."""
    metrics: Metrics
    look_s: float = LOOK_S


@final
class NotCommitting:
    """The job in place of Committing where the settings rule out anchors: notes why, for the operator."""

    def __init__(self, ledger: Ledger, clock: Clock, netuid: int, signer: str, reason: str) -> None:
        """Take the signer (ss58) whose outputs stay `accepted`."""
        self._ledger = ledger
        self._clock = clock
        self._netuid = netuid
        self._signer = signer
        self._reason = reason

    async def run(self, context: Context) -> None:
        """Note it once, and wait until cancelled."""
        context.ready()
        now = self._clock.now()
        await self._ledger.write(lambda c: records.note_unanchored(c, self._netuid, self._signer, self._reason, now))
        await trio.sleep_forever()


@final
class Committing:
    """The job; one for each hotkey and subnet. A hotkey that is not registered commits nothing."""

    def __init__(self, ports: CommittingPorts) -> None:
        self._ports = ports
        self._signer = PayloadSigner.of(ports.keypair)
        self._released: set[tuple[int, str]] = set()
        """Roots and kinds whose leaves go under the next root."""
        self._waiting = 0
        """The intent whose anchors were refused by a full outbox, and counted; 0: none."""

    async def run(self, context: Context) -> None:
        """Look until cancelled."""
        context.ready()
        while True:
            try:
                await self.look()
            except (LedgerError, ChainError) as error:
                _log.warning("not_anchored", reason=str(error))
            await trio.sleep(self._ports.look_s)

    async def look(self) -> Decision:
        """Look once. Raises LedgerError, ChainError."""
        ports, own = self._ports, self._ports.keypair
        metagraph = ports.metagraph()
        if metagraph is None:
            return Decision.NOTHING
        if metagraph.neuron(own.public_key) is None:
            await self._note(f"hotkey {own.ss58} is not registered on subnet {ports.netuid}, and can commit no root")
            return Decision.NOTHING
        await self._note("")
        found = await ports.ledger.read(lambda c: records.intended(c, ports.netuid, own.ss58))
        if found is None:
            await self._release()
        leaves = await ports.ledger.read(lambda c: records.count_leaves(c, ports.netuid, own.ss58))
        if found is None and leaves == 0:
            return Decision.NOTHING
        view = await open_view(ports.nodes)
        held = await read_fields(view, ports.netuid, own.public_key)
        octets = [] if held is None else [octets_of(field) for field in held.fields]
        epoch = epoch_at(metagraph, view.head.number)
        decision = rules.decide(
            None if found is None else found.intent,
            leaves,
            rules.root_in(octets),
            None if held is None else held.block,
            view.head.number,
            epoch,
            await ports.ledger.read(lambda c: records.awaited_since(c, ports.netuid, own.ss58)),
        )
        match decision:
            case Decision.COMMIT:
                now = ports.clock.now()
                intended = found or await ports.ledger.write(
                    lambda c: records.intend(c, ports.netuid, own.ss58, epoch.index, now)
                )
                if intended is not None:
                    await self._commit(view, held, intended)
            case Decision.ANCHOR if found is not None and held is not None:
                await self._anchor(found, held.block)
            case _:
                pass
        return decision

    async def _release(self) -> None:
        """Let what was under the root of an anchor that came at the wrong time go under the next one."""
        ports, own = self._ports, self._ports.keypair.ss58
        for anchor_id, kind in await ports.ledger.read(lambda c: records.to_release(c, ports.netuid, own)):
            if (anchor_id, kind) in self._released:
                continue
            leaves = await ports.ledger.write(lambda c, a=anchor_id, k=kind: records.release(c, a, k))  # type: ignore[misc]
            self._released.add((anchor_id, kind))
            _log.warning("anchored_again", kind=kind, leaves=leaves, reason="their anchor was parked")

    async def _note(self, reason: str) -> None:
        ports, own, now = self._ports, self._ports.keypair.ss58, self._ports.clock.now()
        if reason == await ports.ledger.read(lambda c: records.reason_of(c, ports.netuid, own)):
            return
        await ports.ledger.write(lambda c: records.note_unanchored(c, ports.netuid, own, reason, now))
        if reason:
            _log.warning("not_anchored", reason=reason)

    async def _commit(self, view: View, held: CommittedFields | None, intended: IntendedAnchor) -> None:
        ports = self._ports
        try:
            fields = with_field(held, rules.committed_text(intended.intent.root), rules.is_root)
        except CallNotComposable as no_room:
            _log.error("not_anchored", reason=str(no_room))
            return
        until_block = view.head.number + ERA_BLOCKS
        if not await ports.ledger.write(lambda c: records.sending(c, intended, until_block)):
            return  # another role of this process has the same hotkey, and sends it
        if not ports.ledger.holds:  # another gateway may be committing by now
            return
        kill_points.point("anchor:before")
        done = await commit_fields(ports.sender, view, ports.netuid, fields, ports.keypair)
        kill_points.point("anchor:after")
        _log.info("root_committed", block=done.block.number, leaves=len(intended.leaves), epoch=intended.epoch)
        await self._anchor(intended, done.block.number)

    async def _anchor(self, intended: IntendedAnchor, block: int) -> None:
        ports, own, now = self._ports, self._ports.keypair.ss58, self._ports.clock.now()
        try:
            queued = await queue(
                ports.ledger,
                lambda c: records.anchored(c, ports.netuid, own, intended, block, self._signer.sign, ports.bound, now),
                ports.queued,
            )
        except OutboxFull as full:
            _log.error("anchor_not_queued", reason=f"{full}; tried again", epoch=intended.epoch)
            if self._waiting != intended.id:
                self._waiting = intended.id
                ports.metrics.relay_not_queued.labels(ANCHOR_WAITS).inc()
            return
        if queued:
            ports.metrics.relay_anchors.inc()
