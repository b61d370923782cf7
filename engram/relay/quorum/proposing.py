"""The proposer: looks whose turn it is, proposes our own scores, collects signatures, and queues the bundle.

    look -> no scores of our own, no permit, not our turn, block not final: wait
         -> intent and signature committed -> every validator asked that has not signed -> each signature committed
         -> enough: the bundle is queued and the epoch closed, in one transaction -> the others are told

Whatever the process was doing when it was killed, the next look goes on from the ledger. A validator that could not be
told proposes scores of its own for the same epoch: two bundles of one epoch do no harm, a lost one would.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol, final

import msgspec
import structlog
import trio

from actors import Context
from engram import kill_points
from engram.api import validator_peers as api
from engram.clock import Clock
from engram.hotkeys import Keypair, ss58
from engram.ledger import Ledger, LedgerError
from engram.relay.finality import Finality, FinalityGuard
from engram.relay.model import Enqueued
from engram.relay.queueing import queue
from engram.relay.quorum import records, rules
from engram.relay.quorum.model import Candidate, CandidateState, Cosignature, Difference, Judged, QuorumTerms, Verdict
from engram.relay.quorum.proposals import MalformedProposal, cosigner, read_proposal
from engram.relay.quorum.subnet_now import Peer, ReadsMetagraph, subnet_of
from engram.relay.signer import PayloadSigner
from engram.telemetry.metrics import Metrics

LOOK_S: Final = 3.0
AT_ONCE: Final = 16

_log = structlog.get_logger("engram.relay")


class AsksPeers(Protocol):
    """The port to other validators; neither method raises."""

    async def ask(self, peer: Peer, document: bytes, block_hash: bytes) -> api.CosignerOpinion | None:
        """Return what the validator says of a signed payload; None when it gave no answer that can be read."""
        ...

    async def announce_bundle(self, peer: Peer, body: bytes) -> bool:
        """Say that a bundle has left; False when the validator did not note it."""
        ...


class ProposingPorts(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of the proposer."""

    ledger: Ledger
    keypair: Keypair
    clock: Clock
    terms: QuorumTerms
    metagraph: ReadsMetagraph
    guard: FinalityGuard | None
    """None: there is no chain to ask, and every block counts as final."""
    peers: Callable[[], Sequence[Peer]]
    client: AsksPeers
    bound: int
    """Payloads that may wait in the outbox."""
    queued: Callable[[], None]
    """A hint to the emitter."""
    metrics: Metrics
    look_s: float = LOOK_S


