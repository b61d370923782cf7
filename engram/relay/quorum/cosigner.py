"""The co-signer: judges a proposal against what was measured here, and signs it or says why not.

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
from engram.relay.quorum import records, rules
from engram.relay.quorum.model import Bundle, Judged, Proposal, QuorumTerms, Reading, Verdict
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


@final
class Cosigner:
    """Serves the proposals and bundles of other validators."""

    def __init__(self, ports: CosignerPorts) -> None:
        self._ports = ports

    async def judge(self, caller: PublicKey, proposal: Proposal) -> tuple[Judged, str | None]:
        """Return what is said of a proposal, and the signature (0x and hex) where it is signed. Raises LedgerError."""
        ports = self._ports
        metagraph = ports.metagraph()
        finality, readings = Finality.AWAITED, list[Reading]()
        # Neither the chain nor the ledger is read for whoever has a key: only a validator's own proposal gets so far.
        if metagraph is not None and proposal.proposer == caller and caller in subnet_of(metagraph).holders:
            finality = await self._finality(proposal)
            readings = list(
                await ports.ledger.read(lambda c: ports.readings(c, proposal.block, ports.terms.compare_blocks))
            )
        proposer, own, now = ss58.encode(proposal.proposer), ports.keypair.ss58, ports.clock.now()

        def decide(connection: Connection) -> Judged:
            epoch_settled = False
            if metagraph is not None:
                epoch = epoch_at(metagraph, proposal.block)
                left = records.bundle_of(connection, proposal.netuid, epoch.index)
                epoch_settled = left is not None and left.signed_hash != proposal.signed_hash
            judged = rules.judge(
                proposal,
                rules.KnownHere(
                    caller=caller,
                    subnet=None if metagraph is None else subnet_of(metagraph),
                    epoch_settled=epoch_settled,
                    proposer_signed=records.committed(connection, proposal.netuid, proposal.block, proposer),
                    finality=finality,
                    readings=readings,
                    signed=records.committed(connection, proposal.netuid, proposal.block, own),
                ),
                ports.terms,
            )
            if judged.verdict in rules.OF_A_VALIDATOR:
                records.commit_to(connection, proposal.netuid, proposal.block, proposer, proposal.output_hash, now)
            if judged.verdict is Verdict.SIGNED:
                records.commit_to(connection, proposal.netuid, proposal.block, own, proposal.output_hash, now)
            elif judged.verdict in rules.EVIDENCE and records.keep_evidence(
                connection, proposal, proposer, own, judged, now
            ):
                _log.warning("proposal_refused", proposer=proposer, block=proposal.block, reason=judged.reason)
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
        if len(keys) < ports.terms.quorum:
            raise MalformedProposal(f"{len(keys)} validators have signed, at least {ports.terms.quorum} must")
        epoch = epoch_at(metagraph, proposal.block)
        proposer, now = ss58.encode(proposal.proposer), ports.clock.now()

        def keep(connection: Connection) -> bool:
            if not records.commit_to(connection, proposal.netuid, proposal.block, proposer, proposal.output_hash, now):
                judged = Judged(Verdict.EQUIVOCATION, "another output of this block was proposed before")
                records.keep_evidence(connection, proposal, proposer, ports.keypair.ss58, judged, now)
                _log.error("equivocation", proposer=proposer, block=proposal.block)
            left = Bundle(
                netuid=proposal.netuid,
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
