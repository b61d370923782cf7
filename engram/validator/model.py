"""What a validator keeps of its miners, questions and rounds."""

from enum import StrEnum
from typing import Final

import msgspec

from engram.validator.corpus import Family
from engram.validator.standing import Standing


class Miner(msgspec.Struct, frozen=True, kw_only=True):
    """A miner of the metagraph, as a round begins."""

    hotkey: bytes
    uid: int
    coldkey: bytes
    url: str | None
    """Base URL; None where it may not be asked."""
    reason: str = ""
    """Why it may not be asked."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a miner from round to round."""

    hotkey: bytes
    uid: int
    standing: Standing
    registered_only: bool = False
    lengths: tuple[int, ...] = ()


SEEDS: Final = 0
"""The family of records that are seeded from the ground-truth file: every miner's, for good, by our own key."""
NEVER: Final = 2**53
"""The round after which those are deleted."""


class PlantState(StrEnum):
    """The life of a planted record; see planting.py."""

    DRAFTED = "drafted"
    READY = "ready"
    SENDING = "sending"
    HELD = "held"
    REFUSED = "refused"
    DELETING = "deleting"
    DELETED = "deleted"
    LOST = "lost"


class Plant(msgspec.Struct, frozen=True, kw_only=True):
    """A planted record. `vector` is empty while it is drafted."""

    id: int
    hotkey: bytes
    family_id: int
    signer: bytes
    text: str
    vector: bytes
    cid: str
    state: PlantState
    plant_at: float
    planted_round: int
    delete_round: int
    attempts: int


class Held(msgspec.Struct, frozen=True):
    """What is asked about a planted record that a miner should hold."""

    cid: str
    vector: bytes
    family_id: int
    planted_round: int


class Holding(msgspec.Struct, frozen=True):
    """The planted records that a miner should hold, oldest first, and what they are about, by id."""

    records: list[Held]
    matters: dict[int, Family]
    seeded: frozenset[str]
    """CIDs of the ground-truth file's records that it has taken."""
    uncertain: list[Held] = []
    """What it may hold by the time that it answers, or may not: about to be sent or deleted, or of unknown outcome."""


class Offers(msgspec.Struct, frozen=True):
    """What became of the planted records that a miner was offered in the newest rounds."""

    refused: int
    taken: int
    untimely: int = 0
    """Refused for the time of the request, and not counted in `refused`."""
    undeleted: int = 0
    """Of any round: records that it refuses to delete, so that nobody knows whether it holds them."""


class Kind(StrEnum):
    """What is asked."""

    QUERY = "query"
    CHALLENGE = "challenge"
    DECOY_QUERY = "decoy query"
    """A search about a record of a customer: its answer earns nothing."""
    DECOY_CHALLENGE = "decoy challenge"
    """A demand for the proof of such a record, of which only the CID is known here."""


SCORED: Final = frozenset({Kind.QUERY, Kind.CHALLENGE})


class Outcome(StrEnum):
    """What became of a question. Only `answered` can earn anything."""

    ANSWERED = "answered"
    LEGACY = "legacy"
    """A proof of the first form, which shows a hash and not the vector."""
    REFUSED = "refused"
    UNTIMELY = "untimely"
    """Refused for the time that it bears: the miner's clock is out, or ours."""
    UNREACHABLE = "unreachable"
    MALFORMED = "malformed"
    LATE = "late"
    UNASKED = "unasked"
    """Our own deadline came before the miner's turn, or too soon after: not counted."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One question of a round to one miner. `truth` are CIDs, nearest first; of a challenge, the one CID; of a decoy
    search none, and no text either: a customer's words are not kept.

    `vector` is that of the query, or that of the record to be proved; empty once the round is over.
    """

    id: int = 0
    hotkey: bytes
    kind: Kind
    family_id: int | None
    text: str
    vector: bytes
    truth: tuple[str, ...]
    planted: int
    own_key: bool
    """Signed by the validator's hotkey; else by a signer of its own."""


class Sheet(msgspec.Struct, frozen=True):
    """What a round asks one miner: the questions, and seeds of signers for those that are not by our own key."""

    hotkey: bytes
    url: str
    questions: list[Question]
    seeds: list[bytes]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a question brought."""

    question_id: int
    outcome: Outcome
    recall: float = 0.0
    proved: bool = False
    latency_ms: float | None = None
    detail: str = ""


class RoundState(StrEnum):
    """The life of a round."""

    OPEN = "open"
    CLOSED = "closed"
    ABANDONED = "abandoned"


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """A round. Times are unix seconds."""

    id: int
    netuid: int
    block: int
    block_hash: bytes
    state: RoundState
    boot: str
    opened_at: float
    closed_at: float | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A miner's result of one round."""

    hotkey: bytes
    uid: int
    coldkey: bytes
    url: str | None
    reason: str | None
    done: bool
    recall: float | None
    latency_ms: float | None
    proof_rate: float | None
    score: float | None
    shared_score: float | None
    group_of: int | None


class SentState(StrEnum):
    """What became of weights."""

    INTENT = "intent"
    """Committed before the send: after a crash they may be on the chain."""
    SET = "set"
    REFUSED = "refused"
    """The chain took none of it, or nothing was sent."""
    LOST = "lost"
    """Sent, and by the finalized chain never included; it cannot be any more."""
    UNKNOWN = "unknown"
    DRY_RUN = "dry_run"


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """Weights that were sent, or would have been."""

    id: int
    netuid: int
    epoch: int
    block: int
    round_id: int
    weights: dict[int, float]
    state: SentState
    reason: str | None
    at: float


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What the last look at the chain said of setting weights."""

    netuid: int
    verdict: str
    """A word of due.Due."""
    detail: str
    warnings: list[str]
    block: int | None
    uid: int | None
    at: float
