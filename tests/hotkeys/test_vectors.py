"""Every recorded request gets its verdict and its reason, strict and lenient."""

import base64
from typing import Any

import pytest

from engram.hotkeys import AuthError, Keypair, chutes, gateway_scheme, profiles, ss58, verify, verify_fields
from engram.hotkeys.epistula import secret_messages, sign_secrets
from engram.hotkeys.scheme import Scheme, SignedRequest, verify_signed
from tests.hotkeys.vectors import BY_ID, OTHERS, RECORDED, VECTORS, ask, verdict, verifier_for

TAKEN = ("epistula-v2", "dippy", "epistula-v1", "x-epistula")
STRICT = [profiles.STRICT[name] for name in TAKEN]
LENIENT = [profiles.LENIENT[name] for name in TAKEN]
BOB = ss58.decode("5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty")


def named(vector: dict[str, Any]) -> str:
    return str(vector["id"])


def test_all_recordings_are_here() -> None:
    assert (len(VECTORS), len(OTHERS)) == (74, 9)


@pytest.mark.parametrize("vector", VECTORS, ids=named)
def test_a_strict_receiver_judges_as_recorded(vector: dict[str, Any]) -> None:
    verifier = verifier_for(vector, STRICT)
    if "after" in vector:
        ask(verifier, BY_ID[vector["after"]])
    expected = vector["expect"]
    found = verdict(verifier, vector)
    if expected["verdict"] == "accept":
        assert found == "accept"
    else:
        assert found in (expected["reason"], *vector.get("reason_alternatives", ()))


@pytest.mark.parametrize("vector", [each for each in VECTORS if "expect_lenient" in each], ids=named)
def test_a_lenient_receiver_takes_what_the_originals_take(vector: dict[str, Any]) -> None:
    assert verdict(verifier_for(vector, LENIENT), vector) == vector["expect_lenient"]


@pytest.mark.parametrize(
    "vector",
    [each for each in VECTORS if "expect_lenient" not in each and each["scheme"] not in ("apex", "hone-v1")],
    ids=named,
)
def test_lenience_changes_no_other_verdict(vector: dict[str, Any]) -> None:
    verifier = verifier_for(vector, LENIENT)
    if "after" in vector:
        ask(verifier, BY_ID[vector["after"]])
    expected = vector["expect"]
    reasons = (expected["reason"], *vector.get("reason_alternatives", ()))
    assert verdict(verifier, vector) in (("accept",) if expected["verdict"] == "accept" else reasons)


@pytest.mark.parametrize("kind", ["hone-v1-valid-sorted", "hone-v1-valid-unsorted"])
def test_hones_own_spelling_is_taken_when_asked_for(kind: str) -> None:
    assert verdict(verifier_for(BY_ID[kind], [profiles.LENIENT["hone"]]), BY_ID[kind]) == "accept"


def test_apex_is_a_dialect_of_its_own() -> None:
    vector = BY_ID["apex-no-uuid"]
    assert verdict(verifier_for(vector, [profiles.STRICT["apex"]]), vector) == "signed_for_missing"
    assert verdict(verifier_for(vector, [profiles.LENIENT["apex"]]), vector) == "accept"
    both = [profiles.LENIENT["epistula-v2"], profiles.LENIENT["apex"]]
    assert ask(verifier_for(vector, both), vector).scheme == "apex"
    assert ask(verifier_for(BY_ID["v2-valid"], both), BY_ID["v2-valid"]).scheme == "epistula-v2"


def judge_other(vector: dict[str, Any]) -> SignedRequest:
    now_ms: int = vector["now_ms"]
    if "event" in vector:
        scheme = chutes.SOCKET if vector["scheme"] == "chutes" else chutes.PATTERN_B
        return verify_fields(scheme, vector["payload"], now_ms=now_ms)
    schemes: dict[str, Scheme] = {
        "chutes": chutes.of_miner(),
        "chutes-v2m": chutes.of_validator(),
        "engram-gateway": gateway_scheme.SCHEME,
    }
    return verify_signed(
        schemes[vector["scheme"]],
        vector["headers"].items(),
        method=vector.get("method", "POST"),
        raw_path=vector.get("path", "/").encode(),
        body=base64.b64decode(vector.get("payload_b64", "")),
        now_ms=now_ms,
        self_key=BOB,
    )


@pytest.mark.parametrize("vector", OTHERS.values(), ids=named)
def test_requests_of_other_schemes_are_judged_as_recorded(vector: dict[str, Any]) -> None:
    if vector["expect"] == "accept":
        assert judge_other(vector).skew_ms == 0
    else:
        with pytest.raises(AuthError) as refused:
            judge_other(vector)
        assert refused.value.code == "bad_signature"


def test_secret_signatures_sign_what_the_python_reference_signs() -> None:
    recorded, now_ms = RECORDED["secret_signatures"]["python"], RECORDED["secret_signatures"]["now_ms"]
    messages = secret_messages(BOB, now_ms)
    assert [message.decode() for message in messages] == recorded["messages"]
    alice = Keypair.from_uri("//Alice")
    ours = list(sign_secrets(alice, BOB, now_ms).values())
    for signatures in (recorded["signatures"], ours):
        for message, signature in zip(messages, signatures, strict=True):
            assert verify(alice.public_key, message, bytes.fromhex(signature[2:]))
