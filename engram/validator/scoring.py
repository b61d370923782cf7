"""The score of a miner in one round, by the original's formula.

score = 0.5 * recall@10 + 0.3 * latency + 0.2 * proofs, each part a share of 1.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

RECALL_WEIGHT: Final = 0.5
LATENCY_WEIGHT: Final = 0.3
PROOF_WEIGHT: Final = 0.2
BEST_LATENCY_MS: Final = 100.0
"""Answers as fast as this, or faster, earn the whole latency share."""
WORST_LATENCY_MS: Final = 500.0
"""Answers as slow as this, or slower, earn nothing of it."""
TOP_K: Final = 10


class Parts(msgspec.Struct, frozen=True):
    """The parts of a miner's score in one round."""

    recall: float
    """Mean recall@10 of its queries, 0 to 1."""
    latency_ms: float | None
    """Median over the queries that it answered correctly, by our own clock; None when there was none."""
    proof_rate: float
    """Proofs that held, as a share of the challenges sent, 0 to 1."""

    @property
    def score(self) -> float:
        """The score, 0 to 1."""
        return score(self.recall, self.latency_ms, self.proof_rate)


def recall(returned: Iterable[str], truth: Sequence[str]) -> float:
    """Return recall@10: the share of `truth` (CIDs; at most 10 count) among the first 10 of `returned`.

    >>> recall(["a", "x", "b"], ["a", "b", "c", "d"]), recall([], [])
    (0.5, 0.0)
    """
    if not truth:
        return 0.0
    first = list(returned)[:TOP_K]
    return len(set(first) & set(truth)) / min(TOP_K, len(set(truth)))


def latency_share(latency_ms: float | None) -> float:
    """Return 1 at 100 ms or less, 0 at 500 ms or more, linear in between; 0 without any right answer.

    >>> latency_share(100.0), latency_share(300.0), latency_share(500.0), latency_share(None)
    (1.0, 0.5, 0.0, 0.0)
    """
    if latency_ms is None or not latency_ms < WORST_LATENCY_MS:
        return 0.0
    if latency_ms <= BEST_LATENCY_MS:
        return 1.0
    return 1.0 - (latency_ms - BEST_LATENCY_MS) / (WORST_LATENCY_MS - BEST_LATENCY_MS)


def score(recall: float, latency_ms: float | None, proof_rate: float) -> float:
    """Return the score by the original's formula, in its order of operations.

    >>> score(0.8, 250.0, 0.9)
    0.7675000000000001
    """
    return RECALL_WEIGHT * recall + LATENCY_WEIGHT * latency_share(latency_ms) + PROOF_WEIGHT * proof_rate


def normalized(scores: Mapping[int, float]) -> dict[int, float]:
    """Return weights that add up to 1, of the scores above 0; empty when none is.

    A score that is not a finite number counts as 0: it must never reach the chain.

    >>> normalized({1: 0.5, 2: 1.5, 3: 0.0, 4: float("nan")})
    {1: 0.25, 2: 0.75}
    """
    kept = {uid: value for uid, value in scores.items() if math.isfinite(value) and value > 0}
    total = sum(kept.values())
    return {uid: value / total for uid, value in kept.items()} if kept else {}


def clipped(weights: Mapping[int, float], limit: float) -> dict[int, float]:
    """Return weights above 0 so that they add up to 1 and none is more than `limit`: the field's normalize_max_weight.

    What the largest lose goes to all others in proportion. Where it cannot be, all are equal.

    >>> clipped({1: 6.0, 2: 1.0, 3: 1.0}, 0.5), clipped({1: 0.9, 2: 0.1}, 0.4)
    ({1: 0.5, 2: 0.25, 3: 0.25}, {1: 0.5, 2: 0.5})
    """
    if len(weights) * limit <= 1:
        return {uid: 1 / len(weights) for uid in weights}
    rest, cutoff = math.fsum(weights.values()), math.inf
    for larger, weight in enumerate(sorted(weights.values(), reverse=True)):
        cutoff = limit * rest / (1 - limit * larger)
        if weight <= cutoff:
            break
        rest -= weight
    return normalized({uid: min(weight, cutoff) for uid, weight in weights.items()})


def shared(scores: Mapping[int, float], groups: Iterable[frozenset[int]]) -> dict[int, float]:
    """Return the scores after every group of uids has divided its earnings among itself.

    A member gets the part of its own score that this is of the group's sum: n equal uids get an nth each, one whose own
    score is 0 gets nothing and takes nothing, and one that earns little takes little. Together they never earn more
    than the best of them, so an operator who runs n uids on one store gains nothing by the others.

    >>> shared({1: 1.0, 2: 1.0, 3: 0.5, 4: 0.0}, [frozenset({1, 2}), frozenset({3, 4})])
    {1: 0.5, 2: 0.5, 3: 0.5, 4: 0.0}
    """
    found = dict(scores)
    for group in groups:
        members = {uid: scores[uid] for uid in group if uid in scores and scores[uid] > 0}
        total = sum(members.values())
        found.update({uid: own * (own / total) for uid, own in members.items()})
    return found
