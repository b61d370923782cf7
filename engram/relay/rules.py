"""Decisions of the relay: what is hashed, and what becomes of an entry after an attempt.

Theory of operation. Entries are kept in streams, one for each subnet, signer and kind. Within a stream the oldest entry
that waits is the only one that is ever sent; streams do not wait for each other.

| answer                                   | says something about | the entry            | the receiver |
|------------------------------------------|----------------------|----------------------|--------------|
| 2xx                                      |                      | delivered            | is well      |
| 400, 409, 410, 413, 422                  | the payload          | parked, gap marker   | is well      |
| 408, 425, 429, 5xx, none (unknown)       | either               | pending, no attempt  | is doubted   |
| the same, and others passed meanwhile    | the payload          | pending, one attempt | is doubted   |
| the same, at the tenth attempt           | the payload          | parked, gap marker   | is doubted   |
| 401, 402, 403, 404, other 4xx, 3xx       | the receiver         | pending, no attempt  | is held back |
| the same, while other streams do well    | the stream's signer  | pending, no attempt  |              |
| nothing left this machine                | the receiver         | pending, no attempt  | is held back |

An entry that stays pending waits 10 s, 20 s, … 300 s by itself, and its stream with it.

5xx, no answer, or "later" may mean that the receiver is down, or that this very payload breaks it. A payload is to
blame only if others pass meanwhile: its failure uses up an attempt only if another one was delivered since its failure
before. So an outage parks nothing, however it shows, and a payload that alone breaks its receiver is parked in the end.

A receiver that is doubted or held back is tried with one thing at a time: when it is doubted, at once with another
entry; after each further failure, or a refusal, after 10 s, 20 s, … 300 s. While it is doubted, each second time, and
where no entry is due, it is given again what it has acknowledged last, which changes nothing: one to six times, by
chance, and 2xx each time counts as another one that passed. By chance, since behind one address servers may take turns:
with one repeat for each attempt, the dead one of two would meet every attempt. Where it does not repeat its answers, or
has acknowledged nothing yet, and takes nothing else, it cannot be told from one that is down: what failed waits, is
tried on, and each failure is logged.

A refusal of one key, or of one kind, does not hold up what the receiver takes: where the last answer to another stream
was none of those, that stream alone waits. 409 means that the nonce came with another hash before; "still being worked
on" is 425. A gap marker takes the place of a parked entry, signed, so that the receiver knows what it will not get. It
is given up only where it is refused itself, or where its kind is not taken: its failures use up no attempts. The
receiver tells repeats by the idempotency key, so an entry whose outcome is unknown is sent again, the same bytes.

`engram relay dlq retry` puts a parked entry back into its place, before all that waits; `engram relay dlq park` parks
one that waits, where nothing tells whether it is to blame.
"""

import enum
import hashlib
from collections.abc import Mapping, Sequence
from random import Random
from typing import assert_never

import msgspec
from msgspec import UNSET, UnsetType

from engram.relay.canonical import canonical_json, canonical_of_decoded
from engram.relay.model import (
    SCHEMA_VERSION,
    SCHEMA_VERSION_2,
    AnchorPayload,
    Answered,
    Entry,
    EntryState,
    GapPayload,
    MemoryPayload,
    MinerScore,
    NodeMemory,
    Outcome,
    Payload,
    Ranked,
    RankingPayload,
    ScoresPayload,
    SignedRoot,
    ToolCall,
    Unknown,
    Unreachable,
)

SHARE_DIGITS = 6
LATENCY_DIGITS = 3
RETRY_AFTER_MAX_S = 3_600.0
JITTER = 0.2
REASON_MAX = 200
GAP = "gap"
"""The only kind that is ever discarded: it says of another payload that it is missing, and that one is parked."""
OF_THE_PAYLOAD = frozenset({400, 409, 410, 413, 422})
"""Would be given again to the same bytes."""
LATER = frozenset({408, 425, 429})
"""Say "later", and nothing of the settings on either side, as other 4xx do."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often and how soon; the settings' values."""

    attempts: int = 10
    backoff_min_s: float = 10.0
    backoff_max_s: float = 300.0


class Blame(enum.Enum):
    """What an outcome says something about."""

    NOTHING = "nothing"
    PAYLOAD = "payload"
    EITHER = "either"
    """Of the payload or of the receiver: what else passes meanwhile tells."""
    RECEIVER = "receiver"


class Decision(msgspec.Struct, frozen=True):
    """What becomes of an entry. `next_attempt_at` is unix seconds and counts only while `pending`."""

    state: EntryState
    attempts: int
    next_attempt_at: float
    reason: str


