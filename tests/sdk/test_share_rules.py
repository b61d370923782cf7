"""What the shares of honest and lying nodes give: the secret, or the truth about why not; never another secret."""

import hashlib
import random
import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.sdk import shamir
from engram.sdk.shamir import Share
from engram.sdk.share_rules import Given, Recovery

SECRET = b"the key of a namespace"

Lie = Callable[[Share, int, random.Random], tuple[Share, int]]


def altered(share: Share, threshold: int, rng: random.Random) -> tuple[Share, int]:
    changed = bytearray(share.data)
    changed[rng.randrange(len(changed))] ^= rng.randrange(1, 256)
    return Share(share.index, bytes(changed)), threshold


def of_another_secret(share: Share, threshold: int, rng: random.Random) -> tuple[Share, int]:
    """All liars in concert: one other polynomial."""
    other = shamir.split(b"y" * len(share.data), threshold, 255, random_bytes=random.Random(7).randbytes)
    return other[share.index - 1], threshold


def with_a_wrong_number(share: Share, threshold: int, rng: random.Random) -> tuple[Share, int]:
    return Share(share.index % 255 + 1, share.data), threshold


def too_short(share: Share, threshold: int, rng: random.Random) -> tuple[Share, int]:
    return Share(share.index, share.data[:-1]), threshold


LIES: list[Lie] = [altered, of_another_secret, with_a_wrong_number, too_short]


def recovered(given: Sequence[Given], sha256: bytes | None, *, stops: bool = False) -> Recovery:
    recovery = Recovery(sha256, random.Random(1))
    for each in given:
        for _ in recovery.add(each):
            pass
        if stops and recovery.secret is not None:
            return recovery
    for _ in recovery.finish():
        pass
    return recovery


def given_by(shares: Sequence[tuple[Share, int]]) -> list[Given]:
    return [Given(number, f"http://node{number}", share, k) for number, (share, k) in enumerate(shares, 1)]


@st.composite
def rounds(draw: st.DrawFn) -> tuple[int, list[Given], set[int]]:
    """A threshold, what nodes gave, and the numbers of those that lied."""
    threshold, total = draw(st.integers(2, 5)), draw(st.integers(2, 9))
    rng = random.Random(draw(st.integers(0, 2**32)))
    shares = shamir.split(SECRET, threshold, max(threshold, total), random_bytes=rng.randbytes)
    liars = draw(st.sets(st.integers(1, len(shares)), max_size=len(shares)))
    lies = [draw(st.sampled_from(LIES)) if number in liars else None for number in range(1, len(shares) + 1)]
    told = [lie(share, threshold, rng) if lie else (share, threshold) for lie, share in zip(lies, shares, strict=True)]
    given_shares = given_by(told)
    rng.shuffle(given_shares)
    return threshold, given_shares, liars


@settings(max_examples=150)
@given(rounds(), st.booleans())
def test_with_its_digest_the_secret_is_found_among_any_lies_and_each_liar_is_named(
    drawn: tuple[int, list[Given], set[int]], stops: bool
) -> None:
    threshold, shares, liars = drawn
    recovery = recovered(shares, hashlib.sha256(SECRET).digest(), stops=stops)
    if len(shares) - len(liars) < threshold:
        assert recovery.secret is None
        return
    assert recovery.secret == SECRET
    named = {fault.number for fault in recovery.faults() if fault.kind == "wrong"}
    assert named <= liars if stops else named == liars


@settings(max_examples=150)
@given(rounds())
def test_without_a_digest_half_of_the_shares_to_spare_may_lie(drawn: tuple[int, list[Given], set[int]]) -> None:
    threshold, shares, liars = drawn
    spare = len(shares) - threshold
    recovery = recovered(shares, None)
    if len(liars) <= spare // 2 and spare > 0:
        assert recovery.secret == SECRET
        assert {fault.number for fault in recovery.faults() if fault.kind == "wrong"} == liars
    elif len(liars) <= spare // 2 + spare % 2:
        assert recovery.secret is None


@pytest.mark.parametrize("named", [2, 4, 255])
def test_a_threshold_that_is_a_lie_misleads_nobody(named: int) -> None:
    shares = shamir.split(SECRET, 3, 5)
    told = [(shares[0], named), *((share, 3) for share in shares[1:])]
    for sha256 in (hashlib.sha256(SECRET).digest(), None):
        recovery = recovered(given_by(told), sha256)
        assert recovery.secret == SECRET
        [fault] = recovery.faults()
        assert (fault.number, fault.detail) == (1, f"says that {named} shares are needed, others say 3")


