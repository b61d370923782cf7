"""Certificates: what a session key may be believed, and everything that must not be."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.hotkeys import Keypair, node_identity, sealed
from engram.hotkeys.certificates import (
    LEEWAY_S,
    Certificate,
    CertificateRefused,
    check,
    issue,
    require_signed,
    session_key_of,
    verified,
)
from engram.hotkeys.node_identity import Introduction

HOTKEY, OTHER = Keypair.from_uri("//Charlie"), Keypair.from_uri("//Eve")
SESSION, CONTROLLER = Keypair.from_uri("//Ferdie"), Keypair.from_uri("//Dave")
NOW = 1_800_000_000


def certificate(**changed: object) -> Certificate:
    return Certificate(
        **{
            "hotkey": HOTKEY.ss58,
            "session_key": SESSION.ss58,
            "box_key": "ab" * 32,
            "controller": CONTROLLER.ss58,
            "session_id": "s1",
            "launch_token": "t1",
            "not_before": NOW,
            "not_after": NOW + 600,
            "ends_at": NOW + 3_600,
            **changed,
        }  # type: ignore[arg-type]
    )


TEXT = issue(HOTKEY, certificate())


def refused(code: str, text: str = TEXT, at: float = NOW, **known: object) -> bool:
    with pytest.raises(CertificateRefused) as caught:
        check(text, hotkey=HOTKEY.public_key, at=at, **known)  # type: ignore[arg-type]
    return caught.value.code == code


def test_a_certificate_says_what_was_signed_and_lends_the_name() -> None:
    found = check(TEXT, hotkey=HOTKEY.public_key, at=NOW, session_id="s1", controller=CONTROLLER.public_key)
    assert found == certificate()
    assert session_key_of(found) == SESSION.public_key


def test_a_certificate_of_another_hotkey_session_or_controller_is_refused() -> None:
    assert refused("other_hotkey", issue(OTHER, certificate(hotkey=OTHER.ss58)))
    assert refused("other_session", session_id="s2")
    assert refused("other_controller", controller=OTHER.public_key)


def test_a_certificate_ends() -> None:
    assert check(TEXT, hotkey=HOTKEY.public_key, at=NOW + 600 + LEEWAY_S) == certificate()
    assert refused("expired", at=NOW + 601 + LEEWAY_S)
    assert refused("not_yet_valid", at=NOW - LEEWAY_S - 1)


def test_only_the_hotkey_can_issue() -> None:
    with pytest.raises(ValueError, match="the key is"):
        issue(OTHER, certificate())
    forged = issue(OTHER, certificate(hotkey=OTHER.ss58)).split(".")
    assert refused("bad_signature", ".".join([*TEXT.split(".")[:2], forged[2]]))


@given(st.integers(0, len(TEXT) - 1), st.characters(codec="ascii"))
def test_no_character_of_a_certificate_can_be_changed(place: int, character: str) -> None:
    changed = TEXT[:place] + character + TEXT[place + 1 :]
    if changed == TEXT:
        return
    with pytest.raises(CertificateRefused):
        verified(changed, HOTKEY.public_key)


@given(st.text(max_size=80))
def test_anything_else_is_malformed_and_raises_nothing_else(text: str) -> None:
    for each in (text, f"engram-cert-1.{text}", f"{TEXT}{text}x", f"{TEXT}.{text}"):
        with pytest.raises(CertificateRefused):
            verified(each, HOTKEY.public_key)


def test_what_a_session_key_signs_counts_as_the_nodes_only_with_its_certificate() -> None:
    message = b"engram-commitment:keyed-1:__public__:00:0:1"
    by_session, by_hotkey = SESSION.sign(message), HOTKEY.sign(message)
    assert require_signed(HOTKEY.public_key, message, by_session, TEXT, at=NOW) == certificate()
    assert require_signed(HOTKEY.public_key, message, by_hotkey, None, at=NOW) is None
    for signature, text in ((by_session, None), (OTHER.sign(message), TEXT), (by_hotkey, TEXT)):
        with pytest.raises(CertificateRefused, match="did not sign"):
            require_signed(HOTKEY.public_key, message, signature, text, at=NOW)


def test_a_certificate_is_no_signature_of_anything_else() -> None:
    signature = HOTKEY.sign(b"engram-commitment:keyed-1:__public__:00:0:1")
    assert not node_identity.holds(introduction(key=HOTKEY.public_key), bytes(32), signature)


def introduction(**changed: object) -> Introduction:
    return Introduction(
        **{
            "hotkey": HOTKEY.public_key,
            "key": SESSION.public_key,
            "box_key": bytes(32),
            "session_id": "s1",
            "launch_token": "t1",
            **changed,
        }  # type: ignore[arg-type]
    )


@given(st.binary(min_size=32, max_size=32))
def test_an_introduction_holds_for_one_nonce_and_one_launch(nonce: bytes) -> None:
    shown = introduction()
    signature = node_identity.sign(SESSION, shown, nonce)
    assert node_identity.holds(shown, nonce, signature)
    assert not node_identity.holds(shown, bytes(reversed(nonce)) + b"x", signature)
    for changed in ({"session_id": "s2"}, {"launch_token": "t2"}, {"box_key": b"\1" * 32}, {"key": OTHER.public_key}):
        assert not node_identity.holds(introduction(**changed), nonce, signature)


@given(st.text(max_size=20), st.text(max_size=20))
def test_fields_of_an_introduction_cannot_run_into_each_other(one: str, other: str) -> None:
    first = node_identity.message(introduction(session_id=one, launch_token=other), bytes(32))
    second = node_identity.message(introduction(session_id=one + other, launch_token=""), bytes(32))
    assert (first == second) == (not other)


def test_sealed_secrets_open_with_the_one_key_they_were_sealed_to() -> None:
    key, other = sealed.BoxKey(), sealed.BoxKey()
    content = sealed.seal(key.public, b"secret")
    assert key.opened(content) == b"secret"
    with pytest.raises(ValueError, match="not sealed to this key"):
        other.opened(content)
    with pytest.raises(ValueError, match="not sealed to this key"):
        key.opened(content[:-1])
    with pytest.raises(ValueError, match="32 bytes"):
        sealed.seal(b"short", b"")
    assert "secret" not in repr(key)


def test_a_certificate_has_a_largest_size() -> None:
    with pytest.raises(CertificateRefused, match="at most"):
        verified(issue(HOTKEY, certificate(session_id="s" * 2_000)), HOTKEY.public_key)


def test_fields_that_are_unknown_are_refused() -> None:
    text = TEXT.split(".")
    payload = msgspec.json.encode({**msgspec.structs.asdict(certificate()), "extra": 1})
    text[1] = base64.urlsafe_b64encode(payload).decode().rstrip("=")
    signed = ".".join(text[:2])
    text[2] = base64.urlsafe_b64encode(HOTKEY.sign(signed.encode())).decode().rstrip("=")
    assert refused("malformed", ".".join(text))
