"""CIDs, storage proofs and the commitment against the original's published vectors."""

import hashlib
import hmac
import json
import math
import struct
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.memory import cid
from engram.memory.proof import merkle, proofs

VECTORS = json.loads((Path(__file__).parent.parent / "data" / "engram" / "vectors.json").read_bytes())
EMBEDDING = struct.pack("<3f", 0.1, 0.2, 0.3)
PAIRS = [(f"v1::{i:064x}", f"{i + 100:064x}") for i in (1, 2, 3)]


def test_the_vector_bytes_and_their_hash_are_the_originals() -> None:
    assert EMBEDDING.hex() == VECTORS["f32_le_hex"]
    assert proofs.embedding_hash(EMBEDDING) == VECTORS["embedding_hash"]


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("cid_empty_meta_rust", {}),
        ("cid_meta_a1_rust", {"source": "arxiv", "a": "1"}),
        ("cid_int_rust(b=2 via str)", {"b": "2", "c": "True"}),
        ("cid_unicode_rust", {"t": "héé"}),
        ("cid_user_model_version_rust", {"model_version": "mine"}),
    ],
)
def test_the_cid_is_the_canonical_one(name: str, metadata: dict[str, str]) -> None:
    assert cid.compute(EMBEDDING, metadata) == VECTORS[name]


@given(st.binary(), st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))))
def test_every_cid_has_the_form_of_one_and_ignores_the_order_of_keys(data: bytes, metadata: dict[str, str]) -> None:
    made = cid.compute(data, metadata)
    assert cid.is_cid(made)
    assert made == cid.compute(data, dict(reversed(metadata.items())))


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))))
def test_metadata_is_hashed_as_pythons_own_json_writes_it(metadata: dict[str, str]) -> None:
    complete = {**metadata, "model_version": "v1"}
    written = json.dumps(complete, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert cid.canonical_metadata(metadata, "v1") == written.encode()


@given(st.lists(st.floats(width=32)))
def test_a_vector_is_faulty_exactly_when_one_of_its_numbers_is_none(numbers: list[float]) -> None:
    vector = struct.pack(f"<{len(numbers)}f", *numbers)
    fault = cid.fault_of(cid.compute(vector, {}), vector, "{}", "v1")
    assert (fault is None) == all(map(math.isfinite, numbers))


@pytest.mark.parametrize("top", [b"\x7f", b"\xff"])
def test_numbers_from_2_to_the_127_on_are_numbers_until_they_are_infinite(top: bytes) -> None:
    for second, is_sound in ((b"\x00", True), (b"\x7f", True), (b"\x80", False), (b"\xff", False)):
        vector = b"\x00\x00" + second + top
        assert (cid.fault_of(cid.compute(vector, {}), vector, "{}", "v1") is None) == is_sound


@pytest.mark.parametrize(
    "text", ["", "v1::", "v1::" + "g" * 64, "v1::" + "A" * 64, "v2::" + "a" * 64, "a" * 64, "v1::" + "a" * 65]
)
def test_what_has_not_the_form_of_a_cid_is_none(text: str) -> None:
    assert not cid.is_cid(text)


def test_storage_proofs_are_the_originals() -> None:
    nonce = b"\x11" * 32
    assert proofs.storage_proof(EMBEDDING, nonce, b"\xaa" * 32) == VECTORS["proof(nonce=11*32,hk=aa*32)"]
    assert proofs.storage_proof(EMBEDDING, nonce) == VECTORS["proof(nonce=11*32,hk=00*32)"]


@pytest.mark.parametrize(("nonce", "validator"), [(b"", bytes(32)), (bytes(32), b"x"), (bytes(33), bytes(32))])
def test_a_proof_over_inputs_of_a_wrong_length_is_refused(nonce: bytes, validator: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        proofs.storage_proof(EMBEDDING, nonce, validator)


def challenge(**fields: object) -> proofs.Challenge:
    asked = proofs.Challenge(b"m" * 32, b"v" * 32, b"n" * 32, PAIRS[0][0], "__public__", b"r" * 32, 3, 1_700_000_000)
    return msgspec.structs.replace(asked, **fields)


def test_the_second_proof_is_an_hmac_over_all_bytes_under_a_key_of_everything_asked() -> None:
    asked = challenge()
    parts = [
        *(b"engram-storage-proof-2", b"m" * 32, b"v" * 32, b"n" * 32, PAIRS[0][0].encode(), b"__public__"),
        *(b"r" * 32, struct.pack(">Q", 3), struct.pack(">Q", 1_700_000_000)),
    ]
    key = hashlib.sha256(b"".join(struct.pack(">I", len(part)) + part for part in parts)).digest()
    proof = hmac.new(key, EMBEDDING, hashlib.sha256).hexdigest()
    assert proofs.possession_proof(EMBEDDING, asked) == proof
    assert proofs.verify_possession(proof, EMBEDDING, asked)
    assert not proofs.verify_possession("é", EMBEDDING, asked)


@pytest.mark.parametrize(
    "change",
    [
        *({"miner": b"x" * 32}, {"validator": b"x" * 32}, {"nonce": b"x" * 32}, {"root": b"x" * 32}),
        *({"cid": PAIRS[1][0]}, {"namespace": "mine"}, {"count": 4}, {"expires_at": 1_700_000_001}),
    ],
)
def test_the_second_proof_holds_for_nothing_else(change: dict[str, object]) -> None:
    proof = proofs.possession_proof(EMBEDDING, challenge())
    assert not proofs.verify_possession(proof, EMBEDDING, challenge(**change))
    assert not proofs.verify_possession(proof, EMBEDDING[:-1] + b"\x00", challenge())


@pytest.mark.parametrize("change", [{"miner": b""}, {"root": b"x"}, {"expires_at": -1}, {"expires_at": 2**63}])
def test_a_challenge_of_a_wrong_form_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        proofs.possession_proof(EMBEDDING, challenge(**change))


def tree(count: int) -> merkle.Tree:
    return merkle.Tree(merkle.leaf(name, digest) for name, digest in PAIRS[:count])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_root_is_the_originals(count: int) -> None:
    assert tree(count).root.hex() == VECTORS[f"merkle_root_n{count}"]


def test_the_root_of_nothing_is_zeros() -> None:
    assert merkle.Tree().root == bytes(32)
    assert merkle.Tree().prove(bytes(32)) is None


def test_the_proof_is_the_originals() -> None:
    expected = VECTORS["merkle_proof_n3_first"]
    proof = tree(3).prove(merkle.leaf(*PAIRS[0]))
    assert proof is not None
    assert proof.leaf_hex == expected["leaf_hex"]
    assert [{"sibling": step.sibling, "side": step.side} for step in proof.steps] == expected["steps"]


@given(st.sets(st.binary(min_size=1, max_size=4), max_size=40), st.binary(max_size=4))
def test_every_member_of_a_tree_is_proved_and_nothing_else(members: set[bytes], other: bytes) -> None:
    leaves = [hashlib.sha256(each).digest() for each in members]
    made = merkle.Tree([*leaves, *leaves])
    assert made.root == merkle.Tree(reversed(leaves)).root
    assert len(made) == len(leaves)
    for leaf in leaves:
        proof = made.prove(leaf)
        assert proof is not None
        assert merkle.verify(proof, made.root)
    if other not in members:
        assert made.prove(hashlib.sha256(other).digest()) is None
