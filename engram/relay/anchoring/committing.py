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
from engram.relay.queueing import queue
from engram.relay.signer import PayloadSigner
from engram.telemetry.metrics import Metrics

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
    queued: Callable[[], None]
    """A hint to the emitter."""
    metrics: Metrics
    signers: Sequence[str]
    """Of the streams whose payloads are leaves: ss58, or empty for those that the emitter signs with this key."""
    look_s: float = LOOK_S


@final
class Committing:
    """The job; one for each hotkey and subnet. A hotkey that is not registered commits nothing."""

    def __init__(self, ports: CommittingPorts) -> None:
        self._ports = ports
        self._signer = PayloadSigner.of(ports.keypair)
        self._signers = tuple(ports.signers)

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
        if metagraph is None or metagraph.neuron(own.public_key) is None:
            return Decision.NOTHING
        found = await ports.ledger.read(lambda c: records.intended(c, ports.netuid, own.ss58))
        leaves = await ports.ledger.read(lambda c: records.count_leaves(c, ports.netuid, self._signers))
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
        )
        match decision:
            case Decision.COMMIT:
                now = ports.clock.now()
                intended = found or await ports.ledger.write(
                    lambda c: records.intend(c, ports.netuid, own.ss58, self._signers, epoch.index, now)
                )
                if intended is not None:
                    await self._commit(view, held, intended)
            case Decision.ANCHOR if found is not None and held is not None:
                await self._anchor(found, held.block)
            case _:
                pass
        return decision

    async def _commit(self, view: View, held: CommittedFields | None, intended: IntendedAnchor) -> None:
        ports = self._ports
        try:
            fields = with_field(held, rules.committed_text(intended.intent.root), rules.is_root)
        except CallNotComposable as no_room:
            _log.error("not_anchored", reason=str(no_room))
            return
        until_block = view.head.number + ERA_BLOCKS
        await ports.ledger.write(lambda c: records.sending(c, intended, until_block))
        kill_points.point("anchor:before")
        done = await commit_fields(ports.sender, view, ports.netuid, fields, ports.keypair)
        kill_points.point("anchor:after")
        _log.info("root_committed", block=done.block.number, leaves=len(intended.leaves), epoch=intended.epoch)
        await self._anchor(intended, done.block.number)

    async def _anchor(self, intended: IntendedAnchor, block: int) -> None:
        ports, own, now = self._ports, self._ports.keypair.ss58, self._ports.clock.now()
        queued = await queue(
            ports.ledger,
            lambda c: records.anchored(c, ports.netuid, own, intended, block, self._signer.sign, now),
            ports.queued,
        )
        if queued:
            ports.metrics.relay_anchors.inc()
