"""Validators of one small subnet, each with its own ledger, that ask one another without a network between them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from engram.api import validator_peers as api
from engram.chain.epochs import epoch_of
from engram.clock import ManualClock
from engram.hotkeys import Keypair, PublicKey, ss58
from engram.ledger import open_inline
from engram.relay import MinerScore, scores_payload
from engram.relay.finality import Finality
from engram.relay.model import RankingPayload
from engram.relay.quorum import records
from engram.relay.quorum.cosigner import Cosigner, CosignerPorts
from engram.relay.quorum.model import Candidate, Proposal, QuorumTerms, Reading
from engram.relay.quorum.proposals import read_bundle, read_proposal
from engram.relay.quorum.proposing import Proposing, ProposingPorts
from engram.relay.quorum.subnet_now import Peer
from engram.relay.rules import ranking_payload
from engram.relay.signer import PayloadSigner
from engram.telemetry.metrics import Metrics
from tests.validator.benches import NETUID, key, metagraph, neuron

TEMPO = 99
NOW = 1_700_000_000.0
HASH = bytes(range(32))
FIRST_BLOCK = epoch_of(5_000, NETUID, TEMPO).first_block
"""Of the epoch that tests play in."""
EPOCH = epoch_of(5_000, NETUID, TEMPO).index
WEIGHTS = {7: 0.9, 9: 0.1}
"""Of the ranking, by uid."""
SCORES = {"7": MinerScore(0.9, 120.0, 1.0), "9": MinerScore(0.1, None, 0.5)}


def proposal(
    keypair: Keypair, scores: Mapping[str, MinerScore] = SCORES, block: int = FIRST_BLOCK, ts: float = NOW
) -> Proposal:
    payload = scores_payload(scores, netuid=NETUID, block=block, uid=1, round_ts=ts)
    return read_proposal(PayloadSigner.of(keypair).sign(msgspec.json.encode(payload)).body, HASH.hex())


def ranking_proposal(
    keypair: Keypair, weights: Mapping[int, float] = WEIGHTS, block: int = FIRST_BLOCK, hotkeys: int = 0
) -> Proposal:
    return read_proposal(
        PayloadSigner.of(keypair).sign(msgspec.json.encode(ranking(weights, block, hotkeys))).body, HASH.hex()
    )


def ranking(weights: Mapping[int, float], block: int = FIRST_BLOCK, hotkeys: int = 0) -> RankingPayload:
    """A ranking by these weights; miners have the keys of their uids, or those `hotkeys` above."""
    miners = {(uid, key(uid + hotkeys).ss58): weight for uid, weight in weights.items()}
    return ranking_payload(miners, netuid=NETUID, block=block, uid=1, round_ts=NOW)


class Subnet:
    """The chain as all validators see it; `away` are those that do not answer."""

    def __init__(self, count: int = 3, folder: Path | None = None, **terms: object) -> None:
        self.block = FIRST_BLOCK + 1
        self.clock = ManualClock(NOW)
        self.keys = [key(number) for number in range(1, count + 1)]
        self.terms = QuorumTerms(netuid=NETUID, **terms)  # type: ignore[arg-type]  # of the tests
        self.away: set[PublicKey] = set()
        self.finality: dict[bytes, Finality] = {}
        self.accepted: set[str] | None = None
        """signed_hash of what the receiver shows; None: it cannot be asked."""
        self.without_permit: set[PublicKey] = set()
        self.held: dict[int, frozenset[PublicKey]] = {}
        """Who held a permit at a block, where that is known."""
        self.validators = [Validator(self, each, folder) for each in self.keys]

    def metagraph(self) -> object:
        neurons = [
            neuron(uid, each, None, permit=each.public_key not in self.without_permit)
            for uid, each in enumerate(self.keys)
        ]
        return metagraph([*neurons, neuron(len(neurons), key(99), None)], self.block, tempo=TEMPO)

    async def guard(self, block: int, block_hash: bytes | None) -> Finality:
        return self.finality.get(block_hash or b"", Finality.FINAL)

    async def has_accepted(self, signed_hash: str) -> bool | None:
        return None if self.accepted is None else signed_hash in self.accepted

    async def holders_at(self, block: int) -> frozenset[PublicKey] | None:
        return self.held.get(block)

    def turn_of(self, number: int) -> None:
        """Goes on to the block where this validator's turn begins."""
        count, turns = len(self.keys), self.terms.turn_blocks
        turn = next(t for t in range(count) if (EPOCH + t) % count == number)
        self.block = FIRST_BLOCK + turn * turns + turns // 2

    def close(self) -> None:
        for each in self.validators:
            each.ledger.close()