@final
class Proposing:
    """The job; one for each validator."""

    def __init__(self, ports: ProposingPorts) -> None:
        self._ports = ports
        self._signer = PayloadSigner.of(ports.keypair)
        self._refused: set[tuple[str, bytes]] = set()
        """Proposals by their signed_hash, and validators that refused to sign them for good."""

    async def run(self, context: Context) -> None:
        """Look until cancelled."""
        context.ready()
        await self._purge()
        while True:
            try:
                await self.look()
            except LedgerError as error:
                _log.error("not_proposed", reason=str(error))
            await trio.sleep(self._ports.look_s)

    async def look(self) -> None:
        """Look once. Raises LedgerError."""
        ports, terms = self._ports, self._ports.terms
        metagraph = ports.metagraph()
        if metagraph is None:
            return
        subnet = subnet_of(metagraph)
        await self._end_former(subnet.epoch.index - 1)
        if not rules.may_propose(subnet, ports.keypair.public_key, terms):
            return
        for found in await ports.ledger.read(lambda c: records.open_candidates(c, terms.netuid)):
            proposed = await self._proposed(found)
            if proposed is not None:
                await self._collect(proposed)

    async def _end_former(self, epoch: int) -> None:
        ports, now = self._ports, self._ports.clock.now()
        over = await ports.ledger.read(lambda c: records.open_candidates(c, ports.terms.netuid))
        if not any(found.epoch < epoch for found in over):
            return
        for ended in await ports.ledger.write(lambda c: records.end_former(c, ports.terms.netuid, epoch, now)):
            self._refused = {each for each in self._refused if each[0] != ended.signed_hash}
            _log.error("scores_not_relayed", epoch=ended.epoch, state=str(ended.state), reason=ended.reason)
            ports.metrics.relay_candidates.labels(ended.state).inc()

    async def _proposed(self, found: Candidate) -> Candidate | None:
        """Return the candidate signed; None when it may not be, or not yet."""
        ports, now = self._ports, self._ports.clock.now()
        match Finality.FINAL if ports.guard is None else await ports.guard(found.block, found.block_hash):
            case Finality.AWAITED:
                return None
            case Finality.REORGANIZED:
                reason = f"block {found.block} became another one"
                await ports.ledger.write(lambda c: records.end(c, found, CandidateState.WITHDRAWN, reason, now))
                self._ended(CandidateState.WITHDRAWN, found, reason)
                return None
            case Finality.FINAL:
                own = ports.keypair.ss58
                proposed = await ports.ledger.write(lambda c: records.propose(c, found, own, self._signer.sign, now))
        if proposed.state is CandidateState.WITHDRAWN:
            self._ended(proposed.state, found, proposed.reason or "")
            return None
        kill_points.point("quorum:proposed")
        return proposed

    async def _collect(self, proposed: Candidate) -> None:
        ports = self._ports
        peers = [] if ports.terms.quorum == 1 else list(ports.peers())
        have = records.signers_of(proposed)
        room = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            for peer in peers:
                if ss58.encode(peer.hotkey) not in have and (proposed.signed_hash, peer.hotkey) not in self._refused:
                    nursery.start_soon(self._ask, room, peer, proposed)
        own, now = ports.keypair.ss58, ports.clock.now()
        kept = next(
            (
                found
                for found in await ports.ledger.read(lambda c: records.open_candidates(c, ports.terms.netuid))
                if found.epoch == proposed.epoch
            ),
            None,
        )
        if kept is None or kept.signed is None or 1 + len(kept.cosignatures) < ports.terms.quorum:
            return
        queued = await queue(ports.ledger, lambda c: records.bundle(c, kept, own, ports.bound, now), ports.queued)
        if queued is Enqueued.REFUSED:
            _log.error("bundle_not_queued", reason="the outbox is full; tried again", epoch=kept.epoch)
            return
        kill_points.point("quorum:bundled")
        self._refused = {each for each in self._refused if each[0] != kept.signed_hash}
        self._ended(CandidateState.BUNDLED, kept, "")
        body = records.with_cosignatures(kept.signed, kept.cosignatures)
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(self._announce, room, peer, body)

    async def _ask(self, room: trio.CapacityLimiter, peer: Peer, proposed: Candidate) -> None:
        ports = self._ports
        assert proposed.signed is not None
        async with room:
            opinion = await ports.client.ask(peer, proposed.signed, proposed.block_hash)
        if opinion is None:
            return
        proposal = read_proposal(proposed.signed, proposed.block_hash.hex())
        address, now = ss58.encode(peer.hotkey), ports.clock.now()
        if opinion.signature is None:
            judged = _judged(opinion)
            if judged is not None and rules.STATUS[judged.verdict] != rules.TOO_EARLY:
                self._refused.add((proposal.signed_hash, peer.hotkey))
            _log.info("not_cosigned", by=address, verdict=opinion.verdict[:40], reason=opinion.reason[:200])
            if judged is not None and judged.verdict in rules.EVIDENCE:
                own = ports.keypair.ss58
                await ports.ledger.write(lambda c: records.keep_evidence(c, proposal, own, address, judged, now))
            return
        try:
            key = cosigner(proposal, opinion.hotkey, opinion.signature)
        except MalformedProposal as error:
            _log.warning("cosignature_refused", by=address, reason=str(error))
            return
        if key != peer.hotkey:
            _log.warning("cosignature_refused", by=address, reason=f"it is that of {ss58.encode(key)}")
            return
        signed = Cosignature(address, opinion.signature)
        await ports.ledger.write(lambda c: records.add_cosignature(c, proposed, signed, now))

    async def _announce(self, room: trio.CapacityLimiter, peer: Peer, body: bytes) -> None:
        async with room:
            if not await self._ports.client.announce_bundle(peer, body):
                _log.info("bundle_not_noted", by=ss58.encode(peer.hotkey))

    async def _purge(self) -> None:
        now = self._ports.clock.now()
        await self._ports.ledger.write(lambda c: records.purge(c, now))

    def _ended(self, state: CandidateState, found: Candidate, reason: str) -> None:
        self._ports.metrics.relay_candidates.labels(state).inc()
        log = _log.info if state is CandidateState.BUNDLED else _log.error
        log("scores_proposed", state=str(state), epoch=found.epoch, block=found.block, reason=reason)


def _judged(opinion: api.CosignerOpinion) -> Judged | None:
    """Return a refusal as it is kept; None for a verdict that is not known here."""
    try:
        verdict = Verdict(opinion.verdict)
    except ValueError:
        return None
    differences = tuple(
        Difference(
            uid=each.uid[:20],
            field=each.field[:20],
            proposed=each.proposed,
            lowest=each.lowest,
            highest=each.highest,
            tolerance=each.tolerance,
        )
        for each in opinion.differences[:1_000]
    )
    return Judged(verdict, opinion.reason[:500], differences)
