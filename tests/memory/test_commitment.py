"""The commitment follows the truth: never stale, a tree for each namespace, the same after a restart."""

import random
import weakref
from pathlib import Path

import pytest
import trio
import trio.testing

from engram.clock import SeededIds, SystemClock
from engram.memory.model import PUBLIC, Entry
from engram.memory.proof import keyed_tree, merkle, proofs
from engram.memory.proof.commitment import Commitment
from engram.memory.proof.keyed_tree import KeyedTree
from engram.memory.store.record_db import Truth
from tests.memory.stores import ExactIndex, entry, opened, random_vector, vector


async def test_every_change_of_a_public_record_shows_in_the_next_root(tmp_path: Path) -> None:
    async with opened(tmp_path, lambda truth: ExactIndex()) as both:
        commitment = Commitment()
        await commitment.load(both.truth)
        both.store.on_changes = commitment.follow
        roots = [(await commitment.tree()).root]
        stored = await both.store.put(entry(vector(1)))
        roots.append((await commitment.tree()).root)
        await both.store.put(entry(vector(2, 2), "mine"))
        assert (await commitment.tree()).root == roots[-1]
        await both.store.put(entry(vector(2, 2)))
        roots.append((await commitment.tree()).root)
        await both.store.delete(PUBLIC, stored.cid)
        roots.append((await commitment.tree()).root)
        assert len(set(roots)) == 4
        assert len(commitment) == 1


async def test_a_large_commitment_is_that_of_the_records_also_after_a_restart(tmp_path: Path) -> None:
    rng = random.Random(3)
    async with opened(tmp_path, lambda truth: ExactIndex()) as both:
        commitment = Commitment()
        await commitment.load(both.truth)
        both.store.on_changes = commitment.follow
        entries = [entry(random_vector(rng)) for _ in range(300)]
        for each in entries:
            await both.store.put(each)
        leaves = [merkle.leaf(each.cid, proofs.embedding_hash(each.embedding)) for each in entries]
        assert (await commitment.tree()).root == merkle.Tree(leaves).root
        assert await commitment.tree() is await commitment.tree()
        assert commitment.public().root == keyed(entries).root
        reloaded = Commitment()
        await reloaded.load(both.truth)
        assert (await reloaded.tree()).root == merkle.Tree(leaves).root
        assert reloaded.public().root == keyed(entries).root


def keyed(entries: list[Entry]) -> KeyedTree:
    return KeyedTree(keyed_tree.entry_of(each.cid, each.embedding) for each in entries)


async def test_each_namespace_has_a_tree_of_its_own(tmp_path: Path) -> None:
    rng = random.Random(4)
    async with opened(tmp_path, lambda truth: ExactIndex()) as both:
        commitment = Commitment()
        await commitment.load(both.truth)
        both.store.on_changes = commitment.follow
        public = commitment.public().root
        whole, count = await commitment.whole()
        assert count == 0
        mine = [entry(random_vector(rng), "mine") for _ in range(3)]
        await both.store.put(mine[0])
        assert (await commitment.of("mine")).root == keyed(mine[:1]).root
        for each in mine[1:]:
            await both.store.put(each)
        await both.store.put(entry(vector(1), "yours"))
        assert (await commitment.of("mine")).root == keyed(mine).root
        await both.store.delete("mine", mine[0].cid)
        assert (await commitment.of("mine")).root == keyed(mine[1:]).root
        assert len(await commitment.of("yours")) == 1
        assert (await commitment.of("nobodys")).root == KeyedTree().root
        assert commitment.public().root == public
        assert (await commitment.whole())[0] != whole
        assert (await commitment.whole())[1] == 3


async def test_changes_while_a_tree_is_read_are_not_missed(tmp_path: Path) -> None:
    rng = random.Random(5)
    async with opened(tmp_path, lambda truth: ExactIndex()) as both:
        commitment = Commitment()
        await commitment.load(both.truth)
        both.store.on_changes = commitment.follow
        entries = [entry(random_vector(rng), name) for name in ("mine", PUBLIC) for _ in range(40)]
        async with trio.open_nursery() as nursery:
            for each in entries:
                nursery.start_soon(both.store.put, each)
            nursery.start_soon(commitment.of, "mine")
            nursery.start_soon(commitment.tree)
        assert (await commitment.of("mine")).root == keyed(entries[:40]).root
        leaves = [merkle.leaf(each.cid, proofs.embedding_hash(each.embedding)) for each in entries[40:]]
        assert (await commitment.tree()).root == merkle.Tree(leaves).root


async def test_trees_of_empty_namespaces_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.memory.proof.commitment._PRIVATE_ENTRIES_KEPT", 400)
    async with opened(tmp_path, lambda truth: ExactIndex()) as both:
        commitment = Commitment()
        await commitment.load(both.truth)
        trees = [weakref.ref(await commitment.of(f"nobodys{number}")) for number in range(100)]
        assert sum(1 for tree in trees if tree() is not None) <= 50


async def test_a_tree_is_that_of_a_moment_or_none(tmp_path: Path) -> None:
    async with opened(tmp_path, lambda truth: ExactIndex()) as both:
        commitment = Commitment()
        both.store.on_changes = commitment.follow
        await commitment.load(both.truth)
        mine = await both.store.put(entry(vector(1), "mine"))
        public = await both.store.put(entry(vector(1)))
        tree = await commitment.as_of("mine", public.sequence)
        assert tree is not None
        assert len(tree) == 1
        later = await both.store.put(entry(vector(2), "mine"))
        assert await commitment.as_of("mine", public.sequence) is None
        assert await commitment.as_of("mine", later.sequence) is tree
        assert await commitment.as_of(PUBLIC, mine.sequence) is None
        assert await commitment.as_of(PUBLIC, later.sequence) is commitment.public()


async def test_a_change_that_never_comes_is_waited_for_a_second(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    commitment = Commitment()
    truth = Truth.open(tmp_path / "truth.db", SystemClock(), SeededIds(1))
    await commitment.load(truth)
    began = trio.current_time()
    assert await commitment.as_of(PUBLIC, 7) is None
    assert trio.current_time() - began == pytest.approx(1.0)
    truth.close()