class Door(msgspec.Struct, frozen=True):
    """Whether the receiver may be sent to. `shut` counts the outcomes in a row that held it back."""

    shut: int = 0
    opens_at: float = 0.0
    """On the monotonic clock, so that a wall clock set back cannot keep it shut; one entry is tried from then on."""
    reason: str = ""
    is_doubted: bool = False
    """Whether a payload may be to blame: the receiver is given something else."""

    @property
    def is_open(self) -> bool:
        """Whether any number of entries may be sent at once."""
        return not self.reason

    @property
    def repeats_first(self) -> bool:
        """Whether it is the turn of what was acknowledged last, and not of an entry that waits."""
        return self.is_doubted and self.shut % 2 == 1


def blame(outcome: Outcome) -> Blame:
    """Return what the outcome says something about; see the table above."""
    match outcome:
        case Unreachable():
            return Blame.RECEIVER
        case Unknown():
            return Blame.EITHER
        case Answered():
            status = outcome.http_status
            if 200 <= status < 300:
                return Blame.NOTHING
            if status in OF_THE_PAYLOAD:
                return Blame.PAYLOAD
            return Blame.EITHER if status in LATER or status >= 500 else Blame.RECEIVER
        case _:
            assert_never(outcome)


def is_refusal(outcome: Outcome) -> bool:
    """Return whether the receiver was reached and refuses us, or this stream alone, whatever the payload."""
    return isinstance(outcome, Answered) and blame(outcome) is Blame.RECEIVER


def decide(
    attempts: int,
    outcome: Outcome,
    now: float,
    policy: RetryPolicy,
    rng: Random,
    failures: int = 0,
    *,
    others_pass: bool = True,
) -> Decision:
    """Decide what becomes of an entry whose attempt number `attempts` (from 1) ended so, after `failures` in a row.

    `others_pass` says that another entry was delivered since the failure before.
    """
    reason = describe(outcome)
    wait_s = backoff_s(failures, policy, rng)
    match blame(outcome):
        case Blame.NOTHING:
            return Decision(EntryState.DELIVERED, attempts, now, reason)
        case Blame.PAYLOAD:
            return Decision(EntryState.ABANDONED, attempts, now, reason)
        case Blame.RECEIVER:
            return Decision(EntryState.PENDING, attempts - 1, now + wait_s, reason)
        case Blame.EITHER:
            if others_pass and attempts >= policy.attempts:
                return Decision(EntryState.ABANDONED, attempts, now, reason)
            if isinstance(outcome, Answered) and outcome.retry_after_s is not None:
                wait_s = max(wait_s, min(outcome.retry_after_s, RETRY_AFTER_MAX_S))
            return Decision(EntryState.PENDING, attempts if others_pass else attempts - 1, now + wait_s, reason)
        case unhandled:
            assert_never(unhandled)


def after(door: Door, outcome: Outcome, now: float, policy: RetryPolicy, rng: Random) -> Door:
    """Return whether the receiver may be sent to after this outcome."""
    match blame(outcome):
        case Blame.NOTHING | Blame.PAYLOAD:
            return Door()
        case Blame.EITHER if door.is_open:
            return Door(opens_at=now, reason=describe(outcome), is_doubted=True)
        case Blame.EITHER:
            return msgspec.structs.replace(shut(door, outcome, now, policy, rng), is_doubted=True)
        case Blame.RECEIVER:
            is_doubted = door.is_doubted and not is_refusal(outcome)
            return msgspec.structs.replace(shut(door, outcome, now, policy, rng), is_doubted=is_doubted)
        case unhandled:
            assert_never(unhandled)


def shut(door: Door, outcome: Outcome, now: float, policy: RetryPolicy, rng: Random) -> Door:
    """Return the door after an outcome that speaks against the receiver; one under way as it shut adds none."""
    if now < door.opens_at:
        return door
    return Door(door.shut + 1, now + backoff_s(door.shut, policy, rng), describe(outcome), door.is_doubted)


def backoff_s(failures: int, policy: RetryPolicy, rng: Random) -> float:
    """Return the seconds to wait after `failures` earlier ones: doubling, ± 20 %, never outside the policy's bounds.

    >>> [round(backoff_s(n, RetryPolicy(), Random(1))) for n in range(7)]
    [10, 17, 34, 68, 137, 248, 248]
    """
    base_s = min(policy.backoff_max_s, policy.backoff_min_s * 2.0 ** min(failures, 30))
    low_s = max(policy.backoff_min_s, base_s * (1.0 - JITTER))
    high_s = min(policy.backoff_max_s, base_s * (1.0 + JITTER))
    return rng.uniform(min(low_s, high_s), high_s)


def describe(outcome: Outcome) -> str:
    """Describe the outcome for the operator."""
    match outcome:
        case Answered():
            return f"the receiver answered {outcome.http_status}"
        case Unreachable():
            return shortened(f"receiver unreachable: {outcome.reason}")
        case Unknown():
            return shortened(f"outcome unknown: {outcome.reason}")
        case _:
            assert_never(outcome)


