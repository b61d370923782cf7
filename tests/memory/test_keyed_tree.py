"""The keyed tree: RFC 6962 in its parts, the same for the same set, and proofs of both kinds that cannot be feigned."""

import base64
import gzip
import hashlib
import json
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.memory.proof import keyed_tree, rfc6962
from engram.memory.proof.keyed_tree import BUCKET_ENTRIES, KeyedTree, Shown, entry_of, key_of
from tests.shared import SHARED, needs_shared

CIDS = [f"v1::{i:064x}" for i in range(400)]


def entries(cids: list[str]) -> list[bytes]:
    return [entry_of(cid, cid.encode()) for cid in cids]


def digest(cid: str) -> str:
    return hashlib.sha256(cid.encode()).hexdigest()


@needs_shared
def test_inclusion_paths_agree_with_the_published_cases() -> None:
    cases = json.loads(gzip.decompress((SHARED / "vectors" / "merkle" / "rfc6962.json.gz").read_bytes()))
    checked = 0
    for name, case in cases.items():
        if not name.startswith("inclusion/"):
            continue
        path = [base64.b64decode(each) for each in case["proof"] or []]
        leaf = base64.b64decode(case["leafHash"] or "")
        found = rfc6962.root_from_path(leaf, case["leafIdx"], case["treeSize"], path)
        assert (found is not None and found == base64.b64decode(case["root"] or "")) != case["wantErr"], name
        checked += 1
    assert checked > 90


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=40))
def test_every_leaf_of_a_tree_leads_to_its_root(data: list[bytes]) -> None:
    leaves = [rfc6962.leaf(each) for each in data]
    for index, leaf in enumerate(leaves):
        path = rfc6962.inclusion_path(leaves, index)
        assert rfc6962.root_from_path(leaf, index, len(leaves), path) == rfc6962.root(leaves)


def test_an_empty_tree_has_the_perfect_tree_of_empty_buckets_as_its_root() -> None:
    current = hashlib.sha256(b"").digest()
    for _ in range(16):
        current = hashlib.sha256(b"\x01" + current + current).digest()
    assert KeyedTree().root == current
    assert keyed_tree.verify(KeyedTree().show(CIDS[0]), CIDS[0], current) is None


@settings(max_examples=60)
@given(st.lists(st.sampled_from(CIDS), max_size=40), st.lists(st.sampled_from(CIDS), max_size=40), st.randoms())
def test_the_root_depends_on_the_set_alone(kept: list[str], gone: list[str], rng: random.Random) -> None:
    tree = KeyedTree(entries(gone[:20]))
    changes = [(entry, True) for entry in entries(kept)]
    rng.shuffle(changes)
    for entry, _ in changes:
        tree.add(entry)
    for entry in entries(gone):
        tree.add(entry)
        tree.discard(entry)
    for entry in entries([cid for cid in kept if cid in gone]):
        tree.add(entry)
    assert tree.root == KeyedTree(entries(kept)).root
    assert len(tree) == len(set(kept))


@settings(max_examples=40)
@given(st.sets(st.sampled_from(CIDS), max_size=60), st.sampled_from(CIDS))
def test_every_cid_is_shown_to_be_there_or_not(held: set[str], asked: str) -> None:
    tree = KeyedTree(entries(list(held)))
    shown = tree.show(asked)
    assert keyed_tree.verify(shown, asked, tree.root) == (digest(asked) if asked in held else None)
    assert "v1::" not in msgspec.json.encode(shown).decode()
    assert msgspec.json.decode(msgspec.json.encode(shown), type=Shown) == shown


def crowded(count: int) -> list[bytes]:
    """Entries whose keys share the first 17 bits with that of CIDS[0], as ground hashes would."""
    rng = random.Random(1)
    head = key_of(CIDS[0])[:2]
    first = key_of(CIDS[0])[2] & 0x80
    made = {head + bytes([first | rng.randrange(128)]) + rng.randbytes(61) for _ in range(count)}
    return sorted(made)


def test_a_crowded_bucket_is_split_so_that_proofs_stay_small() -> None:
    crowd = crowded(5_000)
    tree = KeyedTree(crowd)
    shown = tree.show(CIDS[0])
    assert shown.depth > keyed_tree.LEVELS + 6
    assert shown.entries is not None
    assert len(shown.entries) <= BUCKET_ENTRIES
    assert keyed_tree.verify(shown, CIDS[0], tree.root) is None
    tree.add(entry_of(CIDS[0], CIDS[0].encode()))
    assert keyed_tree.verify(tree.show(CIDS[0]), CIDS[0], tree.root) == digest(CIDS[0])
    for entry in crowd:
        tree.discard(entry)
    assert tree.root == KeyedTree(entries(CIDS[:1])).root
    assert tree.show(CIDS[0]).depth == keyed_tree.LEVELS


