"""The role `validator`: scores the miners of a subnet and sets weights."""

import secrets
from pathlib import Path
from typing import Final, final

import msgspec
import structlog
from sqlalchemy import Connection

from actors import Backoff, ChildSpec, Context, Intensity, Job, SupervisorSpec
from config.model import Settings
from engram.chain.read.endpoints import open_endpoints
from engram.chain.submit.kept_commits import KeptCommits
from engram.chain.submit.sender import Sender
from engram.chain.sync.actor import MetagraphSyncer
from engram.chain.sync.fork_folder import FOLDER as FORKS
from engram.chain.sync.fork_folder import ForkFolder
from engram.chain.sync.subnets import Subnets
from engram.control.outbox import OutboxOperations
from engram.control.server import control_job
from engram.hotkeys import Keypair, WalletFileError, wallet
from engram.hotkeys.passwords import at_terminal, password_for
from engram.http.app import App
from engram.relay import PayloadSigner, RelayStatus, RetryPolicy
from engram.relay.actor import RELAY_EMITTER, EmitterPorts, RelayEmitter
from engram.relay.chain_heads import guard_of
from engram.relay.protocol import GetRelayStatus
from engram.relay.receiver import open_receiver
from engram.relay.rounds import RoundLosses
from engram.roles.outages import outlasting
from engram.roles.process import spare
from engram.roles.shared import LEDGER, Shared
from engram.roles.validator_quorum import ValidatorQuorum
from engram.telemetry.loop_lag import loop_lag_job
from engram.validator import corpus, peers
from engram.validator.commitments import Commitments
from engram.validator.due import OUR_VERSION
from engram.validator.garden import Garden
from engram.validator.gardening import Gardener
from engram.validator.job import RoundsJob
from engram.validator.miner_client import MinerClient
from engram.validator.model import Round, Sent
from engram.validator.ops import ops_app
from engram.validator.rounds import Rounds, RoundTerms
from engram.validator.weights_setter import WeightPorts, WeightsSetter
from engram.validator.workbench import Workbench

COMMITS: Final = "weight-commits"
CACHE: Final = "cache"

_log = structlog.get_logger("engram.validator")


def tree(p: Shared, ports: "ValidatorPorts") -> SupervisorSpec:
    """Return the whole tree of a validator. Children start from the top and stop from the bottom."""
    return SupervisorSpec(
        "root",
        [
            ChildSpec("ledger", p.ledger_actor, name=LEDGER, shutdown=30.0),
            spare("loop_lag", lambda: loop_lag_job(p.metrics)),
            spare("validator_chain", ports.syncer),
            spare(RELAY_EMITTER, lambda: RelayEmitter(ports.emitter)),
            spare("rounds", lambda: outlasting("rounds", ports.rounds.run)),
            spare("weights", lambda: outlasting("weights", ports.look_at_weights)),
            *ports.quorum.children(),
            spare("control", lambda: Job(ports.control)),
            ChildSpec(
                "ops",
                lambda: ports.ops_listener.job(ports.ops_app),
                shutdown=p.settings.shutdown.drain_s + 2.0,
                backoff=Backoff(0.1, 5.0),
            ),
        ],
        strategy="one_for_one",
        intensity=Intensity(restarts=10, period_s=60.0),
    )