def shortened(reason: str) -> str:
    """Return a reason that may quote the receiver, REASON_MAX characters at most: it is kept with each entry, and sent.

    >>> len(shortened("x" * 300)), shortened("a portal")
    (200, 'a portal')
    """
    return reason if len(reason) <= REASON_MAX else reason[: REASON_MAX - 1] + "…"


def log_status(outcome: Outcome) -> str:
    """Return the word for the log: `ok`, `http_NNN`, `error` (nothing was sent) or `unknown`."""
    match outcome:
        case Answered():
            return "ok" if 200 <= outcome.http_status < 300 else f"http_{outcome.http_status}"
        case Unreachable():
            return "error"
        case Unknown():
            return "unknown"
        case _:
            assert_never(outcome)


def stable_scores(scores: Mapping[str, MinerScore]) -> bytes:
    """Return the scores as they are hashed: shares to 6 digits, latency to 3, uids in the order of their text."""
    return canonical_json(
        {
            uid: {
                "recall": _share(score.recall),
                "latency_ms": _latency(score.latency_ms),
                "proof_rate": _share(score.proof_rate),
            }
            for uid, score in scores.items()
        }
    )


def stable_nodes(nodes: Mapping[str, NodeMemory]) -> bytes:
    """Return the nodes as they are hashed: shares and percentages to 6 digits, latency to 3, roots where they are."""
    return canonical_json({hotkey: _stable_node(node) for hotkey, node in nodes.items()})


def _stable_node(node: NodeMemory) -> dict[str, object]:
    stable: dict[str, object] = {
        "vectors": node.vectors,
        "root_hex": node.root_hex,
        "queries_today": node.queries_today,
        "p50_latency_ms": _latency(node.p50_latency_ms),
        "proof_rate": _share(node.proof_rate),
        "uptime_pct": _share(node.uptime_pct),
    }
    if not isinstance(node.root, UnsetType):
        stable["root"] = None if node.root is None else msgspec.structs.asdict(node.root)
    return stable


def stable_ranking(ranking: Sequence[Ranked]) -> bytes:
    """Return a ranking as it is hashed: in its order, weights to 6 digits."""
    return canonical_json(
        [{"uid": each.uid, "hotkey": each.hotkey, "rank": each.rank, "weight": _share(each.weight)} for each in ranking]
    )


def is_in_order(ranking: Sequence[Ranked]) -> bool:
    """Return whether ranks count from 1, no weight is above the one before it, and no miner is there twice.

    >>> best, last = (
    ...     Ranked(uid=u, hotkey=h, rank=r, weight=w) for u, h, r, w in [(7, "5A", 1, 0.8), (3, "5B", 2, 0.2)]
    ... )
    >>> is_in_order([best, last]), is_in_order([last, best]), is_in_order([best, best]), is_in_order([])
    (True, False, False, True)
    """
    weights = [each.weight for each in ranking]
    return (
        [each.rank for each in ranking] == list(range(1, len(ranking) + 1))
        and weights == sorted(weights, reverse=True)
        and len({each.uid for each in ranking}) == len({each.hotkey for each in ranking}) == len(ranking)
    )


def output_hash(stable: bytes) -> str:
    """sha256 hex of `stable_scores` or `stable_nodes`."""
    return hashlib.sha256(stable).hexdigest()


def kind_of(payload: Payload) -> str:
    """Return the kind; a payload of scores, which is the original's, does not name it."""
    return "scores" if isinstance(payload, ScoresPayload) else payload.kind


ANCHORED_KINDS = ("memory", "scores", "ranking")
"""Kinds whose output hashes are leaves of a root on the chain."""
OF_VALIDATORS = frozenset({"scores", "ranking"})
"""Kinds of which a key signs one output a block, whatever its uid is; a gateway's nodes may make several."""


def signed_source(kind: str, source: str) -> str:
    """Return the source that one signature of a block is for; empty for kinds of validators.

    >>> signed_source("ranking", "5"), signed_source("memory", "nodes1")
    ('', 'nodes1')
    """
    return "" if kind in OF_VALIDATORS else source


def nonce(block: int, source: int | str, ts_ms: int) -> str:
    """`block:source:milliseconds`; the source is the validator's uid, or the gateway's own word for itself."""
    return f"{block}:{source}:{ts_ms}"


def signed_hash(payload: Mapping[str, object]) -> str:
    """sha256 hex of a decoded payload's canonical form, without the fields that signing adds; its ASCII is signed."""
    unsigned = {name: value for name, value in payload.items() if name not in SIGNATURE_FIELDS}
    return hashlib.sha256(canonical_of_decoded(unsigned)).hexdigest()


