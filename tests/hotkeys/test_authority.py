"""Which names ask for authority, and what a table of those that are understood lets pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.hotkeys import authority


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(each.title() for each in others)


def full_width(name: str) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) if letter.isalpha() else letter for letter in name)


SPELLINGS = (
    *(str, str.upper, camel, full_width),
    lambda name: f"_{name}",
    lambda name: name.replace("_", "-"),
    lambda name: name.replace("_", "."),
    lambda name: f"{name} ",
    lambda name: f"{name}[]",
    lambda name: f"{name}\0",
    lambda name: f"{name[:2]}\u200b{name[2:]}",
    lambda name: f"X-{name}",
    lambda name: f"x_engram_{name}",
    lambda name: "_" * 200 + name,
)


@pytest.mark.parametrize("name", sorted(authority.FIELDS))
def test_every_spelling_of_a_field_of_authority_is_known(name: str) -> None:
    assert all(authority.is_authority(spell(name)) for spell in SPELLINGS)


@pytest.mark.parametrize(
    "name",
    [
        *("", "text", "metadata", "model_version", "cid", "cid_override", "nonce_hex", "validator_hotkey_hex"),
        *("user_id", "embedding_hash", "expires_at", "filter", "tier", "duration_hours", "namespaces", "x" * 10**6),
    ],
)
def test_other_fields_are_none_of_its_business(name: str) -> None:
    assert not authority.is_authority(name)


@pytest.mark.parametrize("name", ["\ufdfa" * 10**5, "x" * 200, "_" * 10**6 + "namespace", "\ufdfa", "ſ", "x", "engram"])
def test_no_name_costs_more_than_one_that_is_known(name: str) -> None:
    assert not authority.is_authority(name)
    assert not authority.is_privacy(name)


def test_what_asks_for_privacy_asks_for_authority() -> None:
    private = {name for name in authority.FIELDS if authority.is_privacy(name)}
    assert {"namespace", "namespace_key", "private", "public", "tenant"} <= private
    assert not private & {"hotkey", "nonce", "signature", "timestamp", "owner", "controller"}


@given(st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.booleans()), st.sets(st.text()))
def test_nothing_that_asks_for_authority_passes_unless_it_is_understood(
    fields: dict[str, object], understood: set[str]
) -> None:
    found = authority.misplaced(fields, frozenset(understood))
    asked = {name for name in fields if authority.is_authority(name) and authority.asks(fields, name)}
    assert (found is None) == (asked <= understood)
    assert found is None or found in asked - understood


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], None),
        (["cid", "cid"], None),
        (["namespace", "hotkey"], None),
        (["namespace", "hotkey", "namespace"], "namespace"),
        (["signed_for", "signedFor"], "signedFor"),
    ],
)
def test_a_field_of_authority_that_comes_twice_is_found(names: list[str], found: str | None) -> None:
    assert authority.repeated(names) == found
