"""Samples of large sets of cases, by a seed that is printed, so that a run can be repeated."""

import os
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

NIGHTLY = os.environ.get("ENGRAM_NIGHTLY") == "1"
# Set for the processes that pytest-xdist starts, which must collect the same cases.
SEED = int(os.environ.setdefault("ENGRAM_TEST_SEED", "1"))


def sample(name: str, cases: Sequence[T], count: int) -> list[T]:
    """Return `count` of the cases in their order, chosen by the seed and `name`; all of them at night."""
    if NIGHTLY or count >= len(cases):
        return list(cases)
    chosen = random.Random(f"{SEED}:{name}").sample(range(len(cases)), count)
    return [cases[index] for index in sorted(chosen)]
