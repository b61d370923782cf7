"""A commit of weights is found on the chain by its mark, in each form in which chains hold commits."""

import hashlib
from collections.abc import Mapping
from typing import Any, cast

import pytest

from engram.chain.errors import AnswerMalformed, RuntimeApiMissing
from engram.chain.read.view import View
from engram.chain.submit.commit_marks import HeldCommit, find_commit

COMMIT = bytes(range(200))
MARK = hashlib.blake2b(COMMIT, digest_size=32).hexdigest()
HEX = "0x" + COMMIT.hex()
OTHER = "0x" + bytes(range(1, 201)).hex()


class Holds:
    """A chain that holds these commits, by item, and knows no other item."""

    def __init__(self, held: Mapping[str, Any]) -> None:
        self.held = held
        self.types = self

    def has_storage(self, pallet: str, item: str) -> bool:
        return item in self.held

    def storage_value(self, pallet: str, item: str, octets: bytes) -> Any:
        return self.held[item]

    async def entries(self, pallet: str, item: str, netuid: int) -> list[tuple[str, str]]:
        return [("0x00", "0x00")]


async def found(held: Mapping[str, Any], mark: str = MARK) -> HeldCommit | None:
    return await find_commit(cast("View", Holds(held)), 450, mark)


@pytest.mark.parametrize(
    ("item", "commits", "expected"),
    [
        ("TimelockedWeightCommits", [("5Other", 7, OTHER, 9), ("5Ours", 8, HEX, 9)], HeldCommit(8)),
        ("CRV3WeightCommits", [("5Other", OTHER, 9), ("5Ours", HEX, 9)], HeldCommit(None)),
        ("WeightCommits", [("0x" + MARK, 8, 20, 30)], HeldCommit(8)),
        ("TimelockedWeightCommits", [("5Other", 7, OTHER, 9)], None),
        ("TimelockedWeightCommits", [("5Other", 7, "0xzz", 9), ("5Other", 7, "text", 9)], None),
        ("TimelockedWeightCommits", [None, ("5Ours", 8, HEX, 9)], HeldCommit(8)),
        ("WeightCommits", None, None),
    ],
)
async def test_a_commit_is_found_by_its_mark_and_by_nothing_else(
    item: str, commits: Any, expected: HeldCommit | None
) -> None:
    assert await found({item: commits}) == expected


@pytest.mark.parametrize("commit", [None, 5, ("5Ours",), ("5Ours", 7, HEX, 9, 1)])
async def test_that_none_is_held_is_not_said_of_commits_in_a_form_that_is_not_known(commit: object) -> None:
    with pytest.raises(AnswerMalformed, match="TimelockedWeightCommits"):
        await found({"TimelockedWeightCommits": [("5Other", 7, OTHER, 9), commit]})


async def test_nor_of_a_runtime_that_holds_them_elsewhere() -> None:
    with pytest.raises(RuntimeApiMissing, match="no storage of commits that Engram knows"):
        await found({})
