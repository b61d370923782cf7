"""Whether validators measured the same: the original's consensus over score vectors of one block.

As in the original, nothing calls it when weights are set: there no transport brings the vectors of others, and here no
two validators hold a round at one block, nor is a vector of another known before its own weights are set. Instead the
quorum of the relay compares round with round (engram/relay/quorum/rules.py). docs/validator.md says more.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

FARTHEST: Final = 0.15
"""Cosine distance up to which two score vectors agree."""
VALID_S: Final = 600.0
"""Seconds for which a vector of another validator counts."""


def distance(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Return the cosine distance of two score vectors by uid, 0 to 2; 1 when either has no length.

    >>> round(distance({1: 1.0, 2: 0.0}, {1: 1.0}), 6), distance({1: 1.0}, {2: 1.0}), distance({}, {1: 1.0})
    (0.0, 1.0, 1.0)
    """
    uids = one.keys() | other.keys()
    lengths = math.hypot(*one.values()) * math.hypot(*other.values())
    return 1.0 - sum(one.get(uid, 0.0) * other.get(uid, 0.0) for uid in uids) / lengths if lengths > 0 else 1.0


def agree(one: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Tell whether two score vectors are within the distance at which validators agree."""
    return distance(one, other) <= FARTHEST


def consensus(vectors: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Return the element-wise median of score vectors by uid; a uid that a vector lacks is 0 in it.

    >>> consensus([{1: 0.2, 2: 0.9}, {1: 0.4, 2: 0.8}, {1: 0.9}])
    {1: 0.4, 2: 0.8}
    """
    uids = sorted({uid for vector in vectors for uid in vector})
    return {uid: median(vector.get(uid, 0.0) for vector in vectors) for uid in uids}
