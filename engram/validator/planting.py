"""What is planted at a miner, by whom and when: fresh records that look like a customer's, different for every miner.

A miner sees of a record its signer, its length, its model and when it came. So signers come and go as customers do:
each is a key of its own, signs a number of records with a long tail (most few, some many), at random intervals, and
never comes back; lengths are drawn from what the public records of all miners have, never from one miner's word.
Records are kept for a random number of rounds, so that some are old, and are then deleted by their signer, as customers
do too.

A record's life, each arrow a commit before or after its effect:

    drafted -> ready (has its vector) -> sending -> held -> deleting -> deleted
                                            |         \\-> lost (given up after a week, or the hotkey is gone)
                                            \\-> refused (the miner did not take it; deleted where it may have)
"""

import itertools
import math
from collections.abc import Sequence
from random import Random
from statistics import median
from typing import Final

import msgspec

LENGTHS: Final = (42, 58, 71, 83, 97, 110, 124, 146, 173, 210, 260, 330, 480, 720)
"""Lengths of notes in characters where too little is known of the miners' customers."""
LONGEST: Final = 4_000
"""Characters of a note at most."""
LEAST_TEXTS: Final = 20
"""Texts that a miner must list before it has a say in the lengths."""
LEAST_OPERATORS: Final = 3
"""Operators whose miners must list texts before their lengths are drawn from."""
QUANTILES: Final = 64
MOST_PER_SIGNER: Final = 40
TAIL: Final = 1.6
"""Exponent of the number of records a signer leaves: share with more than n falls as n ** -TAIL."""
ROUNDS_KEPT_MEAN: Final = 6.0


class Habits(msgspec.Struct, frozen=True, kw_only=True):
    """What customers do, as far as this validator can see."""

    lengths: tuple[int, ...] = LENGTHS
    """Characters of their public texts, over all miners: see `common_lengths`."""


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One record to plant."""

    family: int
    """Index of the matter it is about, of this plan."""
    signer: int
    """Index of the signer, of this plan; a negative one is a signer that is under way (see `plan`)."""
    length: int
    after_s: float
    """Seconds after the plan was made at which it is sent."""
    keep_rounds: int


class Signing(msgspec.Struct, frozen=True):
    """A signer that still has records to leave."""

    left: int
    mean_gap_s: float


class _Arriving(msgspec.Struct, frozen=True):
    """A signer that comes within a period, and when it leaves its records in it."""

    signing: Signing
    times_s: list[float]


class Plan(msgspec.Struct, frozen=True):
    """The records of one round for one miner, and the signers that go on into the next."""

    records: tuple[Planned, ...]
    signers: tuple[Signing, ...]
    """The new ones, by index."""


def plan(
    rng: Random,
    *,
    most: int,
    families: int,
    period_s: float,
    under_way: Sequence[Signing],
    habits: Habits,
    keep_most: int,
) -> Plan:
    """Plan what is planted at one miner within the next `period_s` seconds: at most `most` records.

    Signers that are `under_way` go on first (signer -1 is the first of them); new ones come in between at random.
    The number of records is itself random, from half of `most` on: it must not tell the validator either. Where they
    would be more than `most`, new signers stay away: records taken out here and there would make all of ours slower
    than customers are. What one alone leaves beyond `most` comes in the next period.
    """
    wanted = rng.randint(max(1, most // 2), most)
    known: list[tuple[float, int]] = []
    for index, signing in enumerate(under_way):
        known += [(at, -1 - index) for at in _arrivals(rng, 0.0, signing, period_s)[: most - len(known)]]
    new: list[_Arriving] = []
    while (count := sum(len(each.times_s) for each in new)) < wanted - len(known):
        signing = Signing(records_of_signer(rng), math.exp(rng.gauss(math.log(period_s / 8), 1.0)))
        times = _arrivals(rng, rng.uniform(0.0, period_s), signing, period_s)
        while new and count + len(times) > most - len(known):
            count -= len(new.pop(0).times_s)
        new.append(_Arriving(signing, times[: most - len(known)]))
    made = [each.signing for each in new]
    events = sorted([*known, *((at, index) for index, each in enumerate(new) for at in each.times_s)])
    records = tuple(
        Planned(
            family=rng.randrange(families),
            signer=signer,
            length=rng.choice(habits.lengths),
            after_s=at,
            keep_rounds=rounds_kept(rng, keep_most),
        )
        for at, signer in events
    )
    return Plan(records, tuple(made))


def _arrivals(rng: Random, start_s: float, signing: Signing, period_s: float) -> list[float]:
    """Return the times, from `start_s` on, at which a signer leaves its records within the period."""
    gaps = (rng.expovariate(1.0 / signing.mean_gap_s) for _ in range(signing.left - 1))
    times = itertools.accumulate(gaps, initial=start_s or rng.expovariate(1.0 / signing.mean_gap_s))
    return list(itertools.takewhile(lambda at: at < period_s, times))


def records_of_signer(rng: Random) -> int:
    """Draw how many records a signer leaves: 1 to 40, with a long tail."""
    return min(MOST_PER_SIGNER, math.floor(math.exp(-math.log(1.0 - rng.random()) / TAIL)))


def rounds_kept(rng: Random, most: int) -> int:
    """Draw for how many rounds a record is kept: 2 to `most`, few of them long."""
    return min(most, 2 + math.floor(rng.expovariate(1.0 / ROUNDS_KEPT_MEAN)))


class Candidate(msgspec.Struct, frozen=True):
    """A matter that can be asked about: how many of its records the miner should hold, and their age in rounds."""

    family: str
    held: int
    oldest_rounds: int


def to_ask(rng: Random, candidates: Sequence[Candidate], *, queries: int, least_held: int) -> list[str]:
    """Choose the matters that a miner is asked about: those with at least `least_held` records, old ones first likely.

    Half of the queries go to the older half, so that a miner that drops what is older than a round is seen each round.
    """
    able = sorted((each for each in candidates if each.held >= least_held), key=lambda each: each.oldest_rounds)
    if not able:
        return []
    older = able[len(able) // 2 :]
    return [rng.choice(older if index % 2 else able).family for index in range(queries)]


def length_sample(texts: Sequence[str], least: int = LEAST_TEXTS) -> tuple[int, ...]:
    """Return a sorted sample of at most 127 lengths of customers' texts; empty when fewer than `least` are known.

    One longer than LONGEST counts as LONGEST: notes of that length are still cheap to draw.
    """
    lengths = sorted(min(len(text), LONGEST) for text in texts if text)
    if len(lengths) < least:
        return ()
    return tuple(lengths[:: max(1, len(lengths) // QUANTILES)])


def common_lengths(samples: Sequence[Sequence[Sequence[int]]]) -> tuple[int, ...]:
    """Return the lengths that records are planted with, of the samples of every operator's miners; LENGTHS while fewer
    than LEAST_OPERATORS have any.

    Each quantile is the median of the operators': one that lists whatever it likes moves none of them further than to
    the next one's, so no miner says how long the records are that are planted at it.
    """
    operators = [quantiles for each in samples if (quantiles := _medians([one for one in each if one]))]
    return _medians(operators) if len(operators) >= LEAST_OPERATORS else LENGTHS


def _medians(samples: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the medians of the samples' quantiles, lowest first; empty without a sample."""
    if not samples:
        return ()
    ordered = [sorted(each) for each in samples]
    return tuple(
        round(median(each[(2 * place + 1) * len(each) // (2 * QUANTILES)] for each in ordered))
        for place in range(QUANTILES)
    )
