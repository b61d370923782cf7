"""What a validator remembers of a miner from round to round: moving averages, reputation, slashes. Kept by hotkey.

EMA and slashing are the original's. Three of its defects are not kept: a new hotkey on an old uid starts clean, the
challenges that led to a slash are not counted again when the slash ends, and those of long ago weigh ever less: by
counts for life a miner that was honest for a month would be slashed a month after it stopped to store anything.
"""

import math
from typing import Final

import msgspec

from engram.validator.scoring import Parts

EMA_ALPHA: Final = 0.1
REPUTATION_ALPHA: Final = 0.15
RELIABLE_ROUNDS: Final = 50
"""Rounds until a miner's reputation counts in full."""
SLASH_CHALLENGES: Final = 5
"""Challenges at least before a miner is slashed."""
SLASH_BELOW: Final = 0.5
"""Share of proofs that must hold."""
COUNTED_MOST: Final = 60
"""Challenges that are counted: beyond it both counts are halved. Who always proved is slashed after 30 or so in a row
without: 15 rounds of the default's."""
SLASH_BLOCKS: Final = 7_200
"""A slash lasts for a day of blocks."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A miner's record with this validator."""

    ema: float = 0.0
    """Moving average of its scores; the first score counts in full."""
    rounds: int = 0
    """Rounds that it was scored in."""
    reputation: float = 0.0
    challenges: int = 0
    """Challenges since the last slash, or since the start; at most COUNTED_MOST: see there."""
    proved: int = 0
    """Those of them that it has met."""
    slashes: int = 0
    slashed_until_block: int | None = None
    """Its weight is 0 before this block."""

    @property
    def proof_rate(self) -> float:
        """Proofs that held of late, as a share of the challenges; 1 before the first."""
        return self.proved / self.challenges if self.challenges else 1.0

    @property
    def reliability(self) -> float:
        """Reputation, discounted while the miner is new."""
        return self.reputation * min(1.0, self.rounds / RELIABLE_ROUNDS)


class Tally(msgspec.Struct, frozen=True):
    """Challenges of one round."""

    challenges: int
    proved: int


def moved(average: float, value: float, alpha: float, *, first: bool) -> float:
    """Return the moving average after `value`; the first value is the average.

    >>> moved(0.5, 1.0, 0.1, first=False), moved(0.0, 0.75, 0.1, first=True)
    (0.55, 0.75)
    """
    return value if first else (1.0 - alpha) * average + alpha * value


def after_round(standing: Standing, parts: Parts, tally: Tally, block: int) -> Standing:
    """Return the standing after a round that ended at `block`.

    A score that is no finite number is taken as 0.
    """
    value = parts.score if math.isfinite(parts.score) else 0.0
    first = standing.rounds == 0
    counted = msgspec.structs.replace(
        standing,
        ema=moved(standing.ema, value, EMA_ALPHA, first=first),
        reputation=moved(standing.reputation, value, REPUTATION_ALPHA, first=first),
        rounds=standing.rounds + 1,
        challenges=standing.challenges + tally.challenges,
        proved=standing.proved + tally.proved,
    )
    return _slashed(counted, block) if _is_slashable(counted, block) else _lately(counted)


def weight_of(standing: Standing, block: int) -> float:
    """Return the score that weights are made of at `block`: the EMA, or 0 while a slash lasts."""
    return 0.0 if is_slashed(standing, block) else standing.ema


def is_slashed(standing: Standing, block: int) -> bool:
    """Tell whether a slash lasts at `block`."""
    return standing.slashed_until_block is not None and block < standing.slashed_until_block


def _is_slashable(standing: Standing, block: int) -> bool:
    return (
        not is_slashed(standing, block)
        and standing.challenges >= SLASH_CHALLENGES
        and standing.proof_rate < SLASH_BELOW
    )


def _lately(standing: Standing) -> Standing:
    if standing.challenges <= COUNTED_MOST:
        return standing
    return msgspec.structs.replace(standing, challenges=standing.challenges // 2, proved=standing.proved // 2)


def _slashed(standing: Standing, block: int) -> Standing:
    return msgspec.structs.replace(
        standing,
        slashes=standing.slashes + 1,
        slashed_until_block=block + SLASH_BLOCKS,
        challenges=0,
        proved=0,
    )
