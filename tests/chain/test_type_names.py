"""Metadata whose type names would fill the memory is refused before the codec spells them."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.chain.errors import AnswerMalformed
from engram.chain.read.codec import Codec, unwrap_metadata
from engram.chain.read.type_names import check_type_names
from tests.chain import samples
from tests.chain.samples import metadata
from tests.chain.test_upgrades import NEWER
from tests.fakes import metadata_v15

Definition = dict[str, Any]


def grown(levels: int, definition: Callable[[int], Definition], params: int = 0) -> bytes:
    """The recorded metadata and `levels` types more, each made of the one before it."""
    tree: dict[str, Any] = metadata_v15.read(metadata())
    types = tree["types"]
    for _ in range(levels):
        last = len(types) - 1
        named = [{"name": "T", "type": last}] * params
        type_ = {"path": ["A"] if params else [], "params": named, "definition": definition(last), "docs": []}
        types.append({"id": last + 1, "type": type_})
    return metadata_v15.write(tree)


@pytest.mark.parametrize("honest", [metadata(), NEWER], ids=["recorded", "newer"])
def test_the_types_of_a_runtime_pass(honest: bytes) -> None:
    check_type_names(unwrap_metadata(honest))


def test_types_that_contain_each_other_by_their_fields_are_not_spelled_by_them() -> None:
    field: Definition = {"name": None, "type_name": None, "docs": []}
    codec = Codec(grown(60, lambda last: {"composite": [{**field, "type": last}, {**field, "type": last}]}), 293, 1)
    assert codec.decode_fields(samples.scale()) == Codec(metadata(), 293, 1).decode_fields(samples.scale())


@pytest.mark.parametrize(
    ("levels", "definition", "params"),
    [
        (20, lambda last: {"tuple": [last, last]}, 0),
        (20, lambda last: {"composite": []}, 2),
        (2_000, lambda last: {"sequence": last}, 0),
        (2_000, lambda last: {"compact": last}, 0),
        (2_000, lambda last: {"array": {"length": 1, "type": last}}, 0),
    ],
    ids=["tuples", "parameters", "sequences", "compacts", "arrays"],
)
def test_names_that_grow_without_measure_are_refused(
    levels: int, definition: Callable[[int], Definition], params: int
) -> None:
    with pytest.raises(AnswerMalformed, match="names of its types have more than"):
        Codec(grown(levels, definition, params), 293, 1)


def test_a_type_that_is_spelled_by_itself_is_refused() -> None:
    with pytest.raises(AnswerMalformed, match="is spelled by itself"):
        Codec(grown(1, lambda last: {"tuple": [last + 1, 0]}), 293, 1)


@given(cut=st.integers(0, 200_000))
def test_types_that_are_cut_off_are_refused(cut: int) -> None:
    whole = unwrap_metadata(metadata())
    with pytest.raises(AnswerMalformed):
        check_type_names(whole[: 5 + cut % 60_000])


@given(st.binary(max_size=200))
def test_whatever_follows_the_head_is_read_or_refused(octets: bytes) -> None:
    with contextlib.suppress(AnswerMalformed):
        check_type_names(b"meta\x0f" + octets)
