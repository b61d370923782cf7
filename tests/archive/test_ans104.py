"""Data items and bundles against those that another implementation made, and against what it overlooks."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.archive.ans104 import make, parse
from engram.archive.bundles import bundle, unbundle
from engram.archive.errors import MalformedItem
from engram.archive.item_keys import SCHEMES, Ed25519Key, EthereumKey

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data/arweave/ans104.json").read_text())
KEYS: dict[str, EthereumKey | Ed25519Key] = {
    "ethereum": EthereumKey(bytes.fromhex(VECTORS["keys"]["ethereum"]["private_hex"])),
    "ed25519": Ed25519Key(bytes.fromhex(VECTORS["keys"]["ed25519"]["seed_hex"])),
}
VALID = VECTORS["valid"]
TAGS = [("Content-Type", "application/octet-stream"), ("App-Name", "Engram")]


def content(text: str) -> bytes:
    if not text.startswith("seed:"):
        return base64.b64decode(text)
    _, name, size = text.split(":")
    blocks = (hashlib.sha256(name.encode() + at.to_bytes(4, "big")).digest() for at in range(int(size) // 32 + 1))
    return b"".join(blocks)[: int(size)]


def named(each: dict[str, Any]) -> str:
    return f"{each['name']} ({each['signer']})"


def padded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=")


def made(vector: dict[str, Any]) -> bytes:
    target = vector["target"] and padded(vector["target"])
    anchor = vector["anchor"] and vector["anchor"].encode()
    tags = [(name, value) for name, value in vector["tags"]]
    return make(KEYS[vector["signer"]], content(vector["data"]), tags, target, anchor)


def test_the_keys_are_those_of_the_vectors() -> None:
    for name, key in KEYS.items():
        assert key.owner.hex() == VECTORS["keys"][name]["owner_hex"]


@pytest.mark.parametrize("vector", VALID, ids=named)
def test_an_item_is_made_byte_for_byte_as_another_implementation_makes_it(vector: dict[str, Any]) -> None:
    raw = made(vector)
    assert len(raw) == vector["item_size"]
    assert hashlib.sha256(raw).hexdigest() == vector["item_sha256"]


@pytest.mark.parametrize("vector", VALID, ids=named)
def test_an_item_is_read_as_it_was_made(vector: dict[str, Any]) -> None:
    raw = base64.b64decode(vector["item"]) if vector.get("item") else made(vector)
    item = parse(raw, SCHEMES)
    assert item.id == vector["id"]
    assert item.data == content(vector["data"])
    assert [list(tag) for tag in item.tags] == vector["tags"]
    assert item.target == (vector["target"] and padded(vector["target"]))
    assert item.anchor == (vector["anchor"] and vector["anchor"].encode())


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda each: each["name"])
def test_what_is_wrong_with_an_item_is_said_by_name(vector: dict[str, Any]) -> None:
    with pytest.raises(MalformedItem) as refused:
        if "bundle" in vector:
            unbundle(base64.b64decode(vector["bundle"] or vector["item"]), SCHEMES)
        else:
            parse(base64.b64decode(vector["item"]), SCHEMES)
    assert refused.value.reason == vector["refused_as"]


@pytest.mark.parametrize("vector", VECTORS["lenient"], ids=lambda each: each["name"])
def test_an_empty_array_of_tags_is_read_and_never_written(vector: dict[str, Any]) -> None:
    raw = base64.b64decode(vector["item"])
    item = parse(raw, SCHEMES)
    assert (item.id, item.tags) == (vector["id"], ())
    assert make(KEYS["ethereum"], item.data) != raw


def test_bundles_are_laid_together_and_read_as_another_implementation_does() -> None:
    five, none, nested = VECTORS["bundles"]
    raw = base64.b64decode(five["bundle"])
    items = unbundle(raw, SCHEMES)
    assert [item.id for item in items] == five["ids"]
    at, parts = 32 + 64 * len(items), []
    for size in five["sizes"]:
        parts.append(raw[at : at + size])
        at += size
    assert bundle(parts, SCHEMES) == raw
    assert bundle([], SCHEMES) == base64.b64decode(none["bundle"])
    assert unbundle(base64.b64decode(none["bundle"]), SCHEMES) == []
    whole = [make(key, raw, [("Bundle-Format", "binary"), ("Bundle-Version", "2.0.0")]) for key in KEYS.values()]
    assert nested["id"] in {parse(each, SCHEMES).id for each in whole}


@pytest.mark.parametrize("count", [1, 2**255])
def test_a_count_is_not_believed_where_its_header_does_not_fit(count: int) -> None:
    with pytest.raises(MalformedItem, match="truncated"):
        unbundle(count.to_bytes(32, "little"), SCHEMES)
    with pytest.raises(MalformedItem, match="truncated"):
        unbundle(b"\0" * 31, SCHEMES)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"tags": [("n", "v")] * 129}, "129 tags; an item has at most 128"),
        ({"tags": [("", "v")]}, "0 bytes; allowed are 1 to 1024"),
        ({"tags": [("n", "v" * 3_073)]}, "3073 bytes; allowed are 1 to 3072"),
        ({"tags": [("n", "v" * 3_000)] * 2}, "an item has room for 4096"),
        ({"target": b"short"}, "target has 5 bytes; it must have 32"),
        ({"anchor": b"x" * 33}, "anchor has 33 bytes; it must have 32"),
    ],
)
def test_what_no_reader_would_take_is_not_made(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make(KEYS["ed25519"], b"x", **wrong)


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (b"\x02\x82\x00n\x02v\x00", "tag length"),  # a length in more bytes than it needs
        (b"\x01\x02n\x02v\x00", "tag length"),  # a negative count
        (b"\x02" + b"\xff" * 6 + b"\x00", "tag length"),
        (b"\x02\x02\xff\x02v\x00", "tag text that is not UTF-8"),
        (b"\x02\x02n\x02v\x02\x02n\x02v\x00", "tag count"),  # a second block
    ],
)
def test_tags_have_one_way_to_be_written(packed: bytes, reason: str) -> None:
    plain = make(KEYS["ed25519"], b"", [("n", "v")])
    at = 2 + 64 + 32 + 2
    spoilt = plain[:at] + (1).to_bytes(8, "little") + len(packed).to_bytes(8, "little") + packed
    with pytest.raises(MalformedItem) as refused:
        parse(spoilt, SCHEMES)
    assert refused.value.reason == reason


def test_an_owner_of_which_no_key_can_be_recovered_signed_nothing() -> None:
    raw = bytearray(make(KEYS["ethereum"], b"x"))
    raw[2:34] = b"\xff" * 32
    with pytest.raises(MalformedItem, match="signature"):
        parse(bytes(raw), SCHEMES)
    raw[2:34] = bytes(31) + b"\x05"  # the x of no point of the curve
    with pytest.raises(MalformedItem, match="signature"):
        parse(bytes(raw), SCHEMES)


def test_the_address_that_pays_is_the_keys_own() -> None:
    key = EthereumKey(bytes.fromhex("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"))
    assert key.address.hex() == "70997970c51812dc3a010c7d01b50e0d17dc79c8"


@given(raw=st.binary(max_size=400), at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_bytes_do_more_than_be_refused(raw: bytes, at: int, bit: int) -> None:
    for parser in (parse, unbundle):
        with pytest.raises(MalformedItem):
            parser(raw + b"\0", SCHEMES)
    item = bytearray(make(KEYS["ed25519"], b"data", TAGS, b"t" * 32, b"a" * 32))
    item[at % len(item)] ^= 1 << bit
    with pytest.raises(MalformedItem):
        parse(bytes(item), SCHEMES)
