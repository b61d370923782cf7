import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.hotkeys import AuthError, Keypair, verify
from engram.hotkeys.miner_scheme import (
    NAMESPACE_FIELDS,
    SIGNING_FIELDS,
    is_signed,
    sign_attestation,
    sign_body,
    sign_namespace,
    sign_namespace_request,
    verify_attestation,
    verify_body,
    verify_namespace,
    verify_namespace_request,
)
from engram.hotkeys.python_json import (
    JsonObject,
    JsonValue,
    MalformedJson,
    ReadObject,
    canonical,
    canonical_forms,
    parse_object,
)
from engram.hotkeys.scheme import SignedRequest

NOW = 1_712_345_678_123
ALICE = Keypair.from_uri("//Alice")
BOB = Keypair.from_uri("//Bob")
VECTOR = json.loads((Path(__file__).parent / "data" / "miner_body.json").read_bytes())


def signed_text(text: str, signed_form: str, nonce: int = NOW, endpoint: str = "QuerySynapse") -> bytes:
    """A body whose signature was made over `signed_form` by a foreign signer."""
    digest = hashlib.sha256(signed_form.encode()).hexdigest()
    signature = ALICE.sign(f"{nonce}:{endpoint}:{digest}".encode()).hex()
    return text[:-1].encode() + f',"hotkey":"{ALICE.ss58}","nonce":{nonce},"signature":"{signature}"}}'.encode()


def code(body: bytes, endpoint: str = "QuerySynapse", now_ms: int = NOW, not_before_ms: int = 0) -> str:
    with pytest.raises(AuthError) as refused:
        verify_body(body, endpoint, now_ms, not_before_ms)
    return refused.value.code


def test_the_canonical_form_and_message_are_the_originals() -> None:
    fields: JsonObject = {"query_vector": [0.1, 1.0, 1e-7], "top_k": 10, "t": "é"}
    assert canonical(fields).decode() == VECTOR["auth_payload_json"]
    body = sign_body(ALICE, "QuerySynapse", fields, NOW)
    signature = bytes.fromhex(str(body["signature"])[2:])
    assert verify(ALICE.public_key, VECTOR["auth_canonical"].encode(), signature)


def test_a_signed_body_is_its_signers_whatever_its_spacing_and_order() -> None:
    body = sign_body(ALICE, "IngestSynapse", {"text": "ümlaut 😀", "metadata": {"b": 1, "a": {"z": None}}}, NOW)
    for content in (json.dumps(body), json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False)):
        believed = verify_body(content.encode(), "IngestSynapse", NOW)
        assert believed.request.public_key == ALICE.public_key
        assert believed.fields["metadata"] == {"b": 1, "a": {"z": None}}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_any_body_signed_in_python_is_believed(fields: JsonObject) -> None:
    body = sign_body(ALICE, "IngestSynapse", fields, NOW)
    assert verify_body(json.dumps(body).encode(), "IngestSynapse", NOW).request.timestamp_ms == NOW


def test_numbers_may_be_signed_as_they_were_spelled() -> None:
    text = '{"v":[1e-7,1.0,0.10,-0,1E5,12345678901234567890123],"t":true,"n":null,"f":false,"s":"\\u00e9"}'
    spelled = '{"f":false,"n":null,"s":"\\u00e9","t":true,"v":[1e-7,1.0,0.10,-0,1E5,12345678901234567890123]}'
    as_python = '{"f":false,"n":null,"s":"\\u00e9","t":true,"v":[1e-07,1.0,0.1,0,100000.0,12345678901234567890123]}'
    assert verify_body(signed_text(text, spelled), "QuerySynapse", NOW).request.version == 1
    assert verify_body(signed_text(text, as_python), "QuerySynapse", NOW).request.version == 1
    assert code(signed_text(text, spelled.replace("0.10", "0.11"))) == "bad_signature"


def test_one_form_is_enough_when_python_spells_the_same() -> None:
    assert list(canonical_forms(b'{"b":[1,2.5],"a":0}', without=frozenset())) == [b'{"a":0,"b":[1,2.5]}']


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"5",
        b'{"a":1,"a":2}',
        b'{"x":{"a":1,"a":1}}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":1E+0400}',
        b'{"a":' + b"1" * 290 + b"e99}",
        b'{"a":-' + b"9" * 240 + b".5E+70}",
        b'{"a":01}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"\xff"}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"a":1} trailing',
    ],
)
def test_a_body_that_two_readers_could_read_differently_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedJson):
        parse_object(content)
    with pytest.raises(MalformedJson):
        list(canonical_forms(content, without=frozenset()))
    assert code(content) == "malformed"


