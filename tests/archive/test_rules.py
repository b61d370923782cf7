"""Which segments are written again, what a new state may be, and which manifest is the newest."""

import pytest

from engram.archive import rules
from engram.archive.errors import Replayed
from engram.archive.model import DELETIONS, SegmentRef

pytestmark = pytest.mark.rules


def some(count: int, kind: str = "record", size: int = 4_096, epoch: int = 1, first: int = 0) -> list[SegmentRef]:
    return [SegmentRef(f"{kind} {epoch} {size} {number}", kind, 6, size, epoch) for number in range(first, count)]


def test_a_segment_is_worn_once_a_third_of_it_is_dead() -> None:
    (ref,) = some(1)
    assert rules.worn([ref], {}) == rules.worn([ref], {ref.name: 1}) == set()
    assert rules.worn([ref], {ref.name: 2}) == {ref.name}
    assert rules.worn(some(1, DELETIONS), {some(1, DELETIONS)[0].name: 6}) == set()


def test_only_many_segments_of_one_kind_size_and_epoch_with_room_are_a_crowd() -> None:
    crowd = some(8)
    names = {ref.name for ref in crowd}
    assert rules.crowded(crowd, (), 1) == names
    assert rules.crowded(crowd[1:], (), 1) == set()
    assert rules.crowded(crowd, {crowd[0].name}, 1) == set()
    assert rules.crowded(crowd, (), 2) == set()
    assert rules.crowded([*some(4), *some(4, size=16_384)], (), 1) == set()
    assert rules.crowded([*some(4), *some(4, "conversation")], (), 1) == set()


def test_lists_of_deletions_are_a_crowd_whatever_their_sizes() -> None:
    lists = [*some(4, DELETIONS), *some(4, DELETIONS, size=16_384)]
    assert rules.crowded(lists, (), 1) == {ref.name for ref in lists}


@pytest.mark.parametrize(("before", "now", "is_shrunk"), [(0, 0, False), (1, 0, True), (10, 5, False), (10, 4, True)])
def test_less_than_half_is_shrunk(before: int, now: int, is_shrunk: bool) -> None:
    assert rules.is_shrunk(before, now) is is_shrunk


def test_an_older_manifest_than_one_that_was_seen_is_refused() -> None:
    rules.require_not_older(7, 7)
    with pytest.raises(Replayed, match="number 6, and number 7 was seen"):
        rules.require_not_older(6, 7)


def test_the_newest_manifest_is_the_greatest_number_that_is_listed_or_known() -> None:
    assert rules.newest_of([], 0) == 0
    assert rules.newest_of(["manifests/000000000002", "manifests/x", "manifests/²"], 1) == 2
    assert rules.newest_of(["manifests/000000000002"], 3) == 3