def hash_of_crowd(crowd: list[bytes], depth: int) -> bytes:
    """The rule, written down without any memory."""
    if len(crowd) <= BUCKET_ENTRIES:
        return rfc6962.root([rfc6962.leaf(entry) for entry in sorted(crowd)])
    halves = [
        [entry for entry in crowd if int.from_bytes(entry[:32]) >> (255 - depth) & 1 == bit] for bit in (False, True)
    ]
    return hashlib.sha256(b"\x02" + b"".join(hash_of_crowd(half, depth + 1) for half in halves)).digest()


def test_a_crowded_bucket_is_what_it_is_whatever_came_and_went_before() -> None:
    rng = random.Random(2)
    crowd = crowded(300)
    tree = KeyedTree(crowd[:40])
    held = set(crowd[:40])
    for step in range(1_200):
        wanted = 250 if step // 300 % 2 else 20
        entry = rng.choice(crowd) if rng.randrange(300) < wanted else rng.choice(sorted(held) or crowd)
        (tree.discard if entry in held else tree.add)(entry)
        held ^= {entry}
        if step % 50 == 0:
            shown = tree.show(CIDS[0])
            assert keyed_tree.verify(shown, CIDS[0], tree.root) is None
            current = hash_of_crowd(list(held), keyed_tree.LEVELS)
            for bit, sibling in zip(reversed(range(16)), shown.siblings[-16:], strict=True):
                pair = [current, bytes.fromhex(sibling)]
                current = rfc6962.node(*(pair[::-1] if key_of(CIDS[0])[bit >> 3] >> (7 - bit % 8) & 1 else pair))
            assert current == tree.root == KeyedTree(held).root


def test_ground_hashes_do_not_make_changes_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = crowded(3_000)
    tree = KeyedTree(crowd[1:])
    hashed: list[bytes] = []

    def leaf(entry: bytes) -> bytes:
        hashed.append(entry)
        return hashlib.sha256(b"\x00" + entry).digest()

    monkeypatch.setattr(rfc6962, "leaf", leaf)
    tree.add(crowd[0])
    tree.discard(crowd[0])
    tree.show(CIDS[0])
    assert len(hashed) <= 5 * BUCKET_ENTRIES


def test_two_entries_do_not_pass_for_a_split_bucket() -> None:
    crowd = [*crowded(3)[:1], entry_of(CIDS[0], b"")]
    tree = KeyedTree(crowd)
    honest = tree.show(CIDS[0])
    first, second = sorted(crowd)
    other = first if second.startswith(key_of(CIDS[0])) else second
    feigned = Shown(
        honest.key, 17, [rfc6962.leaf(entry_of(CIDS[0], b"")).hex(), *honest.siblings], entries=[other.hex()]
    )
    with pytest.raises(ValueError, match="does not lead"):
        keyed_tree.verify(feigned, CIDS[0], tree.root)


def tampered(shown: Shown) -> list[Shown]:
    replace = msgspec.structs.replace
    zeros = "00" * 32
    return [
        replace(shown, siblings=shown.siblings[1:]),
        replace(shown, siblings=[zeros, *shown.siblings[1:]]),
        replace(shown, depth=15, siblings=shown.siblings[1:]),
        replace(shown, depth=17, siblings=[zeros, *shown.siblings]),
        replace(shown, key=zeros),
        replace(shown, embedding_hash=zeros),
        replace(shown, embedding_hash=None),
        replace(shown, index=7),
        replace(shown, size=None),
        replace(shown, path=[zeros]),
        replace(shown, entries=[]),
        replace(shown, entries=["00" * 64]),
        replace(shown, entries=["zz"]),
        replace(shown, entries=[shown.key + zeros]),
    ]


def test_no_changed_proof_holds() -> None:
    tree = KeyedTree(entries(CIDS))
    for number, changed in enumerate(tampered(tree.show(CIDS[7]))):
        with pytest.raises(ValueError):
            print(number, keyed_tree.verify(changed, CIDS[7], tree.root))


def test_a_tree_says_of_no_other_tree() -> None:
    one, other = KeyedTree(entries(CIDS[:5])), KeyedTree(entries(CIDS[:6]))
    with pytest.raises(ValueError, match="root"):
        keyed_tree.verify(one.show(CIDS[5]), CIDS[5], other.root)


@pytest.mark.parametrize("count", [0, 1, 2, 300, 5_000])
def test_the_root_without_a_tree_is_that_of_the_tree(count: int) -> None:
    entries = [keyed_tree.entry_of(f"cid {number}", b"%d" % number) for number in range(count)]
    if count > 2:  # a bucket that is split, and an entry that is there twice
        entries += [b"\xab\xcd" + hashlib.sha256(b"%d" % number).digest() * 2 for number in range(40)]
        entries = [entry[:64] for entry in entries] + entries[:1]
    grouped: dict[int, bytearray] = {}
    for entry in entries:
        grouped.setdefault(entry[0], bytearray()).extend(entry)
    tree = KeyedTree(entries)
    assert keyed_tree.root_of(grouped) == (tree.root, len(tree))