def test_a_share_under_another_number_is_told_from_an_altered_one() -> None:
    shares = shamir.split(SECRET, 2, 5)
    told = [(shares[0], 2), (Share(3, shares[1].data), 2), (shares[2], 2), (shares[2], 2), (Share(5, b"x"), 2)]
    recovery = recovered(given_by(told), hashlib.sha256(SECRET).digest())
    assert [str(fault) for fault in recovery.faults()] == [
        "node 2 (http://node2) gave share number 2 and says that it is number 3",
        "node 4 (http://node4) gave share number 3, as node 3 did",
        "node 5 (http://node5) gave a share that is not number 5 of this secret: altered, or of another one",
    ]


@pytest.mark.parametrize(
    ("wrong", "total", "digest", "why"),
    [
        (0, 0, SECRET, "no node gave a share"),
        (0, 1, SECRET, r"1 shares were found, 3 are needed \(only node 1 gave a share\)"),
        (0, 2, None, "2 shares were found, 3 are needed"),
        (0, 3, None, "without the secret's SHA-256 one more than the 3 needed must come"),
        (2, 4, None, "nodes 1, 2, 3, 4 gave shares that do not agree on a secret"),
        (1, 3, SECRET, "nodes 1, 2, 3 gave shares that give another secret: at least 1 of them is wrong"),
        (3, 5, SECRET, "at least 3 of them are wrong"),
        (0, 5, b"newer", "nodes 1, 2, 3, 4, 5 gave shares that agree, on another secret than the SHA-256 names"),
    ],
)
def test_no_secret_comes_with_the_reason(wrong: int, total: int, digest: bytes | None, why: str) -> None:
    rng = random.Random(3)
    shares = shamir.split(SECRET, 3, 5)[:total]
    told = [altered(share, 3, rng) for share in shares[:wrong]] + [(share, 3) for share in shares[wrong:]]
    recovery = recovered(given_by(told), None if digest is None else hashlib.sha256(digest).digest())
    assert recovery.secret is None
    assert re.search(why, recovery.missing())


def test_many_nodes_of_which_many_lie_are_searched_within_bounds() -> None:
    """184,756 subsets of ten; with 14 right ones every 184th is right, with nine right ones none is."""
    rng = random.Random(5)
    shares = shamir.split(SECRET, 10, 20)
    for liars, found in ((6, SECRET), (11, None)):
        told = [altered(share, 10, rng) for share in shares[:liars]] + [(share, 10) for share in shares[liars:]]
        assert recovered(given_by(told), hashlib.sha256(SECRET).digest()).secret == found


@given(st.lists(st.tuples(st.integers(1, 255), st.binary(min_size=1, max_size=3), st.integers(2, 255)), max_size=6))
def test_any_shares_are_judged(told: list[tuple[int, bytes, int]]) -> None:
    shares = given_by([(Share(index, data), threshold) for index, data, threshold in told])
    for sha256 in (hashlib.sha256(SECRET).digest(), None):
        recovery = recovered(shares, sha256)
        assert recovery.missing()
        assert all(str(fault) for fault in recovery.faults())


@given(st.binary(min_size=1, max_size=40), st.integers(2, 6), st.integers(0, 6), st.data())
def test_a_split_is_completed_from_what_is_left_of_it(
    secret: bytes, threshold: int, more: int, data: st.DataObject
) -> None:
    total = threshold + more
    whole = shamir.split(secret, threshold, total)
    kept = data.draw(st.lists(st.sampled_from(whole), unique=True, max_size=total))
    made = shamir.completed(secret, kept, threshold, total)
    assert [share.index for share in made] == list(range(1, total + 1))
    assert {share.index: share for share in made} | {share.index: share for share in kept} == {
        share.index: share for share in made
    }
    assert shamir.combine(data.draw(st.permutations(made))[:threshold]) == secret
    if len(kept) >= threshold:
        assert made == whole


def test_shares_of_another_secret_complete_nothing() -> None:
    others = shamir.split(b"another secret", 2, 3)
    with pytest.raises(ValueError, match="not of this secret"):
        shamir.completed(b"this secret...", others, 2, 3)
    with pytest.raises(ValueError, match="as many bytes"):
        shamir.completed(b"longer", [shamir.Share(1, b"x")], 2, 3)
