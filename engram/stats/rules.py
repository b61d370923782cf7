"""When to poll a node next, and what its answers or its silence mean."""

from enum import StrEnum
from typing import Final


class Verdict(StrEnum):
    """What follows from a poll."""

    NOTHING = "nothing"
    DEGRADE = "degrade"
    """Enough failures in a row: the session is degraded."""
    REMIND = "remind"
    """It is degraded already and does not get better: somebody should look at the node."""
    RECOVER = "recover"
    """A degraded session's node answers."""


def verdict(*, answered: bool, failures: int, degraded: bool, limit: int) -> Verdict:
    """Return what follows; `failures` in a row include this poll, `degraded` is the state before it."""
    if answered:
        return Verdict.RECOVER if degraded else Verdict.NOTHING
    if failures % limit:
        return Verdict.NOTHING
    return Verdict.REMIND if degraded else Verdict.DEGRADE


PROVE_EVERY: Final = 10
"""Polls of a node from one challenge to the next."""


def proof_is_due(polls: int, records: int) -> bool:
    """Whether a node is challenged with this poll, `polls` after the last challenge; one that holds nothing is not.

    >>> proof_is_due(PROVE_EVERY, 1), proof_is_due(PROVE_EVERY - 1, 1), proof_is_due(PROVE_EVERY, 0)
    (True, False, False)
    """
    return polls >= PROVE_EVERY and records > 0


def next_poll_s(interval_s: float, jitter: float, roll: float) -> float:
    """Return the seconds to the next poll: the interval, up to `jitter` of it more or less; `roll` in [0, 1).

    >>> next_poll_s(30.0, 0.2, 0.0), next_poll_s(30.0, 0.2, 0.5)
    (24.0, 30.0)
    """
    return interval_s * (1.0 + jitter * (2.0 * roll - 1.0))


def first_poll_s(interval_s: float, roll: float, *, at_boot: bool) -> float:
    """Return the seconds to the first poll: spread over the interval for sessions found at boot, soon for others."""
    return roll * interval_s if at_boot else roll
