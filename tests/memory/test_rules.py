"""What may be stored and searched for."""

import base64
import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.memory import cid, filters, rules
from engram.memory.errors import InvalidInput, InvalidRequest
from engram.memory.model import PUBLIC

pytestmark = pytest.mark.rules

LIMITS = rules.RecordLimits(dimension=3, max_text_chars=10, max_metadata_bytes=60)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("body", [{}, {"text": ""}, {"text": None, "raw_embedding": []}, {"metadata": {"a": "1"}}])
def test_nothing_to_store_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="Nothing to store"):
        rules.check_ingest(body, LIMITS)


@pytest.mark.parametrize(
    "body",
    [
        {"text": 5},
        {"raw_embedding": "abc"},
        {"raw_embedding": [1, "2", 3]},
        {"raw_embedding": [True, 2, 3]},
        {"text": "a", "metadata": []},
        {"text": "a", "model_version": 1},
    ],
)
def test_a_field_of_the_wrong_type_is_malformed(body: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        rules.check_ingest(body, LIMITS)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"text": "   "}, "empty"),
        ({"text": "a" * 11}, "11 characters, over the limit of 10"),
        ({"text": "\ud800"}, "surrogate"),
        ({"raw_embedding": [1, 2]}, "2 dimensions, this node takes exactly 3"),
        ({"raw_embedding": [1, 2, 1e39]}, "fit 32-bit"),
        ({"raw_embedding": [1, 2, 10**400]}, "fit 32-bit"),
        ({"raw_embedding": [1, 2, math.inf]}, "finite"),
        ({"raw_embedding": [math.nan, 2, 3]}, "finite"),
        ({"raw_embedding": [0, 0.0, -0.0]}, "no direction"),
        ({"raw_embedding": [0, 1e-300, 0]}, "no direction"),
        ({"text": "a", "metadata": {"k": "v" * 60}}, "over the limit of 60"),
        ({"text": "a", "metadata": {"k": "v" * 241}}, "far over the limit of 60"),
        ({"text": "a", "metadata": {"k": 16**999}}, "far over the limit of 60"),
        ({"text": "a", "metadata": {"k": [{}] * 241}}, "far over the limit of 60"),
        ({"raw_embedding": ["a"] * 4}, "4 dimensions, this node takes exactly 3"),
        ({"raw_embedding_b64": "A" * 28}, "too long"),
        ({"text": "a", "metadata": {"\ud800": "v"}}, "surrogate"),
        ({"text": "a", "metadata": {"k": "\udfff"}}, "surrogate"),
        ({"text": "a", "model_version": "v" * 65}, "model_version"),
        ({"text": "a", "model_version": "\udfff"}, "surrogate"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_the_reason(body: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        rules.check_ingest(body, LIMITS)


def test_metadata_nested_too_deep_is_refused() -> None:
    nested: object = "x"
    for _ in range(rules.MAX_METADATA_DEPTH):
        nested = [nested]
    with pytest.raises(InvalidInput, match="nested"):
        rules.normalise_metadata({"k": nested}, 1_000)
    assert rules.normalise_metadata({"k": [{"a": [1]}]}, 1_000) == {"k": "[{'a': [1]}]"}


def test_metadata_is_written_as_python_writes_it() -> None:
    given_metadata = {"b": 2, "c": True, "d": None, "e": 1e-7, "f": 1.0, "g": [1, "x"], "h": {"i": 1}}
    expected = {"b": "2", "c": "True", "d": "None", "e": "1e-07", "f": "1.0", "g": "[1, 'x']", "h": "{'i': 1}"}
    assert rules.normalise_metadata(given_metadata, 4_096) == expected


def test_the_size_of_metadata_is_that_of_pythons_json() -> None:
    metadata = {"é": "é", "n": 1}
    size = len(json.dumps(metadata))
    assert rules.normalise_metadata(metadata, size)
    with pytest.raises(InvalidInput):
        rules.normalise_metadata(metadata, size - 1)


def test_a_text_may_come_with_a_vector() -> None:
    checked = rules.check_ingest({"text": "a", "raw_embedding": [1, 2.5, -3]}, LIMITS)
    assert checked == rules.IngestInput("a", struct.pack("<3f", 1, 2.5, -3), {}, "v1")
    assert rules.check_ingest({"text": "a", "model_version": "v7"}, LIMITS).model_version == "v7"


def test_a_vector_whose_numbers_cancel_each_other_has_a_direction() -> None:
    packed = struct.pack("<3f", 1.5, -2.0, 0.5)
    assert rules.check_vector(packed, "v") == packed


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_a_vector_is_kept_bit_for_bit(numbers: list[float]) -> None:
    if math.hypot(*numbers) < rules.SMALLEST_NORM or not math.isfinite(math.hypot(*numbers)):
        return
    assert list(rules.unpack_vector(rules.pack_vector(numbers, 3, "v"))) == numbers


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_whatever_json_is_sent_as_metadata_is_normalised_or_refused(metadata: dict[str, object]) -> None:
    try:
        normalised = rules.normalise_metadata(metadata, 4_096)
    except InvalidInput:
        return
    assert rules.normalise_metadata(normalised, 65_536) == normalised
    assert cid.is_cid(cid.compute(b"", normalised))


@given(json_values)
def test_whatever_json_is_sent_is_checked_or_refused(body: object) -> None:
    for check in (
        lambda fields: rules.check_ingest(fields, LIMITS),
        lambda fields: rules.check_query(fields, LIMITS),
        rules.check_list,
    ):
        for field in ("text", "raw_embedding", "metadata", "query_text", "query_vector", "top_k", "limit", "filter"):
            try:
                check({field: body})
            except (InvalidInput, InvalidRequest):
                continue


@pytest.mark.parametrize(
    ("asked", "given_back"), [({}, 10), ({"top_k": 0}, 10), ({"top_k": 100}, 100), ({"top_k": None}, 10)]
)
def test_top_k_has_a_default_and_a_limit(asked: dict[str, object], given_back: int) -> None:
    assert rules.check_query({"query_text": "a", **asked}, LIMITS).top_k == given_back


@pytest.mark.parametrize("top_k", [-1, 101])
def test_top_k_out_of_bounds_is_refused(top_k: int) -> None:
    with pytest.raises(InvalidInput, match="top_k"):
        rules.check_query({"query_text": "a", "top_k": top_k}, LIMITS)


@pytest.mark.parametrize("top_k", ["5", 5.0, True])
def test_top_k_of_a_wrong_type_is_malformed(top_k: object) -> None:
    with pytest.raises(InvalidRequest, match="top_k"):
        rules.check_query({"query_text": "a", "top_k": top_k}, LIMITS)


def test_a_search_is_by_vector_or_by_text() -> None:
    by_vector = rules.check_query({"query_vector": [1, 0, 0], "query_text": "ignored", "filter": {"k": 1}}, LIMITS)
    assert by_vector == rules.QueryInput(None, struct.pack("<3f", 1, 0, 0), 10, filters.parse({"k": 1}))
    assert rules.check_query({"query_text": "what"}, LIMITS).text == "what"
    with pytest.raises(InvalidInput, match="Nothing to search for"):
        rules.check_query({"query_vector": []}, LIMITS)


def test_a_filter_of_too_many_keys_is_malformed() -> None:
    with pytest.raises(InvalidRequest, match="filter"):
        rules.check_list({"filter": {str(i): "x" for i in range(17)}})


@pytest.mark.parametrize(
    ("body", "limit", "offset"),
    [({}, 50, 0), ({"limit": 0}, 50, 0), ({"limit": 1_000, "offset": 7}, 200, 7), ({"limit": 3}, 3, 0)],
)
def test_a_page_has_a_default_and_a_limit(body: dict[str, object], limit: int, offset: int) -> None:
    assert rules.check_list(body) == rules.ListInput(filters.EVERYTHING, limit, offset)


@pytest.mark.parametrize("body", [{"limit": -1}, {"offset": -1}, {"offset": 2**60}, {"limit": "x"}])
def test_an_impossible_page_is_malformed(body: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        rules.check_list(body)


@pytest.mark.parametrize("name", ["my_ns", "größe", PUBLIC, "a" * 128])
def test_names_of_namespaces_are_identifiers(name: str) -> None:
    assert rules.check_namespace(name) == name


@pytest.mark.parametrize("name", ["my-ns", "", "1a", "a b", "a" * 129, "a.b"])
def test_other_names_of_namespaces_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="Invalid namespace name"):
        rules.check_namespace(name)


def b64(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def test_a_vector_may_come_as_the_base64_of_its_bytes() -> None:
    limits = rules.RecordLimits(2)
    plain = rules.check_ingest({"raw_embedding": [0.5, 1.0]}, limits)
    assert rules.check_ingest({"raw_embedding_b64": b64(0.5, 1.0)}, limits) == plain
    assert rules.check_query({"query_vector_b64": b64(0.5, 1.0)}, limits).embedding == plain.embedding


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"raw_embedding_b64": "?"}, InvalidRequest),
        ({"raw_embedding_b64": 5}, InvalidRequest),
        ({"raw_embedding_b64": "é"}, InvalidRequest),
        ({"raw_embedding_b64": b64(1.0, 2.0), "raw_embedding": [1.0, 2.0]}, InvalidRequest),
        ({"raw_embedding_b64": b64(1.0)}, InvalidInput),
        ({"raw_embedding_b64": b64(0.0, 0.0)}, InvalidInput),
        ({"raw_embedding_b64": b64(1.0, float("nan"))}, InvalidInput),
        ({"raw_embedding_b64": b64(1.0, float("inf"))}, InvalidInput),
    ],
)
def test_a_vector_that_is_none_is_refused(fields: dict[str, object], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        rules.check_item(fields, rules.RecordLimits(2))


def test_a_batch_has_a_bounded_number_of_objects() -> None:
    assert rules.check_batch({"items": [1] * 256}) == [1] * 256
    refused: list[dict[str, object]] = [{}, {"items": []}, {"items": [1] * 257}, {"items": {}}]
    for fields in refused:
        with pytest.raises(InvalidRequest, match="items"):
            rules.check_batch(fields)
    with pytest.raises(InvalidRequest, match="object"):
        rules.check_item("text", rules.RecordLimits(2))


@pytest.mark.parametrize("expires_at", [True, "tomorrow", [1]])
def test_an_expiry_that_is_no_number_is_refused(expires_at: object) -> None:
    with pytest.raises(InvalidRequest, match="expires_at must be a number"):
        rules.check_ingest({"text": "a", "expires_at": expires_at}, LIMITS)


@pytest.mark.parametrize("expires_at", [1, 1_700_000_000, 1_700_000_000.5])
def test_an_expiry_is_read_as_unix_seconds(expires_at: float) -> None:
    assert rules.check_validity({"expires_at": expires_at}).expires_at == expires_at


@pytest.mark.parametrize("expires_at", [0, -1.5, 1_700_000_000_000])
def test_an_expiry_that_cannot_be_unix_seconds_is_refused(expires_at: float) -> None:
    with pytest.raises(InvalidInput, match="expires_at must be unix seconds"):
        rules.check_ingest({"text": "a", "expires_at": expires_at}, LIMITS)


def test_a_key_longer_than_its_limit_is_refused_with_its_length() -> None:
    assert rules.check_key("k" * rules.MAX_KEY_CHARS) == "k" * rules.MAX_KEY_CHARS
    with pytest.raises(InvalidInput, match=f"key has {rules.MAX_KEY_CHARS + 1:,} characters"):
        rules.check_key("k" * (rules.MAX_KEY_CHARS + 1))
