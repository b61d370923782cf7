"""When a block is final enough to be spoken of."""

import pytest

from engram.relay.finality import FinalBlocks, Finality, judge

pytestmark = pytest.mark.rules

ONE, OTHER = bytes([1]) * 32, bytes([2]) * 32


@pytest.mark.parametrize(
    ("block", "block_hash", "finalized", "best", "hash_now", "expected"),
    [
        (10, ONE, 12, 13, ONE, Finality.FINAL),
        (10, None, 12, 13, None, Finality.FINAL),
        (10, ONE, 12, 12, ONE, Finality.AWAITED),
        (10, ONE, 9, 13, ONE, Finality.AWAITED),
        (10, ONE, 12, 13, OTHER, Finality.REORGANIZED),
        (10, ONE, 12, 13, None, Finality.AWAITED),
        (10, ONE, None, 13, ONE, Finality.AWAITED),
        (10, ONE, 12, None, ONE, Finality.AWAITED),
    ],
)
def test_a_block_is_final_when_it_stands_on_the_chain_three_below_the_best_head(
    block: int,
    block_hash: bytes | None,
    finalized: int | None,
    best: int | None,
    hash_now: bytes | None,
    expected: Finality,
) -> None:
    assert judge(block, block_hash, finalized=finalized, best=best, hash_now=hash_now) is expected


def test_final_blocks_are_remembered_with_their_hash_the_newest_of_them() -> None:
    found = FinalBlocks(most=2)
    found.add(1, b"a")
    assert (found.holds(1, b"a"), found.holds(1, b"b"), found.holds(1, None)) == (True, False, False)
    found.add(2, None)
    found.add(3, b"c")
    assert [found.holds(1, b"a"), found.holds(2, None), found.holds(3, b"c")] == [False, True, True]
