"""The commitment follows the truth: never stale, public records only, the same after a restart."""

import random
from pathlib import Path

from engram.memory import merkle, proofs
from engram.memory.commitment import Commitment
from engram.memory.model import PUBLIC
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
        both.store.on_changes = commitment.follow
        entries = [entry(random_vector(rng)) for _ in range(300)]
        for each in entries:
            await both.store.put(each)
        leaves = [merkle.leaf(each.cid, proofs.embedding_hash(each.embedding)) for each in entries]
        assert (await commitment.tree()).root == merkle.Tree(leaves).root
        assert await commitment.tree() is await commitment.tree()
        reloaded = Commitment()
        await reloaded.load(both.truth)
        assert (await reloaded.tree()).root == merkle.Tree(leaves).root