class Validator:
    def __init__(self, subnet: Subnet, keypair: Keypair, folder: Path | None) -> None:
        self.subnet = subnet
        self.keypair = keypair
        self.path = None if folder is None else folder / keypair.ss58
        self.readings: list[Reading] = [Reading(FIRST_BLOCK, SCORES)]
        self.hints = 0
        self.bound = 1_000
        self.start()

    def start(self) -> None:
        """Opens the ledger, and makes what works on it anew."""
        self.ledger = open_inline(self.path)
        self.metrics = Metrics()
        subnet = self.subnet
        self.cosigner = Cosigner(
            CosignerPorts(
                ledger=self.ledger,
                keypair=self.keypair,
                clock=subnet.clock,
                terms=subnet.terms,
                metagraph=subnet.metagraph,  # type: ignore[arg-type]  # a Metagraph
                guard=subnet.guard,
                readings=lambda connection, block, blocks: self.readings,
                metrics=self.metrics,
                holders_at=subnet.holders_at,
            )
        )
        self.proposing = Proposing(
            ProposingPorts(
                ledger=self.ledger,
                keypair=self.keypair,
                clock=subnet.clock,
                terms=subnet.terms,
                metagraph=subnet.metagraph,  # type: ignore[arg-type]  # a Metagraph
                guard=subnet.guard,
                peers=self.peers,
                client=Directly(self),
                bound=self.bound,
                queued=self.hint,
                metrics=self.metrics,
                holders_at=subnet.holders_at,
                accepted=subnet.has_accepted,
            )
        )

    def restart(self) -> None:
        self.ledger.close()
        self.start()

    def hint(self) -> None:
        self.hints += 1

    def peers(self) -> Sequence[Peer]:
        return [Peer(each.public_key, "") for each in self.subnet.keys if each is not self.keypair]

    def offer(
        self, scores: Mapping[str, MinerScore] = SCORES, block: int = FIRST_BLOCK, audit: str | None = None
    ) -> bool:
        """Scores of our own, as weights are settled."""
        payload = scores_payload(scores, netuid=NETUID, block=block, uid=1, round_ts=NOW)
        epoch = epoch_of(block, NETUID, TEMPO).index
        return self.ledger.write_now(lambda c: records.offer(c, payload, epoch, HASH, NOW, audit))

    def offer_ranking(self, weights: Mapping[int, float] = WEIGHTS, block: int = FIRST_BLOCK, hotkeys: int = 0) -> bool:
        """Our own ranking, as weights are settled."""
        payload, epoch = ranking(weights, block, hotkeys), epoch_of(block, NETUID, TEMPO).index
        return self.ledger.write_now(lambda c: records.offer(c, payload, epoch, HASH, NOW))

    def candidate(self, kind: str = "scores") -> Candidate:
        found = self.ledger.write_now(lambda c: records.candidates(c, 10))
        return next(each for each in found if each.kind == kind)


class Directly:
    """Asks the other validators' co-signers as their surface does."""

    def __init__(self, asking: Validator) -> None:
        self._asking = asking

    def _find(self, peer: Peer) -> Validator | None:
        subnet = self._asking.subnet
        if peer.hotkey in subnet.away:
            return None
        return next(each for each in subnet.validators if each.keypair.public_key == peer.hotkey)

    async def ask(self, peer: Peer, document: bytes, block_hash: bytes) -> api.CosignerOpinion | None:
        if (asked := self._find(peer)) is None:
            return None
        judged, signature = await asked.cosigner.judge(
            self._asking.keypair.public_key, read_proposal(document, block_hash.hex())
        )
        return api.CosignerOpinion(
            verdict=str(judged.verdict),
            reason=judged.reason,
            differences=[api.DifferingValue(**msgspec.structs.asdict(each)) for each in judged.differences],
            hotkey=ss58.encode(peer.hotkey),
            signature=signature,
        )

    async def announce_bundle(self, peer: Peer, body: bytes) -> bool:
        if (asked := self._find(peer)) is None:
            return False
        await asked.cosigner.note(*read_bundle(body))
        return True
