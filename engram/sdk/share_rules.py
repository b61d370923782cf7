"""Recovers the secret from the shares of several nodes, and finds the nodes that returned wrong ones. Does no I/O.

A share carries no checksum, so what can be detected depends on what is known of the secret:

- its SHA-256: no other one is ever taken for it, and it is found when `threshold` right shares came, however many wrong
  ones came beside them (with more than about 15 nodes: with a probability, as not every subset can be tried)
- nothing: it is found when more than `threshold` shares came and at most half of those beyond it are wrong; another
  one is taken for it only when more nodes than that lie, all in the same way

Once it is found, every share is held against the others: altered, bearing another share's number, given twice, or
naming another threshold. A share that was altered and one of another secret look alike. With too few right shares,
it is not possible to say which of them are wrong, only a minimum number.
"""

import hashlib
import hmac
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Final, Literal, final

import msgspec

from engram.sdk import shamir
from engram.sdk.shamir import Share

FaultKind = Literal["unreachable", "silent", "refused", "malformed", "empty", "wrong", "duplicate"]
_STEPS_AN_ARRIVAL: Final = 400_000
_STEPS_AT_THE_END: Final = 4_000_000
"""A step is about 0.06 µs of one core; `_cost` has what a subset costs."""
_MOST_THRESHOLDS: Final = 8
"""How many of the thresholds that nodes name are tried, the most frequent first."""


class NodeFault(msgspec.Struct, frozen=True):
    """A node's failure to keep or return its share. `number` counts the nodes from 1."""

    number: int
    url: str
    kind: FaultKind
    detail: str

    def __str__(self) -> str:
        return f"node {self.number} ({self.url}) {self.detail}"


class Given(msgspec.Struct, frozen=True):
    """A share as a node returned it, with the threshold that the node named."""

    number: int
    url: str
    share: Share
    threshold: int


