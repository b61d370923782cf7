"""Planted records cannot be told from customers' by what a miner sees of both."""

import bisect
import math
import statistics
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from engram.validator import planting, scoring
from engram.validator.planting import Habits

CUSTOMERS = 240
PERIOD_S = 600.0
Seen = tuple[float, float, float, float]
"""Length, time within the period, records of the signer so far, seconds since the signer's first record."""


def customers(rng: Random) -> tuple[list[Seen], list[int]]:
    """Records of customers: most leave few notes, some many; and the lengths of their texts."""
    seen: list[tuple[float, int, float]] = []
    signer = 0
    while len(seen) < CUSTOMERS:
        signer += 1
        at, gap = rng.uniform(0, PERIOD_S), math.exp(rng.gauss(math.log(70), 1.1))
        for _ in range(min(40, math.floor((1 - rng.random()) ** (-1 / 1.5)))):
            if at < PERIOD_S:
                seen.append((at, signer, max(12.0, rng.lognormvariate(4.8, 0.7))))
            at += rng.expovariate(1 / gap)
    return features(seen), [round(length) for _, _, length in seen]


def planted(rng: Random, lengths: list[int], liar: list[int] | None = None) -> list[Seen]:
    """What one miner sees of the records of many rounds' plans, where two others list what their customers leave.

    It lists the lengths that its own do, or those of `liar`.
    """
    others = [customers(rng)[1] for _ in range(2)]
    samples = [planting.length_sample(["x" * each for each in listed]) for listed in (liar or lengths, *others)]
    habits = Habits(lengths=planting.common_lengths([[each] for each in samples]))
    found: list[Seen] = []
    for _ in range(CUSTOMERS // 15):
        plan = planting.plan(rng, most=20, families=3, period_s=PERIOD_S, under_way=[], habits=habits, keep_most=10)
        found += features([(each.after_s, each.signer, float(each.length)) for each in plan.records])
    return found


def features(records: list[tuple[float, int, float]]) -> list[Seen]:
    first: dict[int, float] = {}
    count: dict[int, int] = {}
    found = []
    for at, signer, length in sorted(records):
        first.setdefault(signer, at)
        count[signer] = count.get(signer, 0) + 1
        found.append((math.log(length), at, float(count[signer]), at - first[signer]))
    return found


def fitted(ones: list[Seen], zeros: list[Seen]) -> list[float]:
    """A logistic regression by gradient descent over standardized features; the last number is the offset."""
    rows = [(row, 1.0) for row in ones] + [(row, 0.0) for row in zeros]
    weights = [0.0] * 5
    for _ in range(300):
        gradient = [0.0] * 5
        for row, label in rows:
            error = 1 / (1 + math.exp(-score(weights, row))) - label
            for place in range(4):
                gradient[place] += error * row[place]
            gradient[4] += error
        weights = [weight - 0.5 * step / len(rows) for weight, step in zip(weights, gradient, strict=True)]
    return weights


def score(weights: list[float], row: Seen) -> float:
    return sum(weight * value for weight, value in zip(weights, (*row, 1.0), strict=True))


def auc(weights: list[float], ones: list[Seen], zeros: list[Seen]) -> float:
    """The share of pairs that the rule puts in the right order."""
    high, low = [score(weights, row) for row in ones], [score(weights, row) for row in zeros]
    won = sum((one > zero) + (one == zero) / 2 for one in high for zero in low)
    return won / (len(high) * len(low))


def standardized(groups: list[list[Seen]]) -> list[list[Seen]]:
    every = [row for group in groups for row in group]
    means = [sum(row[place] for row in every) / len(every) for place in range(4)]
    spans = [
        math.sqrt(sum((row[place] - means[place]) ** 2 for row in every) / len(every)) or 1.0 for place in range(4)
    ]
    return [
        [tuple((row[place] - means[place]) / spans[place] for place in range(4)) for row in group]  # type: ignore[misc]
        for group in groups
    ]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_logistic_regression_over_length_time_age_and_rate_stays_near_guessing(seed: int) -> None:
    rng = Random(seed)
    learned, lengths = customers(rng)
    later, _ = customers(rng)
    ours, ours_later = planted(rng, lengths), planted(rng, lengths)
    ours, learned, ours_later, later = standardized([ours, learned, ours_later, later])
    weights = fitted(ours, learned)
    assert auc(weights, ours_later, later) <= 0.6


@pytest.mark.parametrize("listed", [901, 12, 50_000])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_miner_that_lists_texts_of_one_length_can_tell_no_better(seed: int, listed: int) -> None:
    rng = Random(seed)
    learned, lengths = customers(rng)
    later, _ = customers(rng)
    ours, ours_later = (planted(rng, lengths, [listed] * 20) for _ in range(2))
    ours, learned, ours_later, later = standardized([ours, learned, ours_later, later])
    weights = fitted(ours, learned)
    assert auc(weights, ours_later, later) <= 0.6
    assert kept_share(binned(ours, learned), ours_later, later) <= 0.65


def binned(ones: list[Seen], zeros: list[Seen]) -> Callable[[Seen], float]:
    """A rule that is no line: by each feature, how much likelier a record of its eighth is planted."""
    edges = [sorted(row[place] for row in ones + zeros)[:: max(1, len(ones + zeros) // 8)] for place in range(4)]

    def eighth(row: Seen, place: int) -> int:
        return bisect.bisect(edges[place], row[place])

    def shares(rows: list[Seen], place: int) -> list[float]:
        counts = Counter(eighth(row, place) for row in rows)
        return [(counts[number] + 1) / (len(rows) + 10) for number in range(len(edges[place]) + 1)]

    ratios = [
        [math.log(one / zero) for one, zero in zip(shares(ones, place), shares(zeros, place), strict=True)]
        for place in range(4)
    ]
    return lambda row: sum(ratios[place][eighth(row, place)] for place in range(4))


def kept_share(rule: Callable[[Seen], float], ones: list[Seen], zeros: list[Seen]) -> float:
    """The share of planted records that a miner holds which keeps the half of all records that its rule prefers."""
    bar = statistics.median(map(rule, ones + zeros))
    return sum(rule(row) > bar for row in ones) / len(ones)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_miner_that_keeps_what_its_best_rule_takes_for_planted_gains_nothing_over_guessing(seed: int) -> None:
    """It is given the truth of half of the records to learn from, which a miner has of challenged ones alone."""
    rng = Random(seed)
    learned, lengths = customers(rng)
    later, _ = customers(rng)
    ours, ours_later = planted(rng, lengths), planted(rng, lengths)
    ours, learned, ours_later, later = standardized([ours, learned, ours_later, later])
    line = fitted(ours, learned)
    rules: list[Callable[[Seen], float]] = [lambda row: score(line, row), binned(ours, learned)]
    best = max(rules, key=lambda rule: kept_share(rule, ours, learned))
    by_rule = kept_share(best, ours_later, later)
    by_guess = 0.5
    gained = scoring.score(by_rule, 50.0, by_rule) - scoring.score(by_guess, 50.0, by_guess)
    assert gained <= 0.06
