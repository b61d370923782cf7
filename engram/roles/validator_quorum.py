"""What a validator's quorum is made of: the proposer, the co-signer and its surface."""

from collections.abc import Sequence
from typing import Final, final

import structlog
from sqlalchemy import Connection

from actors import Backoff, ChildSpec
from config.model import RelaySettings, Settings
from engram.chain.epochs import epoch_at
from engram.chain.model import Metagraph
from engram.chain.read.node import ChainEndpoint
from engram.chain.submit.sender import Sender
from engram.chain.sync.subnets import Subnets
from engram.hotkeys import Keypair, PublicKey, ss58
from engram.http.app import App
from engram.relay.actor import RELAY_EMITTER, RelayEmitter
from engram.relay.anchoring.committing import Committing, CommittingPorts, NotCommitting
from engram.relay.finality import FinalityGuard
from engram.relay.protocol import OutboxGrew
from engram.relay.quorum import records
from engram.relay.quorum.cosigner import Cosigner, CosignerPorts
from engram.relay.quorum.model import QuorumTerms, Tolerance
from engram.relay.quorum.peer_client import PeerClient
from engram.relay.quorum.permits_then import PermitsThen, holders_unknown
from engram.relay.quorum.proposing import Proposing, ProposingPorts, not_known
from engram.relay.quorum.subnet_now import STALE_S, Peer, peers_of
from engram.relay.receiver import Receiver
from engram.relay.rules import kind_of
from engram.roles.outages import outlasting
from engram.roles.process import spare
from engram.roles.shared import Shared
from engram.validator import relaying
from engram.validator.model import Round, Sent
from engram.validator.peers_app import peers_app

SURFACE: Final = "validator"
"""Name of the listener for other validators."""

_log = structlog.get_logger("engram.relay")