@final
class Recovery:
    """Searches for the secret as shares arrive. `secret` is None until it is known."""

    def __init__(self, sha256: bytes | None, rng: random.Random) -> None:
        """Take the secret's SHA-256, None when it is not known; `rng` picks subsets where there are too many."""
        self._sha256 = sha256
        self._rng = rng
        self._given: list[Given] = []
        self._basis: Sequence[Share] = ()
        self.secret: bytes | None = None

    def add(self, given: Given) -> Iterator[None]:
        """Search the subsets that a share makes possible, in small steps; with a SHA-256 only."""
        named_before = {each.threshold for each in self._given}
        self._given.append(given)
        if self._sha256 is None:
            return
        for threshold in self._thresholds()[:_MOST_THRESHOLDS]:
            needed = given.share if threshold in named_before else None
            yield from self._search(threshold, needed, _STEPS_AN_ARRIVAL)

    def finish(self) -> Iterator[None]:
        """Finish the search when no more shares will arrive, in small steps."""
        if self._sha256 is None:
            yield from self._agree()
            return
        for threshold in self._thresholds()[:_MOST_THRESHOLDS]:
            yield from self._search(threshold, None, _STEPS_AT_THE_END)

    @property
    def basis(self) -> Sequence[Share]:
        """The `threshold` shares that give the secret; empty until it is found."""
        return self._basis

    def missing(self) -> str:
        """Return why there is no secret, in words."""
        came, thresholds = len(self._given), self._thresholds()
        if not came:
            return "no node gave a share"
        named = f"{_numbers(self._given)} gave shares" if came > 1 else f"only {_numbers(self._given)} gave a share"
        threshold = thresholds[0]
        distinct = len({(each.share.index, each.share.data) for each in self._given})
        if distinct < threshold:
            return f"{distinct} shares were found, {threshold} are needed ({named})"
        if self._sha256 is None:
            if distinct == threshold:
                return f"{named}: without the secret's SHA-256 one more than the {threshold} needed must come to tell"
            return f"{named} that do not agree on a secret, and without its SHA-256 nobody can tell which are wrong"
        if _fit(threshold, [each.share for each in self._given]):
            return f"{named} that agree, on another secret than the SHA-256 names"
        wrong = came - threshold + 1
        return f"{named} that give another secret: at least {wrong} of them {'is' if wrong == 1 else 'are'} wrong"

    def faults(self) -> list[NodeFault]:
        """Return the faults known so far, by share."""
        threshold = self._thresholds()[0] if self._given else 0
        if self.secret is not None:
            right = [each for each in self._given if self._right(each.share)]
            threshold = Counter(each.threshold for each in right).most_common(1)[0][0]
        seen: dict[tuple[int, bytes], Given] = {}
        found: list[NodeFault] = []
        for given in self._given:
            share, first = given.share, seen.setdefault((given.share.index, given.share.data), given)
            if self.secret is not None and not self._right(share):
                found.append(NodeFault(given.number, given.url, "wrong", self._explain(share)))
            elif first is not given:
                text = f"gave share number {share.index}, as node {first.number} did"
                found.append(NodeFault(given.number, given.url, "duplicate", text))
            elif given.threshold != threshold:
                text = f"says that {given.threshold} shares are needed, others say {threshold}"
                found.append(NodeFault(given.number, given.url, "wrong", text))
        return found

    def _thresholds(self) -> list[int]:
        """Return the thresholds that nodes named, the most frequent first."""
        return [threshold for threshold, _ in Counter(each.threshold for each in self._given).most_common()]

    def _search(self, threshold: int, needed: Share | None, steps: int) -> Iterator[None]:
        shares = [each.share for each in self._given]
        for subset in _subsets(shares, threshold, needed, steps // _cost(threshold, shares) + 1, self._rng):
            if self.secret is not None:
                return
            secret = shamir.combine(subset)
            if self._sha256 is not None and hmac.compare_digest(hashlib.sha256(secret).digest(), self._sha256):
                self.secret, self._basis = secret, subset
            yield

    def _agree(self) -> Iterator[None]:
        """Find the polynomial through so many shares that half of the surplus ones cannot point to another."""
        came = len(self._given)
        for threshold, named in Counter(each.threshold for each in self._given).items():
            needed = max(threshold + 1, math.ceil((came + threshold) / 2))
            if 2 * named <= came or came < needed:
                continue
            shares = [each.share for each in self._given]
            tries = _STEPS_AT_THE_END // (_cost(threshold, shares) * came) + 1
            for subset in _subsets(shares, threshold, None, tries, self._rng):
                if len({share.index for share in shares if _on(subset, share)}) >= needed:
                    self.secret, self._basis = shamir.combine(subset), subset
                    return
                yield

    def _right(self, share: Share) -> bool:
        return _on(self._basis, share)

    def _explain(self, share: Share) -> str:
        if len(share.data) == len(self._basis[0].data):
            for index in range(1, shamir.MOST_SHARES + 1):
                if shamir.value_at(self._basis, index) == share.data:
                    return f"gave share number {index} and says that it is number {share.index}"
        return f"gave a share that is not number {share.index} of this secret: altered, or of another one"


def _on(basis: Sequence[Share], share: Share) -> bool:
    return len(share.data) == len(basis[0].data) and shamir.value_at(basis, share.index) == share.data


def _fit(threshold: int, shares: Sequence[Share]) -> bool:
    """Return whether all shares, one more than `threshold` at least, are of one secret."""
    distinct = list({share.index: share for share in shares}.values())
    if len({len(share.data) for share in shares}) != 1 or len(distinct) <= threshold:
        return False
    return all(_on(distinct[:threshold], share) for share in shares)


def _subsets(
    shares: Sequence[Share], size: int, needed: Share | None, most: int, rng: random.Random
) -> Iterator[Sequence[Share]]:
    """Yield subsets that can be combined: equal lengths, distinct numbers, with `needed`; all, or `most` at random."""
    by_length: dict[int, list[Share]] = {}
    for share in dict.fromkeys(shares):
        by_length.setdefault(len(share.data), []).append(share)
    for length, alike in by_length.items():
        if needed is not None and len(needed.data) != length:
            continue
        others = [share for share in alike if share != needed]
        picked = size if needed is None else size - 1
        if len(others) < picked:
            continue
        for subset in _picked(others, picked, most, rng):
            whole = subset if needed is None else (needed, *subset)
            if len({share.index for share in whole}) == size:
                yield whole


def _picked(shares: Sequence[Share], size: int, most: int, rng: random.Random) -> Iterable[tuple[Share, ...]]:
    if math.comb(len(shares), size) <= most:
        return combinations(shares, size)
    return (tuple(rng.sample(shares, size)) for _ in range(most))


def _cost(threshold: int, shares: Sequence[Share]) -> int:
    longest = max(len(share.data) for share in shares)
    return (threshold + 8) ** 2 + (threshold + 2) * longest // 50


def _numbers(given: Sequence[Given]) -> str:
    numbers = ", ".join(str(each.number) for each in given)
    return f"node {numbers}" if len(given) == 1 else f"nodes {numbers}"
