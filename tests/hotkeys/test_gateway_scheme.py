import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from substrateinterface import Keypair as SubstrateKeypair

from engram.hotkeys import AuthError, Keypair
from engram.hotkeys.gateway_scheme import message, sign_request, verify_request

NOW = 1_750_000_003_000
ALICE = Keypair.from_uri("//Alice")
VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "gateway_requests.json").read_bytes())


def lines(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def refusal(headers: list[tuple[bytes, bytes]], body: bytes = b"", now_ms: int = NOW, **options: int) -> AuthError:
    with pytest.raises(AuthError) as refused:
        verify_request(headers, "POST", b"/sessions", body, now_ms, **options)
    return refused.value


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_requests_signed_by_the_original_client_are_judged_as_recorded(vector: dict[str, Any]) -> None:
    def judge() -> bytes:
        return verify_request(
            lines(vector["headers"]), vector["method"], vector["path"].encode(), b"{}", vector["now_ms"]
        ).message_sha256

    if vector["expect"] == "accept":
        assert judge() == hashlib.sha256(vector["signed_message"].encode()).digest()
    else:
        with pytest.raises(AuthError, match="signature"):
            judge()


def test_a_signed_request_is_its_signers() -> None:
    signed = verify_request(lines(sign_request(ALICE, "post", "/sessions?x=1", NOW)), "POST", b"/sessions", b"{}", NOW)
    assert (signed.public_key, signed.timestamp_ms, signed.version) == (ALICE.public_key, NOW, 1)
    assert signed.hotkey == ALICE.ss58


def test_any_spelling_of_key_and_signature_is_one_identity_and_one_replay_key() -> None:
    headers = sign_request(ALICE, "POST", "/sessions", NOW)
    spellings = [
        headers,
        headers | {"X-Hotkey": ALICE.public_key.hex()},
        headers | {"X-Hotkey": "0x" + ALICE.public_key.hex().upper()},
        headers | {"X-Sig": "0x" + headers["X-Sig"].upper()},
        headers | {"X-Sig": ALICE.sign(b"<Bytes>" + message("POST", b"/sessions", str(NOW), None) + b"</Bytes>").hex()},
        headers | {"X-Sig-Version": "1"},
    ]
    answers = {
        (signed.public_key, signed.message_sha256)
        for signed in (verify_request(lines(each), "POST", b"/sessions", b"", NOW) for each in spellings)
    }
    assert len(answers) == 1


def test_version_2_covers_the_body() -> None:
    headers = lines(sign_request(ALICE, "POST", "/sessions", NOW, body=b'{"tier":"lite"}', version=2))
    assert verify_request(headers, "POST", b"/sessions", b'{"tier":"lite"}', NOW).version == 2
    assert refusal(headers, b'{"tier":"pro"}').code == "bad_signature"
    empty = lines(sign_request(ALICE, "POST", "/sessions", NOW, version=2))
    assert verify_request(empty, "POST", b"/sessions", b"", NOW).version == 2


def test_version_2_headers_without_the_version_do_not_pass_as_version_1() -> None:
    headers = sign_request(ALICE, "POST", "/sessions", NOW, body=b"{}", version=2)
    del headers["X-Sig-Version"]
    assert refusal(lines(headers), b"{}").code == "bad_signature"


@pytest.mark.parametrize("version", ["", "0", "3", "02", "2 ", "two"])
def test_an_unknown_version_is_refused(version: str) -> None:
    headers = sign_request(ALICE, "POST", "/sessions", NOW) | {"X-Sig-Version": version}
    assert refusal(lines(headers)).code == "bad_version"


def test_nobody_signs_a_version_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="version 3"):
        sign_request(ALICE, "POST", "/sessions", NOW, version=3)


@pytest.mark.parametrize("offset_ms", [-60_000, 0, 60_000])
def test_the_window_includes_its_bounds(offset_ms: int) -> None:
    headers = lines(sign_request(ALICE, "POST", "/sessions", NOW + offset_ms))
    assert verify_request(headers, "POST", b"/sessions", b"", NOW).skew_ms == offset_ms


@pytest.mark.parametrize(
    ("offset_ms", "code", "told"), [(-75_200, "stale", "75.200 s behind"), (60_001, "future", "60.001 s ahead")]
)
def test_a_wrong_clock_is_told_how_far_it_is_off(offset_ms: int, code: str, told: str) -> None:
    error = refusal(lines(sign_request(ALICE, "POST", "/sessions", NOW + offset_ms)))
    assert (error.code, error.skew_ms) == (code, offset_ms)
    assert told in error.message


def test_a_request_from_before_the_start_can_be_refused() -> None:
    headers = lines(sign_request(ALICE, "POST", "/sessions", NOW - 1))
    assert refusal(headers, not_before_ms=NOW).code == "before_start"
    assert verify_request(headers, "POST", b"/sessions", b"", NOW, not_before_ms=NOW - 1).skew_ms == -1


@pytest.mark.parametrize("name", ["x-hotkey", "x-timestamp", "x-sig"])
def test_each_header_is_wanted_exactly_once(name: str) -> None:
    headers = lines(sign_request(ALICE, "POST", "/sessions", NOW))
    assert refusal([line for line in headers if line[0] != name.encode()]).code == "missing_header"
    assert refusal([(key, b"" if key == name.encode() else value) for key, value in headers]).code == "missing_header"
    doubled = headers + [line for line in headers if line[0] == name.encode()]
    assert refusal(doubled).code == "duplicate_header"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Timestamp", "abc"),
        ("X-Timestamp", "1_750_000_003_000"),
        ("X-Timestamp", "+1750000003000"),
        ("X-Timestamp", "01750000003000"),
        ("X-Timestamp", " 1750000003000"),
        ("X-Timestamp", "1750000003"[:9]),
        ("X-Timestamp", "1" * 5000),
        ("X-Timestamp", "１７５００００００３０００"),
        ("X-Timestamp", "1750000003000.0"),
        ("X-Sig", "ab"),
        ("X-Sig", "zz" * 64),
        ("X-Sig", "0x" + "ab" * 65),
        ("X-Hotkey", "dev_hotkey"),
        ("X-Hotkey", "00" * 32),
        ("X-Hotkey", "5" * 48),
        ("X-Hotkey", "ÿ" * 48),
    ],
)
def test_a_malformed_header_is_refused_as_such(name: str, value: str) -> None:
    assert refusal(lines(sign_request(ALICE, "POST", "/sessions", NOW) | {name: value})).code == "malformed"


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=150))
def test_no_header_value_breaks_the_verifier(hotkey: bytes, timestamp: bytes, signature: bytes) -> None:
    headers = [(b"x-hotkey", hotkey), (b"x-timestamp", timestamp), (b"x-sig", signature)]
    with pytest.raises(AuthError):
        verify_request(headers, "POST", b"/sessions", b"", NOW)


def test_the_path_is_its_raw_bytes() -> None:
    headers = lines(sign_request(ALICE, "GET", "/sessions/%41", NOW))
    assert verify_request(headers, "GET", b"/sessions/%41", b"", NOW).version == 1
    with pytest.raises(AuthError):
        verify_request(headers, "GET", b"/sessions/A", b"", NOW)


def test_substrate_interface_verifies_what_we_sign() -> None:
    headers = sign_request(ALICE, "DELETE", "/sessions/a1", NOW)
    theirs = SubstrateKeypair(ss58_address=headers["X-Hotkey"])
    assert theirs.verify(f"engram-cloud:DELETE:/sessions/a1:{NOW}", "0x" + headers["X-Sig"])
