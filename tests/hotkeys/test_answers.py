import hashlib

import pytest

from engram.hotkeys import AuthError, Keypair
from engram.hotkeys.answers import sign_answer, verify_answer
from engram.hotkeys.keypair import verify

GATEWAY = Keypair.from_uri("//Gateway")
NOW = 1_750_000_003_000
BODY = b'{"status":"active"}'


def code(headers: dict[str, str], status: int = 200, timestamp: int | str = NOW, body: bytes = BODY) -> str:
    with pytest.raises(AuthError) as refused:
        verify_answer(headers, status, timestamp, body, gateway=GATEWAY.public_key)
    return refused.value.code


def test_an_answer_is_known_to_be_the_gateways() -> None:
    headers = sign_answer(GATEWAY, 200, NOW, BODY)
    message = f"engram-gateway:200:{NOW}:{hashlib.sha256(BODY).hexdigest()}".encode()
    signature = bytes.fromhex(headers["X-Gateway-Sig"])
    assert verify(GATEWAY.public_key, message, signature, allow_wrapped=False)
    verify_answer(headers, 200, str(NOW), BODY, gateway=GATEWAY.public_key)
    verify_answer({name.lower(): value for name, value in headers.items()}, 200, NOW, BODY, gateway=GATEWAY.public_key)


def test_an_answer_to_another_request_status_or_body_is_refused() -> None:
    headers = sign_answer(GATEWAY, 200, NOW, BODY)
    assert code(headers, status=202) == "bad_signature"
    assert code(headers, timestamp=NOW + 1) == "bad_signature"
    assert code(headers, body=BODY + b" ") == "bad_signature"


def test_an_impostors_answer_is_refused() -> None:
    impostor = Keypair.from_uri("//Impostor")
    headers = sign_answer(impostor, 200, NOW, BODY)
    assert code(headers) == "signed_for_mismatch"
    assert code(headers | {"X-Gateway-Hotkey": GATEWAY.ss58}) == "bad_signature"


def test_an_unsigned_or_malformed_answer_is_refused() -> None:
    headers = sign_answer(GATEWAY, 200, NOW, BODY)
    assert code({}) == "missing_header"
    assert code(headers | {"X-Gateway-Sig": ""}) == "missing_header"
    assert code(headers | {"X-Gateway-Sig": "abcd"}) == "malformed"
    assert code(headers | {"X-Gateway-Hotkey": "me"}) == "malformed"


def test_a_timestamp_that_is_none_does_not_break_the_signer() -> None:
    headers = sign_answer(GATEWAY, 200, "ÿ?", BODY)
    verify_answer(headers, 200, "ÿ?", BODY, gateway=GATEWAY.public_key)
    assert code(headers, timestamp="ÿ") == "bad_signature"