@final
class ValidatorPorts:
    """One struct of ports per child."""

    def __init__(self, p: Shared, keypair: Keypair) -> None:
        settings, at = p.settings, p.settings.validator
        self._p = p
        boot = p.ids.token(8)
        blacklist = peers.blacklisted(at.blacklist)
        words = corpus.read_file(Path(at.planted_words).expanduser()) if at.planted_words else corpus.PUBLISHED
        self.subnets = Subnets(p.clock, (at.netuid,), settings.chain.stall_after_s)
        self._losses = RoundLosses(p.metrics)
        self._client = MinerClient(p.http, p.clock, at.timeout_s)
        workbench = Workbench(settings.miner, p.folder / CACHE, at.ground_truth)
        gardener = Gardener(
            Garden(
                ledger=p.ledger,
                client=self._client,
                keypair=keypair,
                clock=p.clock,
                rng=p.rng,
                seed=lambda: secrets.token_bytes(32),
                embeds=workbench,
                planted_a_round=at.planted,
                keep_rounds=at.planted_rounds,
                round_s=at.round_s,
                concurrency=at.concurrency,
                words=words,
                ground_truth=at.ground_truth,
            )
        )
        nodes = open_endpoints(settings.chain, p.http, p.clock)
        rounds = Rounds(
            RoundTerms(
                netuid=at.netuid,
                queries=at.queries,
                challenges=at.challenges,
                decoys=at.decoys,
                least_planted=at.least_planted,
                concurrency=at.concurrency,
                deadline_s=at.deadline_s,
                keep_rounds=at.history_rounds,
                planted_rounds=at.planted_rounds,
                unasked_rounds=at.unasked_rounds,
                share_scores=at.share_scores,
                private_allowed=at.private_addresses,
                blacklist=blacklist,
                words=words,
            ),
            p.ledger,
            self._client,
            keypair,
            p.clock,
            p.rng,
            gardener,
            workbench,
            boot,
            self._round_closed,
            Commitments(nodes, at.netuid),
        )
        self.rounds = RoundsJob(
            rounds,
            gardener,
            self.subnets,
            netuid=at.netuid,
            hotkey=keypair.public_key,
            dry_run=at.dry_run,
            round_s=at.round_s,
            rng=p.rng,
        )
        sender = Sender(nodes, network=settings.chain.network if settings.chain.source == "rpc" else None)
        self._weights = WeightsSetter(
            WeightPorts(
                ledger=p.ledger,
                subnets=self.subnets,
                nodes=nodes,
                sender=sender,
                kept=KeptCommits(p.folder / COMMITS),
                keypair=keypair,
                clock=p.clock,
                netuid=at.netuid,
                version=OUR_VERSION,
                share_scores=at.share_scores,
                blacklist=frozenset(blacklist),
                dry_run=at.dry_run,
                boot=boot,
                settled=self._relay if settings.relay.url else lambda connection, sent, last: None,
                counted=lambda state: p.metrics.validator_weights.labels(state).inc(),
            )
        )
        relay = settings.relay
        guard = guard_of(settings.chain, nodes, p.clock, relay.confirmations, self.subnets)
        receiver = open_receiver(p.http, relay)
        self.quorum = ValidatorQuorum(p, keypair, self.subnets, guard, nodes, sender, receiver)
        p.keyring.add(PayloadSigner.of(keypair))
        self.emitter = EmitterPorts(
            ledger=p.ledger,
            receiver=receiver,
            ask_terms=receiver.ask_terms if receiver else None,
            acknowledged_by=lambda: receiver.acknowledged_by if receiver else "",
            receiver_pinned=bool(relay.receiver_key),
            destination=relay.url,
            log_kept_s=relay.log_days * 86_400.0,
            keyring=p.keyring,
            policy=RetryPolicy(relay.attempts, relay.backoff_min_s, relay.backoff_max_s),
            clock=p.clock,
            rng=p.rng,
            metrics=p.metrics,
            losses=self._losses,
            concurrency=relay.concurrency,
            guard=guard,
        )
        self.control = control_job(p.folder, OutboxOperations(p.folder, p.ledger, p.clock, self.quorum.outbox_changed))
        self.ops_listener = p.listener("ops", settings.ops.host, settings.ops.port)
        self._keypair = keypair

    def ops_app(self) -> App:
        """Return the operator's application."""
        p, at = self._p, self._p.settings.validator
        return ops_app(
            p.ledger,
            self.subnets,
            at.netuid,
            self._keypair.public_key,
            relay=self.relay_status,
            settings=p.settings.http,
            clock=p.clock,
            ids=p.ids,
            metrics=p.metrics,
        )

    async def relay_status(self) -> RelayStatus:
        """Ask the emitter how the relay stands. Raises ActorsError."""
        return await self._p.registry.ref(RelayEmitter, RELAY_EMITTER).call(GetRelayStatus())

    def syncer(self) -> MetagraphSyncer:
        """Return the chain's actor, for the one subnet of this validator."""
        p, netuids = self._p, (self._p.settings.validator.netuid,)
        chain = msgspec.structs.replace(self._p.settings.chain, netuids=netuids)
        forks = ForkFolder(p.folder / FORKS)
        return MetagraphSyncer(
            open_endpoints(chain, p.http, p.clock), self.subnets, chain, p.clock, p.rng, keep_fork=forks.keep
        )

    async def look_at_weights(self, context: Context) -> None:
        """Look for weights that are due, once a block."""
        context.ready()
        await self._weights.run()

    def _round_closed(self, closed: Round, seconds: float) -> None:
        self._p.metrics.validator_rounds.inc()
        self._p.metrics.validator_round_seconds.observe(seconds)

    def _relay(self, connection: Connection, sent: Sent, last: Round) -> None:
        """Offer what is relayed of weights, in the transaction that settles them."""
        if lost := self.quorum.offer(connection, sent, last):
            self._losses.add("no_block", lost)
            _log.error("scores_not_relayed", reason="the chain has not been read", round=last.id)


@final
class Validator:
    """The role: its key; see shared.Role."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Raise HotkeyError, OSError."""
        at = settings.validator
        if not at.hotkey_file:
            raise WalletFileError("validator.hotkey_file is missing: the wallet file of the validator's hotkey")
        path = Path(at.hotkey_file).expanduser()
        password = password_for(path, at.hotkey_password_file, "validator.hotkey_password_file", ask=at_terminal())
        self.keypair = wallet.read_private_hotkey_file(path, password)
        self.settings = settings

    async def tree(self, shared: Shared) -> SupervisorSpec:
        """Return the tree. Raises ValueError for a malformed setting."""
        return tree(shared, ValidatorPorts(shared, self.keypair))

    async def close(self) -> None:
        """Do nothing: the role holds no resources."""


open_role = Validator