def test_the_largest_doubles_are_numbers() -> None:
    text = b'{"a":[' + b"1" * 209 + b"e99,1.7976931348623157e+308,-0.0,1e-400]}"
    assert parse_object(text)["a"] == [float(b"1" * 209 + b"e99"), 1.7976931348623157e308, -0.0, 0.0]


def test_numbers_are_kept_as_they_were_spelled_and_strings_as_they_are() -> None:
    content = '{"1.50":"1.50","a":[1.50,"\u00e9",[2E5,true,null]],"b":{"c":-0}}'
    as_python, as_spelled = canonical_forms(content.encode(), without=frozenset())
    assert as_python == b'{"1.50":"1.50","a":[1.5,"\\u00e9",[200000.0,true,null]],"b":{"c":0}}'
    assert as_spelled == b'{"1.50":"1.50","a":[1.50,"\\u00e9",[2E5,true,null]],"b":{"c":-0}}'


def test_a_long_list_is_written_like_a_short_one() -> None:
    numbers = [number / 8 for number in range(10_000)]
    text = json.dumps({"a": numbers, "b": 1}, separators=(",", ":")).encode()
    assert list(canonical_forms(text, without=frozenset())) == [text]


def test_long_lists_are_written_alike_however_deep_they_lie() -> None:
    numbers: list[JsonValue] = [number / 8 for number in range(5_000)]
    fields: JsonObject = {"items": [{"m": {"v": numbers}}, 1, [numbers, {}, []], numbers, "x" * 5_000], "z": [None, {}]}
    assert canonical(fields) == json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def test_a_large_body_keeps_its_numbers_as_they_were_spelled() -> None:
    spelled = ",".join(f'{number}.50,1E{number % 300},"{number},.50"' for number in range(20_000))
    content = f'{{"a":[{spelled}],"b":-0}}'.encode()
    *_, as_spelled = canonical_forms(content, without=frozenset())
    assert as_spelled == content
    values = parse_object(content)["a"]
    assert isinstance(values, list)
    assert values[:3] == [0.5, 1.0, "0,.50"]
    with pytest.raises(MalformedJson, match="too large"):
        parse_object(content.replace(b"-0", b"1e999"))


@pytest.mark.parametrize(
    ("value", "amount", "what"), [(b"[]", 300_000, "262144 arrays"), (b"1", 1_100_000, "1048576 values")]
)
def test_a_body_of_more_than_can_be_read_at_once_is_refused(value: bytes, amount: int, what: str) -> None:
    with pytest.raises(MalformedJson, match=f"more than {what}"):
        parse_object(b'{"a":[' + b",".join([value] * amount) + b"]}")


@pytest.mark.parametrize(("depth", "taken"), [(20, True), (63, True), (64, False), (400, False), (900, False)])
def test_nesting_has_a_bound_that_is_the_same_everywhere(depth: int, taken: bool) -> None:
    text = '{"a":' + "[" * depth + "1.50" + "]" * depth + "}"
    if taken:
        assert verify_body(signed_text(text, text), "QuerySynapse", NOW).request.timestamp_ms == NOW
    else:
        assert code(signed_text(text, text)) == "malformed"


def test_width_is_no_depth() -> None:
    assert parse_object(b'{"a":[' + b",".join([b"[]"] * 100) + b"]}")["a"] == [[]] * 100


def test_a_signature_binds_endpoint_nonce_and_every_field() -> None:
    body = sign_body(ALICE, "QuerySynapse", {"top_k": 3, "namespace": "mine"}, NOW)
    assert code(json.dumps(body).encode(), endpoint="IngestSynapse") == "bad_signature"
    assert code(json.dumps(body | {"nonce": NOW + 1}).encode()) == "bad_signature"
    assert code(json.dumps(body | {"namespace": "yours"}).encode()) == "bad_signature"
    assert code(json.dumps(body | {"hotkey": Keypair.from_uri("//Bob").ss58}).encode()) == "bad_signature"


@pytest.mark.parametrize("offset_ms", [-30_000, 30_000])
def test_the_nonce_window_includes_its_bounds(offset_ms: int) -> None:
    body = json.dumps(sign_body(ALICE, "QuerySynapse", {}, NOW + offset_ms)).encode()
    assert verify_body(body, "QuerySynapse", NOW).request.skew_ms == offset_ms
    assert code(body, now_ms=NOW - 1 if offset_ms > 0 else NOW + 1) == ("future" if offset_ms > 0 else "stale")


