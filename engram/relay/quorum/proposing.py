"""The proposer: looks whose turn it is, proposes our scores and ranking, collects signatures, and queues the bundles.

    look -> nothing of our own, no permit, not our turn, block not final: wait
         -> intent and signature committed -> every validator asked that has not signed -> each signature committed
         -> enough: the bundle is queued and the epoch closed, in one transaction -> the others are told

Whatever the process was doing when it was killed, the next look goes on from the ledger. A validator that could not be
told proposes its own for the same epoch: two bundles of one epoch do no harm, a lost one would.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, final

import msgspec
import structlog
import trio

from actors import Context
from engram import kill_points
from engram.api import validator_peers as api
from engram.clock import Clock
from engram.hotkeys import Keypair, PublicKey, ss58
from engram.ledger import Ledger, LedgerError
from engram.relay.finality import Finality, FinalityGuard
from engram.relay.model import Enqueued
from engram.relay.queueing import queue
from engram.relay.quorum import evidence, records, rules
from engram.relay.quorum.model import Candidate, CandidateState, Cosignature, Difference, Judged, QuorumTerms, Verdict
from engram.relay.quorum.permits_then import HoldersAt, holders_unknown
from engram.relay.quorum.proposals import MalformedProposal, cosigner, read_proposal
from engram.relay.quorum.subnet_now import Peer, ReadsMetagraph, subnet_of
from engram.relay.signer import PayloadSigner
from engram.telemetry.metrics import Metrics

BUNDLE_WAITS: Final = "bundle_waits"
"""Why a bundle was not queued yet: too many payloads wait. Counted once a bundle; the end of its epoch loses it."""
ACCEPTED_WITHIN_S: Final = 300.0
"""A bundle that another has announced settles its epoch for so long; then only if the receiver shows that it has it."""
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


async def not_known(_: str) -> None:
    """Return None: the receiver is not asked what it has accepted."""
    return


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
    holders_at: HoldersAt = holders_unknown
    accepted: Callable[[str], Awaitable[bool | None]] = not_known
    """Whether the receiver shows that it has accepted a signed_hash; None where that cannot be known."""
    look_s: float = LOOK_S


@final
class Proposing:
    """The job; one for each validator."""

    def __init__(self, ports: ProposingPorts) -> None:
        self._ports = ports
        self._signer = PayloadSigner.of(ports.keypair)
        self._waiting: set[tuple[str, int]] = set()
        """Kind and epoch of bundles that a full outbox refused, and that were counted."""
        self._shown: set[str] = set()
        """signed_hash of bundles of others that the receiver has shown."""
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
        await self._end_former(subnet.epoch.index - 1, is_holder=ports.keypair.public_key in subnet.holders)
        await self._reopen_withheld(subnet.epoch.index - 1)
        if not rules.may_propose(subnet, ports.keypair.public_key, terms):
            return
        for found in await ports.ledger.read(lambda c: records.open_candidates(c, terms.netuid)):
            proposed = await self._proposed(found)
            if proposed is not None:
                await self._collect(proposed)

    async def _end_former(self, epoch: int, *, is_holder: bool) -> None:
        ports, now = self._ports, self._ports.clock.now()
        over = await ports.ledger.read(lambda c: records.open_candidates(c, ports.terms.netuid))
        if not any(found.epoch < epoch for found in over):
            return
        unproposed = "it was never proposed" + ("" if is_holder else ": this validator holds no permit")
        ended_now = await ports.ledger.write(
            lambda c: records.end_former(c, ports.terms.netuid, epoch, now, unproposed)
        )
        for ended in ended_now:
            self._refused = {each for each in self._refused if each[0] != ended.signed_hash}
            self._waiting.discard((ended.kind, ended.epoch))
            _log.error("not_relayed", kind=ended.kind, epoch=ended.epoch, state=str(ended.state), reason=ended.reason)
            ports.metrics.relay_candidates.labels(ended.state).inc()

    async def _reopen_withheld(self, epoch: int) -> None:
        """Let our own be proposed again where the bundle of another was announced, and the receiver never got it."""
        ports, netuid, own = self._ports, self._ports.terms.netuid, self._ports.keypair.ss58
        now = ports.clock.now()
        left = await ports.ledger.read(lambda c: records.not_shown(c, netuid, own, epoch, now - ACCEPTED_WITHIN_S))
        self._shown &= {each.signed_hash for each in left}
        for found in left:
            if found.signed_hash in self._shown:
                continue
            match await ports.accepted(found.signed_hash):
                case True:
                    self._shown.add(found.signed_hash)
                case False:
                    await ports.ledger.write(lambda c, f=found: records.reopen(c, f, now))  # type: ignore[misc]
                    _log.error("bundle_withheld", proposer=found.proposer, kind=found.kind, epoch=found.epoch)
                case None:
                    return

    async def _proposed(self, found: Candidate) -> Candidate | None:
        """Return the candidate signed; None when it may not be, or not yet."""
        ports, now = self._ports, self._ports.clock.now()
        match Finality.FINAL if ports.guard is None else await ports.guard(found.block, found.block_hash):
            case Finality.AWAITED:
                return None
            case Finality.REORGANIZED:
                await self._withdraw(found, f"block {found.block} became another one")
                return None
            case Finality.FINAL:
                then = await ports.holders_at(found.block)
                if then is not None and ports.keypair.public_key not in then:
                    await self._withdraw(found, f"this validator held no permit at block {found.block}")
                    return None
                own = ports.keypair.ss58
                proposed = await ports.ledger.write(lambda c: records.propose(c, found, own, self._signer.sign, now))
        if proposed.state is CandidateState.WITHDRAWN:
            self._ended(proposed.state, found, proposed.reason or "")
            return None
        kill_points.point("quorum:proposed")
        return proposed

    async def _withdraw(self, found: Candidate, reason: str) -> None:
        now = self._ports.clock.now()
        await self._ports.ledger.write(lambda c: records.end(c, found, CandidateState.WITHDRAWN, reason, now))
        self._ended(CandidateState.WITHDRAWN, found, reason)

    async def _collect(self, proposed: Candidate) -> None:
        ports = self._ports
        peers = [] if ports.terms.quorum == 1 else list(ports.peers())
        then = await ports.holders_at(proposed.block) if peers else None
        have = records.signers_of(proposed)
        room = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            for peer in peers:
                if then is not None and peer.hotkey not in then:
                    continue  # the receiver takes no bundle with its signature
                if ss58.encode(peer.hotkey) not in have and (proposed.signed_hash, peer.hotkey) not in self._refused:
                    nursery.start_soon(self._ask, room, peer, proposed)
        own, now = ports.keypair.ss58, ports.clock.now()
        kept = _of_holders(await ports.ledger.read(lambda c: records.candidate(c, proposed)), then)
        if kept.state is not CandidateState.PROPOSED or 1 + len(kept.cosignatures) < ports.terms.quorum:
            return
        assert kept.signed is not None, "what is proposed was signed"
        queued = await queue(ports.ledger, lambda c: records.bundle(c, kept, own, ports.bound, now), ports.queued)
        if queued is Enqueued.REFUSED:
            _log.error("bundle_not_queued", reason="the outbox is full; tried again", kind=kept.kind, epoch=kept.epoch)
            if (kept.kind, kept.epoch) not in self._waiting:
                self._waiting.add((kept.kind, kept.epoch))
                ports.metrics.relay_not_queued.labels(BUNDLE_WAITS).inc()
            return
        kill_points.point("quorum:bundled")
        self._refused = {each for each in self._refused if each[0] != kept.signed_hash}
        self._waiting.discard((kept.kind, kept.epoch))
        self._ended(CandidateState.BUNDLED, kept, "")
        body = records.with_cosignatures(kept.signed, kept.cosignatures)
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(self._announce, room, peer, body)

    async def _ask(self, room: trio.CapacityLimiter, peer: Peer, proposed: Candidate) -> None:
        try:
            await self._ask_one(room, peer, proposed)
        except LedgerError as error:  # here, since a nursery hands on groups of errors; asked again at the next look
            _log.error("cosignature_not_kept", by=ss58.encode(peer.hotkey), reason=str(error))

    async def _ask_one(self, room: trio.CapacityLimiter, peer: Peer, proposed: Candidate) -> None:
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
            is_final = judged is not None and rules.STATUS[judged.verdict] != rules.TOO_EARLY
            if judged is not None and is_final and judged.verdict is not Verdict.SETTLED:  # that may be reopened
                self._refused.add((proposal.signed_hash, peer.hotkey))
            _log.info("not_cosigned", by=address, verdict=opinion.verdict[:40], reason=opinion.reason[:200])
            if judged is not None and judged.verdict in rules.EVIDENCE:
                own = ports.keypair.ss58
                await ports.ledger.write(lambda c: evidence.keep(c, proposal, own, address, judged, now))
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
        log("proposed", kind=found.kind, state=str(state), epoch=found.epoch, block=found.block, reason=reason)


def _of_holders(kept: Candidate, then: frozenset[PublicKey] | None) -> Candidate:
    """Return a candidate with the signatures of those that held a permit at its block; all where that is not known."""
    if then is None:
        return kept
    addresses = {ss58.encode(key) for key in then}
    held = tuple(each for each in kept.cosignatures if each.hotkey in addresses)
    return msgspec.structs.replace(kept, cosignatures=held)


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