@final
class ValidatorQuorum:
    """The ports of what proposes and co-signs; `children` are its part of the tree."""

    def __init__(
        self,
        p: Shared,
        keypair: Keypair,
        subnets: Subnets,
        guard: FinalityGuard | None,
        nodes: Sequence[ChainEndpoint],
        sender: Sender,
        receiver: Receiver | None = None,
    ) -> None:
        settings = p.settings
        self._p = p
        self._keypair = keypair
        self._subnets = subnets
        self._netuid = settings.validator.netuid
        self._terms = terms_of(settings)
        self._named = named_peers(settings.relay)
        self._guard = guard
        self._nodes = nodes
        self._accepted = not_known if receiver is None else receiver.has_accepted
        self._holders_at = holders_unknown if guard is None else PermitsThen(nodes, self._netuid)
        self._sender = sender

    def children(self) -> list[ChildSpec]:
        """Return the proposer and, where others are asked, the surface for them; none while nothing is sent."""
        if not self._p.settings.relay.url:
            return []
        jobs = [spare("proposer", lambda: outlasting("proposer", Proposing(self._proposing()).run))]
        jobs.append(spare("anchors", lambda: outlasting("anchors", self._anchors().run)))
        if self._terms.quorum == 1:
            return jobs
        at = self._p.settings.validator
        listener = self._p.listener(SURFACE, at.host, at.port)
        drain_s = self._p.settings.shutdown.drain_s
        served = ChildSpec(SURFACE, lambda: listener.job(self._app), shutdown=drain_s + 2.0, backoff=Backoff(0.1, 5.0))
        return [*jobs, served]

    def offer(self, connection: Connection, sent: Sent, last: Round) -> int:
        """Keep the scores of the round that weights were made of, and the ranking by weights that were set, as what may
        be relayed of their epoch; return 1 when they could not be, because the metagraph is not known.

        Alone, it is the epoch of the weights. Among several, it is that of the round's block, which is all that others
        learn of it: by that they know of which epoch a bundle has left.
        """
        own, metagraph = self._keypair.public_key, self._subnets.get(self._netuid)
        if metagraph is None:
            return 1
        epoch = sent.epoch if self._terms.quorum == 1 else epoch_at(metagraph, last.block).index
        scores = relaying.payload(connection, sent, last, own, metagraph)
        ranking = relaying.ranking(sent, last, own, metagraph)
        for payload, audit in ((scores, relaying.audit(sent)), (ranking, None)):
            if payload is not None and not records.offer(
                connection, payload, epoch, last.block_hash, self._p.clock.now(), audit
            ):
                _log.info("epoch_has_been_relayed", kind=kind_of(payload), epoch=epoch, round=last.id)
        return 0

    def outbox_changed(self) -> None:
        """Hint to the emitter that something waits."""
        self._p.registry.ref(RelayEmitter, RELAY_EMITTER).hint(OutboxGrew())

    def _anchors(self) -> Committing | NotCommitting:
        p = self._p
        if p.settings.validator.dry_run or not p.settings.relay.anchor:
            reason = "validator.dry_run is true" if p.settings.validator.dry_run else "relay.anchor is false"
            return NotCommitting(p.ledger, p.clock, self._netuid, self._keypair.ss58, reason)
        return Committing(
            CommittingPorts(
                ledger=p.ledger,
                keypair=self._keypair,
                clock=p.clock,
                netuid=self._netuid,
                metagraph=self._metagraph,
                nodes=self._nodes,
                sender=self._sender,
                bound=p.settings.relay.pending_max,
                queued=self.outbox_changed,
                metrics=p.metrics,
            )
        )

    def _proposing(self) -> ProposingPorts:
        p = self._p
        return ProposingPorts(
            ledger=p.ledger,
            keypair=self._keypair,
            clock=p.clock,
            terms=self._terms,
            metagraph=self._metagraph,
            guard=self._guard,
            peers=self._peers,
            client=PeerClient(p.http, self._keypair, p.clock, p.ids, p.settings.relay.timeout_s),
            bound=p.settings.relay.pending_max,
            queued=self.outbox_changed,
            metrics=p.metrics,
            holders_at=self._holders_at,
            accepted=self._accepted,
        )

    def _app(self) -> App:
        p = self._p
        cosigner = Cosigner(
            CosignerPorts(
                ledger=p.ledger,
                keypair=self._keypair,
                clock=p.clock,
                terms=self._terms,
                metagraph=self._metagraph,
                guard=self._guard,
                readings=lambda c, block, blocks: relaying.readings(c, self._netuid, block, blocks),
                metrics=p.metrics,
                holders_at=self._holders_at,
            )
        )
        return peers_app(cosigner, self._keypair, settings=p.settings.http, clock=p.clock, ids=p.ids, metrics=p.metrics)

    def _metagraph(self) -> Metagraph | None:
        age_s = self._subnets.age_s(self._netuid)
        return None if age_s is None or age_s > STALE_S else self._subnets.get(self._netuid)

    def _peers(self) -> list[Peer]:
        metagraph = self._metagraph()
        if metagraph is None:
            return []
        private = self._p.settings.validator.private_addresses
        return peers_of(metagraph, self._keypair.public_key, self._named, private_allowed=private)


def terms_of(settings: Settings) -> QuorumTerms:
    """Return the settings' terms."""
    relay = settings.relay
    return QuorumTerms(
        netuid=settings.validator.netuid,
        quorum=relay.quorum,
        turn_blocks=relay.turn_blocks,
        compare_blocks=relay.compare_blocks,
        tolerance=Tolerance(
            recall=relay.recall_tolerance,
            proof_rate=relay.proof_rate_tolerance,
            latency_ms=relay.latency_tolerance_ms,
            missing=relay.missing_tolerance,
            weight=relay.weight_tolerance,
        ),
    )


def named_peers(relay: RelaySettings) -> dict[PublicKey, str]:
    """Return the URLs of `relay.peers` by key. Raises MalformedHotkey."""
    named = {}
    for entry in relay.peers:
        hotkey, _, url = entry.partition(" ")
        named[ss58.decode(hotkey)] = url.rstrip("/")
    return named