def acknowledged_text(signed_hash: str, received_ms: int) -> bytes:
    """Return what a receiver signs to acknowledge a payload."""
    return f"engram-accepted:{signed_hash}:{received_ms}".encode()


SIGNATURE_FIELDS = ("validator_hotkey", "signature", "signed_hash")


def scores_payload(
    scores: Mapping[str, MinerScore], *, netuid: int, block: int, uid: int, round_ts: float
) -> ScoresPayload:
    """Return the payload of a validator's round. `round_ts` is unix seconds."""
    return ScoresPayload(
        netuid=netuid,
        block=block,
        round_ts=round_ts,
        output_hash=output_hash(stable_scores(scores)),
        nonce=nonce(block, uid, int(round_ts * 1000)),
        scores=dict(scores),
    )


def memory_payload(
    nodes: Mapping[str, NodeMemory],
    *,
    netuid: int,
    block: int,
    source: str,
    round_ts: float,
    tool: ToolCall | UnsetType = UNSET,
) -> MemoryPayload:
    """Return the payload of managed nodes, by node hotkey: engram-v2 when they bear roots (or null for one).

    `source` keeps nonces of one millisecond apart.
    """
    with_roots = any(not isinstance(node.root, UnsetType) for node in nodes.values())
    return MemoryPayload(
        schema_version=SCHEMA_VERSION_2 if with_roots else SCHEMA_VERSION,
        netuid=netuid,
        block=block,
        round_ts=round_ts,
        output_hash=output_hash(stable_nodes(nodes)),
        nonce=nonce(block, source, int(round_ts * 1000)),
        nodes=dict(nodes),
        tool=tool if with_roots else UNSET,
    )


def ranking_payload(
    weights: Mapping[tuple[int, str], float], *, netuid: int, block: int, uid: int, round_ts: float
) -> RankingPayload:
    """Return the payload of weights that were set, by uid and hotkey (ss58); equal ones in the order of their uids."""
    whole = sum(weights.values()) or 1.0
    order = sorted(weights, key=lambda miner: (-weights[miner], miner[0]))
    ranking = [
        Ranked(uid=miner[0], hotkey=miner[1], rank=rank, weight=weights[miner] / whole)
        for rank, miner in enumerate(order, 1)
    ]
    return RankingPayload(
        netuid=netuid,
        block=block,
        round_ts=round_ts,
        output_hash=output_hash(stable_ranking(ranking)),
        nonce=nonce(block, uid, int(round_ts * 1000)),
        ranking=ranking,
    )


def gap_payload(entry: Entry, netuid: int, reason: str, ts: float) -> GapPayload:
    """Return the marker that takes the place of a parked entry. `ts` is unix seconds."""
    return GapPayload(
        netuid=netuid,
        block=entry.block,
        round_ts=ts,
        output_hash=entry.output_hash,
        nonce=f"{entry.nonce}:gap",
        parked=entry.kind,
        reason=reason,
    )


def stable_anchor(anchored: str, epoch: int, root: str, leaves: Sequence[str], first: int, count: int) -> bytes:
    """Return an anchor as it is hashed."""
    return canonical_json(
        {
            "anchored": anchored,
            "epoch": epoch,
            "root": root,
            "leaves": list(leaves),
            "first": first,
            "count": count,
        }
    )


def anchor_payload(
    leaves: Sequence[str],
    *,
    anchored: str,
    first: int,
    count: int,
    root: str,
    epoch: int,
    netuid: int,
    block: int,
    round_ts: float,
) -> AnchorPayload:
    """Return the anchor of one stream, of the leaves from `first` on."""
    return AnchorPayload(
        netuid=netuid,
        block=block,
        round_ts=round_ts,
        output_hash=output_hash(stable_anchor(anchored, epoch, root, leaves, first, count)),
        nonce=nonce(block, f"anchor.{anchored}", int(round_ts * 1000)),
        anchored=anchored,
        epoch=epoch,
        root=root,
        leaves=list(leaves),
        first=first,
        count=count,
    )


def memory_of(stats: Mapping[str, object], root: SignedRoot | None = None) -> NodeMemory:
    """Return what is relayed of a node's own /stats; what is missing or not a number counts as unknown."""
    return NodeMemory(
        vectors=_count(stats.get("vectors")),
        root_hex=None if root is None else root.root_hex,
        queries_today=_count(stats.get("queries_today")),
        p50_latency_ms=_figure(stats.get("p50_latency_ms")),
        proof_rate=_figure(stats.get("proof_rate")),
        uptime_pct=_figure(stats.get("uptime_pct")),
        root=root,
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _figure(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 2**53 else None


def _share(value: float | None) -> float | None:
    return None if value is None else round(float(value), SHARE_DIGITS)


def _latency(value: float | None) -> float | None:
    return None if value is None else round(float(value), LATENCY_DIGITS)
