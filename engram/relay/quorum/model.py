"""Proposals of scores and rankings, what the validators that were asked said of them, and the bundles that left."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from engram.hotkeys import PublicKey
from engram.relay.model import MinerScore, Ranked

COSIGNATURES_MOST: Final = 128
"""Of one payload; more validators than that hold no permit on any subnet, and each costs a verification."""


class Tolerance(msgspec.Struct, frozen=True, kw_only=True):
    """How far a proposed value may lie outside what was measured here; the settings' values."""

    recall: float = 0.25
    proof_rate: float = 0.5
    latency_ms: float = 500.0
    missing: float = 0.1
    """Share of all uids that one side may lack."""
    weight: float = 0.5
    """Of a ranking: share of the weight that was set here, and never less than rules.WEIGHT_NOISE."""


class QuorumTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How a quorum is found; the settings' values."""

    netuid: int
    quorum: int = 2
    """Distinct keys that must have signed, the proposer's own among them; 1: every validator relays alone."""
    turn_blocks: int = 10
    """Blocks after which the next validator proposes."""
    compare_blocks: int = 150
    """Rounds of at most so many blocks before or after the proposed one are held against it."""
    tolerance: Tolerance = Tolerance()


class Reading(msgspec.Struct, frozen=True):
    """What was measured here in one round, by uid as text."""

    block: int
    scores: Mapping[str, MinerScore]


class OwnRanking(msgspec.Struct, frozen=True):
    """The ranking by the weights that were set here in one epoch."""

    epoch: int
    ranking: Sequence[Ranked]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A value that was proposed, and why it cannot be vouched for."""

    uid: str
    field: str
    """recall | proof_rate | latency_ms; `uid` where one side lacks the miner. Of a ranking `weight`, or
    `hotkey` where the uid has another one here."""
    proposed: float | None = None
    lowest: float | None = None
    """The lowest value measured here in the rounds that were compared; None: never measured."""
    highest: float | None = None
    tolerance: float = 0.0


class Verdict(StrEnum):
    """What a validator says of a proposal; see rules.py."""

    SIGNED = "signed"
    MALFORMED = "malformed"
    OTHER_SIGNER = "other_signer"
    OTHER_SUBNET = "other_subnet"
    CHAIN_UNKNOWN = "chain_unknown"
    NO_PERMIT = "no_permit"
    NOT_ITS_TURN = "not_its_turn"
    SETTLED = "settled"
    NOT_FINAL = "not_final"
    REORGANIZED = "reorganized"
    EQUIVOCATION = "equivocation"
    NOT_MEASURED = "not_measured"
    DIFFERS = "differs"
    SIGNED_ANOTHER = "signed_another"
    NO_OWN_PERMIT = "no_own_permit"


class Judged(msgspec.Struct, frozen=True):
    """A verdict with its reason in words."""

    verdict: Verdict
    reason: str = ""
    differences: tuple[Difference, ...] = ()


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """An output that a validator has signed and asks others to sign, its form, hashes and signature checked."""

    kind: str
    """scores | ranking"""
    netuid: int
    block: int
    block_hash: bytes
    proposer: PublicKey
    output_hash: str
    signed_hash: str
    document: bytes
    """The signed payload, as it came."""
    scores: Mapping[str, MinerScore] = {}
    ranking: Sequence[Ranked] = ()


class Cosignature(msgspec.Struct, frozen=True):
    """The signature of another validator over a proposal's signed_hash."""

    hotkey: str
    """ss58"""
    signature: str
    """0x and hex."""


class CandidateState(StrEnum):
    """Where an output of our own stands that may be relayed.

    waiting   -> proposed    our turn, and the block is final: signed, the others are asked
    proposed  -> bundled     enough have signed: queued in the same transaction
    waiting, proposed -> settled     the bundle of another validator left for this epoch
                      -> withdrawn   the block was reorganized, or another hash of it was signed before
    waiting   -> missed      the epoch after is over, and it never was our turn
    proposed  -> short       the epoch after is over, and too few have signed
    """

    WAITING = "waiting"
    PROPOSED = "proposed"
    BUNDLED = "bundled"
    SETTLED = "settled"
    WITHDRAWN = "withdrawn"
    MISSED = "missed"
    SHORT = "short"


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """Our own scores of one epoch, or our own ranking."""

    netuid: int
    kind: str
    epoch: int
    block: int
    block_hash: bytes
    nonce: str
    output_hash: str
    payload: bytes
    """JSON, unsigned."""
    signed: bytes | None
    signed_hash: str | None
    cosignatures: tuple[Cosignature, ...]
    state: CandidateState
    reason: str | None
    created_at: float
    updated_at: float


class CandidateSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate as an operator sees it."""

    kind: str
    epoch: int
    block: int
    state: str
    output_hash: str
    signers: int
    """Keys that have signed, our own among them."""
    reason: str | None
    updated_at: float


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """An output that enough validators have signed; the first of its kind and epoch that was heard of."""

    netuid: int
    kind: str
    epoch: int
    block: int
    proposer: str
    """ss58"""
    output_hash: str
    signed_hash: str
    signers: int
    at: float


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal to sign, with what was proposed."""

    id: int
    at: float
    netuid: int
    kind: str
    block: int
    proposer: str
    """ss58"""
    judge: str
    """ss58 of the validator that refused."""
    verdict: str
    reason: str
    differences: tuple[Difference, ...]
    output_hash: str
    document: msgspec.Raw
    """The signed payload: nobody but the proposer can have signed it."""