def test_a_body_from_before_the_start_is_refused() -> None:
    body = json.dumps(sign_body(ALICE, "QuerySynapse", {}, NOW - 5)).encode()
    assert code(body, not_before_ms=NOW) == "before_start"


@pytest.mark.parametrize("name", sorted(SIGNING_FIELDS))
@pytest.mark.parametrize("value", ["absent", None, ""])
def test_a_missing_signing_field_is_refused(name: str, value: str | None) -> None:
    body = sign_body(ALICE, "QuerySynapse", {}, NOW)
    if value == "absent":
        del body[name]
    else:
        body[name] = value
    assert code(json.dumps(body).encode()) == "missing_header"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nonce", "1712345678123"),
        ("nonce", 1712345678123.0),
        ("nonce", True),
        ("nonce", -1),
        ("nonce", 10**400),
        ("signature", 5),
        ("signature", "0xab"),
        ("hotkey", 7),
        ("hotkey", ["x"]),
        ("hotkey", ALICE.public_key.hex()),
    ],
)
def test_a_malformed_signing_field_is_refused(name: str, value: object) -> None:
    body: dict[str, object] = {**sign_body(ALICE, "QuerySynapse", {}, NOW), name: value}
    assert code(json.dumps(body).encode()) == "malformed"


def test_a_body_with_any_signing_field_counts_as_signed() -> None:
    assert is_signed({"hotkey": "x"})
    assert is_signed({"nonce": 1})
    assert is_signed({"signature": ""})
    assert not is_signed({"text": "x", "hotkey": None})


def test_a_namespace_signature_names_its_owner() -> None:
    fields = sign_namespace(ALICE, "my-ns", NOW)
    assert set(fields) > NAMESPACE_FIELDS
    assert verify_namespace(fields, NOW + 60_000).public_key == ALICE.public_key
    for changed, expected in (
        ({"namespace": "other"}, "bad_signature"),
        ({"namespace": ""}, "malformed"),
        ({"namespace": "\ud800"}, "malformed"),
        ({"namespace_sig": None}, "missing_header"),
        ({"namespace_timestamp_ms": NOW - 60_001}, "stale"),
    ):
        with pytest.raises(AuthError) as refused:
            verify_namespace({**fields, **changed}, NOW)
        assert refused.value.code == expected


def test_an_attestation_is_no_namespace_signature() -> None:
    fields = sign_attestation(ALICE, "my-ns", NOW)
    assert verify_attestation(fields, NOW).public_key == ALICE.public_key
    moved: JsonObject = {
        "namespace": "my-ns",
        "namespace_hotkey": fields["owner_hotkey"],
        "namespace_sig": fields["signature"],
        "namespace_timestamp_ms": fields["timestamp_ms"],
    }
    with pytest.raises(AuthError):
        verify_namespace(moved, NOW)


def test_a_namespace_signature_of_version_2_holds_for_its_request_alone() -> None:
    fields = sign_namespace_request(ALICE, "QuerySynapse", "mine", {"top_k": 3, "query_vector": [1e-7]}, NOW)

    def verified(changed: JsonObject, endpoint: str = "QuerySynapse", now_ms: int = NOW + 60_000) -> SignedRequest:
        return verify_namespace_request(ReadObject(canonical(fields | changed)), endpoint, now_ms)

    assert verified({}).public_key == ALICE.public_key
    assert verified({"hotkey": "added afterwards", "nonce": 1, "signature": "x"}).version == 2
    changes: list[JsonObject] = [
        {"namespace": "other"},
        {"namespace": ""},
        {"namespace": "\ud800"},
        {"top_k": 4},
        {"signed_for": BOB.ss58},
        {"namespace_timestamp_ms": NOW + 1},
        {"namespace_hotkey": BOB.ss58},
        {"more": True},
    ]
    for changed in changes:
        with pytest.raises(AuthError):
            verified(changed)
    with pytest.raises(AuthError):
        verified({}, "IngestSynapse")
    with pytest.raises(AuthError):
        verified({}, now_ms=NOW + 60_001)
    with pytest.raises(AuthError):
        verify_namespace(fields, NOW)
    spelled = canonical(fields).replace(b"1e-07", b"1e-7")
    assert verify_namespace_request(ReadObject(spelled), "QuerySynapse", NOW).public_key == ALICE.public_key


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=12,
        ),
    )
)
def test_the_canonical_form_is_pythons_own(fields: JsonObject) -> None:
    assert canonical(fields) == json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
