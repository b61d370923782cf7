"""The co-signer: judges a proposal against what was measured or set here, and signs it or says why not.

The intent to sign is committed before the signature is given; what the proposer has signed is remembered as well, so
that a second output of one block is refused and kept as evidence, also after a restart.
"""

from collections.abc import Callable, Sequence
from typing import final

import msgspec
import structlog
from sqlalchemy import Connection

from engram import kill_points
from engram.chain.epochs import epoch_at
from engram.clock import Clock
from engram.hotkeys import Keypair, PublicKey, ss58
from engram.ledger import Ledger
from engram.relay.finality import Finality, FinalityGuard
from engram.relay.quorum import evidence, records, rules
from engram.relay.quorum.model import Bundle, Judged, OwnRanking, Proposal, QuorumTerms, Reading, Verdict
from engram.relay.quorum.permits_then import HoldersAt, holders_unknown
from engram.relay.quorum.proposals import MalformedProposal
from engram.relay.quorum.subnet_now import ReadsMetagraph, subnet_of
from engram.telemetry.metrics import Metrics

_log = structlog.get_logger("engram.relay")


class CosignerPorts(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of the co-signer."""

    ledger: Ledger
    keypair: Keypair
    clock: Clock
    terms: QuorumTerms
    metagraph: ReadsMetagraph
    guard: FinalityGuard | None
    """None: there is no chain to ask, and every block counts as final."""
    readings: Callable[[Connection, int, int], Sequence[Reading]]
    """(connection, block, blocks) -> the rounds that were held here at most so many blocks away."""
    metrics: Metrics
    holders_at: HoldersAt = holders_unknown


@final
class Cosigner:
    """Serves the proposals and bundles of other validators."""

    def __init__(self, ports: CosignerPorts) -> None:
        self._ports = ports

    def refuses(self, caller: PublicKey) -> Judged | None:
        """Return why a key is not heard at all, before anything that it sends is read; None when it may propose."""
        metagraph = self._ports.metagraph()
        if metagraph is None:
            return Judged(Verdict.CHAIN_UNKNOWN, "the chain was not read lately")
        if caller not in subnet_of(metagraph).holders:
            return Judged(Verdict.NO_PERMIT, f"the caller holds no validator permit at block {metagraph.block}")
        return None

    async def judge(self, caller: PublicKey, proposal: Proposal) -> tuple[Judged, str | None]:
        """Return what is said of a proposal, and the signature (0x and hex) where it is signed. Raises LedgerError."""
        ports = self._ports
        metagraph = ports.metagraph()
        finality, readings, holders_then = Finality.AWAITED, list[Reading](), None
        # Neither the chain nor the ledger is read for whoever has a key: only a validator's own proposal gets so far.
        is_holder = metagraph is not None and caller in subnet_of(metagraph).holders
        is_validator = is_holder and proposal.proposer == caller
        if is_validator:
            finality = await self._finality(proposal)
        if finality is Finality.FINAL:
            holders_then = await ports.holders_at(proposal.block)
        if is_validator and proposal.kind == "scores":
            readings = list(
                await ports.ledger.read(lambda c: ports.readings(c, proposal.block, ports.terms.compare_blocks))
            )
        proposer, own, now = ss58.encode(proposal.proposer), ports.keypair.ss58, ports.clock.now()

        def decide(connection: Connection) -> Judged:
            epoch_settled, rankings = False, list[OwnRanking]()
            if metagraph is not None:
                epoch = epoch_at(metagraph, proposal.block)
                left = records.bundle_of(connection, proposal.netuid, proposal.kind, epoch.index)
                epoch_settled = (
                    left is not None and left.signers != records.WITHHELD and left.signed_hash != proposal.signed_hash
                )
                if is_validator and proposal.kind == "ranking":
                    near = rules.COMPARE_EPOCHS
                    rankings = records.own_rankings(connection, proposal.netuid, epoch.index, near)
            judged = rules.judge(
                proposal,
                rules.KnownHere(
                    caller=caller,
                    subnet=None if metagraph is None else subnet_of(metagraph),
                    epoch_settled=epoch_settled,
                    proposer_signed=records.committed(connection, proposal, proposer),
                    finality=finality,
                    readings=readings,
                    signed=records.committed(connection, proposal, own),
                    rankings=rankings,
                    proposer_held_permit=holders_then is None or proposal.proposer in holders_then,
                    held_permit=holders_then is None or ports.keypair.public_key in holders_then,
                ),
                ports.terms,
            )
            is_near = metagraph is not None and rules.is_near(subnet_of(metagraph), proposal.block)
            if judged.verdict in rules.OF_A_VALIDATOR and (is_near or judged.verdict is Verdict.SIGNED):
                records.commit_to(connection, proposal, proposer, now)
            if judged.verdict is Verdict.SIGNED:
                records.commit_to(connection, proposal, own, now)
            elif judged.verdict in rules.EVIDENCE and evidence.keep(connection, proposal, proposer, own, judged, now):
                _log.warning(
                    "proposal_refused",
                    proposer=proposer,
                    kind=proposal.kind,
                    block=proposal.block,
                    reason=judged.reason,
                )
            return judged

        judged = await ports.ledger.write(decide)
        ports.metrics.relay_verdicts.labels(judged.verdict).inc()
        if judged.verdict is not Verdict.SIGNED:
            return judged, None
        kill_points.point("quorum:intended")
        return judged, "0x" + ports.keypair.sign(proposal.signed_hash.encode("ascii")).hex()

    async def note(self, proposal: Proposal, keys: frozenset[PublicKey]) -> bool:
        """Note the bundle of another validator; False when its epoch had one. Raises MalformedProposal, LedgerError."""
        ports = self._ports
        metagraph = ports.metagraph()
        if metagraph is None:
            raise MalformedProposal("the chain was not read lately: who may sign is not known")
        holders = subnet_of(metagraph).holders
        if proposal.netuid != ports.terms.netuid or not keys <= set(holders):
            raise MalformedProposal("a signer of the bundle holds no validator permit of this subnet")
        if not rules.is_near(subnet_of(metagraph), proposal.block):
            raise MalformedProposal(f"block {proposal.block} is far from block {metagraph.block}")
        if len(keys) < ports.terms.quorum:
            raise MalformedProposal(f"{len(keys)} validators have signed, at least {ports.terms.quorum} must")
        epoch = epoch_at(metagraph, proposal.block)
        proposer, now = ss58.encode(proposal.proposer), ports.clock.now()

        def keep(connection: Connection) -> bool:
            if not records.commit_to(connection, proposal, proposer, now):
                judged = Judged(Verdict.EQUIVOCATION, "another output of this block was proposed before")
                evidence.keep(connection, proposal, proposer, ports.keypair.ss58, judged, now)
                _log.error("equivocation", proposer=proposer, block=proposal.block)
            left = Bundle(
                netuid=proposal.netuid,
                kind=proposal.kind,
                epoch=epoch.index,
                block=proposal.block,
                proposer=proposer,
                output_hash=proposal.output_hash,
                signed_hash=proposal.signed_hash,
                signers=len(keys),
                at=now,
            )
            return records.note_bundle(connection, left)

        return await ports.ledger.write(keep)

    async def _finality(self, proposal: Proposal) -> Finality:
        guard = self._ports.guard
        return Finality.FINAL if guard is None else await guard(proposal.block, proposal.block_hash)
