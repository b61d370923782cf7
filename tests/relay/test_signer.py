import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.hotkeys import Keypair
from engram.relay import PayloadSigner, is_signed
from engram.relay.canonical import canonical_json
from tests.relay.samples import KEYPAIR, SIGNER, payload


def signed() -> dict[str, object]:
    document: dict[str, object] = json.loads(SIGNER.sign(msgspec.json.encode(payload(1))).body)
    return document


def test_a_signed_payload_is_verified_by_the_hotkey_it_names() -> None:
    document = signed()
    assert is_signed(document)
    assert document["validator_hotkey"] == KEYPAIR.ss58
    assert list(document)[-3:] == ["validator_hotkey", "signature", "signed_hash"]


@pytest.mark.parametrize("field", ["netuid", "block", "round_ts", "output_hash", "nonce", "nodes", "kind"])
def test_no_field_can_be_changed(field: str) -> None:
    assert not is_signed({**signed(), field: "other"})


@pytest.mark.parametrize(
    "change",
    [
        {"signature": None},
        {"signature": "0x12"},
        {"signature": "zz"},
        {"validator_hotkey": 5},
        {"validator_hotkey": "5FakeHotkey"},
        {"validator_hotkey": Keypair.from_seed(bytes(32)).ss58},
        {"signed_hash": "00" * 32},
        {"signed_hash": None},
        {"block": float("nan")},
        {"block": b"bytes"},
        {"extra": 1},
    ],
)
def test_what_does_not_fit_is_not_signed(change: dict[str, object]) -> None:
    assert not is_signed({**signed(), **change})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(JSON)
def test_signing_keeps_every_number_and_text(value: object) -> None:
    document = {"schema_version": "engram-v1", "value": value}
    body = json.loads(SIGNER.sign(json.dumps(document).encode()).body)
    assert canonical_json(body["value"]) == canonical_json(value)
    assert is_signed(body)


def test_the_signer_shows_no_key() -> None:
    assert KEYPAIR.private_key().hex() not in repr(PayloadSigner.of(KEYPAIR))


def test_a_signature_follows_the_payload_s_own_bytes() -> None:
    content = b'{"b": 1.50, "a": "\\u00e9"} \n'
    body = SIGNER.sign(content).body
    assert body.startswith(b'{"b": 1.50, "a": "\\u00e9","validator_hotkey":')
    assert is_signed(json.loads(body))
    assert is_signed(json.loads(SIGNER.sign(b"{}").body))


def test_a_signed_payload_is_not_signed_again() -> None:
    with pytest.raises(ValueError, match="signed already"):
        SIGNER.sign(SIGNER.sign(msgspec.json.encode(payload(1))).body)
