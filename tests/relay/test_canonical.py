"""Canonical JSON has the bytes of `json.dumps`, however it is written."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.relay.canonical import canonical_json

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.floats(-1e-3, 1e-3)
    | st.text()
    | st.text(st.characters(codec="ascii"))
    | st.from_regex(r"[:,\[]?-?[0-9]{1,3}(\.[0-9]{1,3})?e[0-9]{1,2}", fullmatch=True)
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def by_python(document: Any) -> bytes | type[Exception]:
    try:
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    except ValueError:
        return ValueError


def ours(document: Any) -> bytes | type[Exception]:
    try:
        return canonical_json(document)
    except ValueError:
        return ValueError


@given(DOCUMENTS)
def test_the_bytes_are_those_of_json_dumps(document: Any) -> None:
    assert ours(document) == by_python(document)


@given(st.floats())
def test_every_float_is_written_as_python_writes_it(value: float) -> None:
    for document in (value, [value], {"x": value}, [1, -value], {"a": [value, None]}):
        assert ours(document) == by_python(document)


@pytest.mark.parametrize(
    "document",
    [
        1e16,
        [1e16],
        {"x": -1e-7},
        {"x": 0.00005},
        {"x": 5e-324},
        {"x": 1.7976931348623157e308},
        {"x": float("nan")},
        {"x": None, "y": [(float("inf"),)]},
        {"x": None, "y": {"z": 1.5}},
        {"x": "1e5", "y": "a:1e5", "z": [",2e-7"]},
        {"\x7f": 1},
        {"x": "\ud800"},
        {"x": "é"},
        2**70,
        -(2**70),
        {"ä": 1, "z": 2, "\U0001f600": 3, "￿": 4},
    ],
)
def test_where_the_two_writers_differ(document: Any) -> None:
    assert ours(document) == by_python(document)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError):
        canonical_json({"x": object()})


def test_most_payloads_are_not_written_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("json.dumps was called")

    monkeypatch.setattr(json, "dumps", refuse)
    document = {"hash": "3e5f" * 16, "scores": {"0": {"recall": 0.95, "latency_ms": None, "proof_rate": 1.0}}}
    assert msgspec.json.decode(canonical_json(document)) == document
