"""Decisions of the relay: what is hashed, and what becomes of an entry after an attempt.

Theory of operation. An entry of the outbox goes

| from      | on                              | to        | attempts | next attempt                    |
|-----------|---------------------------------|-----------|----------|---------------------------------|
| pending   | its time has come               | sending   | + 1      |                                 |
| sending   | 2xx                             | delivered |          |                                 |
| sending   | a refusal that repeats (4xx, 3xx)| abandoned |         |                                 |
| sending   | 408 409 425 429 5xx, or unknown | pending   |          | 10 s … 300 s, or Retry-After    |
| sending   | the same at the tenth attempt   | abandoned |          |                                 |
| sending   | receiver unreachable            | pending   | - 1      | the relay waits as a whole      |
| abandoned | `engram relay dlq retry`        | pending   | 0        | now                             |
| abandoned | `engram relay dlq discard`      | discarded |          |                                 |

The receiver tells repeats by the idempotency key, so an entry whose outcome is unknown is sent again, same bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from random import Random
from typing import assert_never

import msgspec

from engram.relay.model import (
    Answered,
    DeliveryUnknown,
    EntryState,
    MemoryPayload,
    MinerScore,
    NodeMemory,
    Outcome,
    ScoresPayload,
    Unreachable,
)

SHARE_DIGITS = 6
LATENCY_DIGITS = 3
RETRY_AFTER_MAX_S = 3_600.0
JITTER = 0.2
TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})
"""409: another request with the same idempotency key is still being worked on."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often and how soon; the settings' values."""

    attempts: int = 10
    backoff_min_s: float = 10.0
    backoff_max_s: float = 300.0


class EntryDecision(msgspec.Struct, frozen=True):
    """Decide what becomes of an entry. `next_attempt_at` is unix seconds and counts only while `pending`."""

    state: EntryState
    attempts: int
    next_attempt_at: float
    reason: str


def decide(attempts: int, outcome: Outcome, now: float, policy: RetryPolicy, rng: Random) -> EntryDecision:
    """Decide what becomes of an entry whose attempt number `attempts` (from 1) ended so."""
    reason = describe(outcome)
    match outcome:
        case Answered() if 200 <= outcome.http_status < 300:
            return EntryDecision(EntryState.DELIVERED, attempts, now, reason)
        case Answered() if not is_transient(outcome.http_status):
            return EntryDecision(EntryState.ABANDONED, attempts, now, reason)
        case Unreachable():
            return EntryDecision(EntryState.PENDING, attempts - 1, now, reason)
        case Answered() | DeliveryUnknown():
            if attempts >= policy.attempts:
                return EntryDecision(EntryState.ABANDONED, attempts, now, reason)
            wait_s = backoff_s(attempts - 1, policy, rng)
            if isinstance(outcome, Answered) and outcome.retry_after_s is not None:
                wait_s = max(wait_s, min(outcome.retry_after_s, RETRY_AFTER_MAX_S))
            return EntryDecision(EntryState.PENDING, attempts, now + wait_s, reason)
        case _:
            assert_never(outcome)


def is_transient(http_status: int) -> bool:
    """Return whether the same request may be accepted later."""
    return http_status in TRANSIENT_STATUSES or http_status >= 500


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
            return f"receiver unreachable: {outcome.reason}"
        case DeliveryUnknown():
            return f"outcome unknown: {outcome.reason}"
        case _:
            assert_never(outcome)


def log_status(outcome: Outcome) -> str:
    """Return the word for the log: `ok`, `http_NNN`, `error` (nothing was sent) or `unknown`."""
    match outcome:
        case Answered():
            return "ok" if 200 <= outcome.http_status < 300 else f"http_{outcome.http_status}"
        case Unreachable():
            return "error"
        case DeliveryUnknown():
            return "unknown"
        case _:
            assert_never(outcome)


def canonical_json(document: object) -> bytes:
    """Compact JSON with sorted keys, ASCII, and floats as Python writes them: what all hashes are over.

    Raises ValueError for NaN and infinities, which JSON has not.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


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
    """Return the nodes as they are hashed: shares and percentages to 6 digits, latency to 3."""
    return canonical_json(
        {
            hotkey: {
                "vectors": node.vectors,
                "root_hex": node.root_hex,
                "queries_today": node.queries_today,
                "p50_latency_ms": _latency(node.p50_latency_ms),
                "proof_rate": _share(node.proof_rate),
                "uptime_pct": _share(node.uptime_pct),
            }
            for hotkey, node in nodes.items()
        }
    )


def output_hash(stable: bytes) -> str:
    """sha256 hex of `stable_scores` or `stable_nodes`."""
    return hashlib.sha256(stable).hexdigest()


def nonce(block: int, source: int | str, ts_ms: int) -> str:
    """`block:source:milliseconds`; the source is the validator's uid, or the gateway's own word for itself."""
    return f"{block}:{source}:{ts_ms}"


def signed_hash(payload: Mapping[str, object]) -> str:
    """sha256 hex of the canonical payload, without the three fields that signing adds; its ASCII is signed."""
    unsigned = {name: value for name, value in payload.items() if name not in SIGNATURE_FIELDS}
    return hashlib.sha256(canonical_json(unsigned)).hexdigest()


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
    nodes: Mapping[str, NodeMemory], *, netuid: int, block: int, source: str, round_ts: float
) -> MemoryPayload:
    """Return the payload of managed nodes, by node hotkey. `source` keeps nonces of one millisecond apart."""
    return MemoryPayload(
        netuid=netuid,
        block=block,
        round_ts=round_ts,
        output_hash=output_hash(stable_nodes(nodes)),
        nonce=nonce(block, source, int(round_ts * 1000)),
        nodes=dict(nodes),
    )


def memory_of(stats: Mapping[str, object], root_hex: str | None = None) -> NodeMemory:
    """Return what is relayed of a node's own /stats; what is missing or not a number counts as unknown."""
    return NodeMemory(
        vectors=_count(stats.get("vectors")),
        root_hex=root_hex,
        queries_today=_count(stats.get("queries_today")),
        p50_latency_ms=_figure(stats.get("p50_latency_ms")),
        proof_rate=_figure(stats.get("proof_rate")),
        uptime_pct=_figure(stats.get("uptime_pct")),
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
