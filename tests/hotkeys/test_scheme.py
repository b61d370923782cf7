"""What the verifier core does for every table."""

import pytest

from engram.hotkeys import AuthError, Keypair, Scheme, ss58, verify_signed
from engram.hotkeys.epistula import V2
from engram.hotkeys.scheme import Signable
from tests.hotkeys.vectors import BY_ID


def hello(parts: Signable) -> tuple[bytes]:
    return (b"hello " + parts.timestamp.encode(),)


def test_a_value_prefix_is_demanded_and_dropped() -> None:
    scheme = Scheme(
        name="prefixed",
        headers={"authorization": "signature", "x-by": "hotkey", "x-at": "timestamp"},
        required=frozenset({"signature", "hotkey", "timestamp"}),
        messages=hello,
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
    vector = BY_ID["v2-valid"]
    headers = dict(vector["headers"]) | change
    with pytest.raises(AuthError) as refused:
        verify_signed(
            V2,
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
        messages=hello,
        past_ms=1,
        future_ms=1,
    )
    alice = Keypair.from_uri("//Alice")
    headers = {"X-Sig": alice.sign(b"hello 1750000003000").hex(), "X-By": alice.ss58, "X-At": "1750000003000"}
    signed = verify_signed(scheme, headers.items(), method="GET", raw_path=b"/", body=b"", now_ms=1_750_000_003_000)
    assert (signed.receiver, signed.version, signed.uuid) == (None, 0, "")
