"""The verifier core takes schemes as tables: Epistula version 2 is one more table."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from engram.hotkeys import AuthError, Keypair, Scheme, ss58, verify_signed
from engram.hotkeys.scheme import SIGNATURE_0X, Signable

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "epistula_v2.json").read_bytes())


def epistula_message(parts: Signable) -> tuple[bytes]:
    return (f"{hashlib.sha256(parts.body).hexdigest()}.{parts.uuid}.{parts.timestamp}.{parts.receiver}".encode(),)


EPISTULA = Scheme(
    name="Epistula",
    headers={
        "epistula-version": "version",
        "epistula-timestamp": "timestamp",
        "epistula-uuid": "uuid",
        "epistula-signed-by": "hotkey",
        "epistula-signed-for": "receiver",
        "epistula-request-signature": "signature",
    },
    required=frozenset({"timestamp", "uuid", "hotkey", "receiver", "signature"}),
    messages=epistula_message,
    past_ms=8_000,
    future_ms=2_000,
    signature=SIGNATURE_0X,
    hotkey=ss58.decode,
    versions=("2",),
)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_recorded_requests_are_judged_as_recorded(vector: dict[str, Any]) -> None:
    def judge() -> None:
        verify_signed(
            EPISTULA,
            [(name, value) for name, value in vector["headers"]],
            method=vector["method"],
            raw_path=vector["path"].encode(),
            body=base64.b64decode(vector["body_b64"]),
            now_ms=vector["now_ms"],
            self_key=ss58.decode(vector["self_hotkey"]),
        )

    if vector["reasons"]:
        with pytest.raises(AuthError) as refused:
            judge()
        assert refused.value.code in vector["reasons"]
    else:
        judge()


def test_a_value_prefix_is_demanded_and_dropped() -> None:
    scheme = Scheme(
        name="prefixed",
        headers={"authorization": "signature", "x-by": "hotkey", "x-at": "timestamp"},
        required=frozenset({"signature", "hotkey", "timestamp"}),
        messages=epistula_message,
        past_ms=1,
        future_ms=1,
        prefixes={"signature": "Epistula "},
    )
    headers = [("Authorization", "Basic abc"), ("X-By", "x"), ("X-At", "1")]
    with pytest.raises(AuthError, match="does not start with"):
        verify_signed(scheme, headers, method="GET", raw_path=b"/", body=b"", now_ms=0)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Epistula-Signed-For": "nobody"}, "malformed"),
        ({"Epistula-Signed-For": ""}, "signed_for_missing"),
        ({"Epistula-Signed-For": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"}, "signed_for_mismatch"),
        ({"Epistula-Uuid": "no"}, "malformed"),
    ],
)
def test_receiver_and_uuid_are_checked_before_the_signature(change: dict[str, str], code: str) -> None:
    vector = next(each for each in VECTORS if each["id"] == "v2-valid")
    headers = dict(vector["headers"]) | change
    with pytest.raises(AuthError) as refused:
        verify_signed(
            EPISTULA,
            headers.items(),
            method="POST",
            raw_path=b"/inference",
            body=b"",
            now_ms=vector["now_ms"],
            self_key=ss58.decode(vector["self_hotkey"]),
        )
    assert refused.value.code == code


def test_a_scheme_without_a_receiver_header_names_none() -> None:
    scheme = Scheme(
        name="plain",
        headers={"x-sig": "signature", "x-by": "hotkey", "x-at": "timestamp"},
        required=frozenset({"signature", "hotkey", "timestamp"}),
        messages=lambda parts: (b"hello " + parts.timestamp.encode(),),
        past_ms=1,
        future_ms=1,
    )
    alice = Keypair.from_uri("//Alice")
    headers = {"X-Sig": alice.sign(b"hello 1750000003000").hex(), "X-By": alice.ss58, "X-At": "1750000003000"}
    signed = verify_signed(scheme, headers.items(), method="GET", raw_path=b"/", body=b"", now_ms=1_750_000_003_000)
    assert (signed.receiver, signed.version, signed.uuid) == (None, 0, "")
