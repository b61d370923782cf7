"""Secret sharing and encryption: the original's bytes, and nothing readable without the key."""

import base64
import hashlib
import hmac
import json
import random
from pathlib import Path

import pytest
from Crypto.Cipher import AES
from Crypto.Protocol.DH import import_x25519_private_key, import_x25519_public_key, key_agreement
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.sdk import encryption, shamir
from engram.sdk.encryption import HybridCipher, NamespaceCipher, Undecryptable
from engram.sdk.shamir import Share

VECTORS = json.loads((Path(__file__).parent.parent / "data" / "engram" / "vectors.json").read_bytes())
EXPECTED = VECTORS["shamir(secret deadbeef, coeffs [s,7,9])"]


def test_shares_are_the_originals() -> None:
    coefficients = iter([b"\x07" * 4, b"\x09" * 4])
    shares = shamir.split(bytes.fromhex("deadbeef"), 3, 5, random_bytes=lambda _: next(coefficients))
    assert [[share.index, share.data.hex()] for share in shares] == EXPECTED


@pytest.mark.parametrize("chosen", [(0, 1, 2), (4, 2, 0), (1, 3, 4), (0, 1, 2, 3, 4)])
def test_any_three_of_the_originals_shares_give_the_secret(chosen: tuple[int, ...]) -> None:
    shares = [Share(EXPECTED[i][0], bytes.fromhex(EXPECTED[i][1])) for i in chosen]
    assert shamir.combine(shares).hex() == "deadbeef"


@settings(max_examples=60)
@given(st.binary(min_size=1, max_size=64), st.integers(2, 9), st.integers(0, 6), st.randoms())
def test_enough_shares_give_the_secret_back(secret: bytes, threshold: int, spare: int, rng: random.Random) -> None:
    shares = shamir.split(secret, threshold, threshold + spare, random_bytes=rng.randbytes)
    assert shamir.combine(rng.sample(shares, threshold)) == secret


def test_fewer_shares_fit_any_secret() -> None:
    """With one share missing, each value of the missing one gives another secret: nothing is told."""
    first, _ = shamir.split(b"\x42", 2, 2)
    assert len({shamir.combine([first, Share(2, bytes([guess]))]) for guess in range(256)}) == 256
    assert "42" not in repr(first)


@pytest.mark.parametrize(("secret", "threshold", "total"), [(b"", 2, 3), (b"a", 1, 3), (b"a", 4, 3), (b"a", 2, 256)])
def test_shares_that_cannot_be_made_are_refused(secret: bytes, threshold: int, total: int) -> None:
    with pytest.raises(ValueError, match="share"):
        shamir.split(secret, threshold, total)


@pytest.mark.parametrize(
    "shares",
    [[], [Share(1, b"a"), Share(1, b"b")], [Share(0, b"a")], [Share(256, b"a")], [Share(1, b"a"), Share(2, b"")]],
)
def test_shares_that_do_not_belong_together_are_refused(shares: list[Share]) -> None:
    with pytest.raises(ValueError, match="shares"):
        shamir.combine(shares)


def test_a_namespace_key_opens_what_it_sealed_in_the_originals_form() -> None:
    cipher = NamespaceCipher("my_ns", "0123456789abcdef")
    derived = hashlib.pbkdf2_hmac("sha256", b"0123456789abcdef", b"my_ns", 100_000)
    assert derived.hex() == VECTORS["ns_key_hash(my_ns,0123456789abcdef)"]
    sealed = encryption.encrypt(cipher, "héllo", {"n": 1})
    raw = base64.urlsafe_b64decode(sealed)
    opened = AES.new(derived, AES.MODE_GCM, nonce=raw[:12]).decrypt_and_verify(raw[12:-16], raw[-16:])
    assert json.loads(opened) == {"text": "héllo", "metadata": {"n": 1}}
    memory = encryption.decrypt(NamespaceCipher("my_ns", "0123456789abcdef"), sealed)
    assert (memory.text, memory.metadata) == ("héllo", {"n": 1})
    assert encryption.decrypt(cipher, sealed.rstrip("=")).text == "héllo"
    for other in (NamespaceCipher("my_ns", "0123456789abcdeg"), NamespaceCipher("other", "0123456789abcdef")):
        with pytest.raises(Undecryptable):
            encryption.decrypt(other, sealed)
    with pytest.raises(ValueError, match="16"):
        NamespaceCipher("n", "short")


def test_a_recipients_key_opens_what_its_public_key_sealed() -> None:
    cipher, public, private = HybridCipher.generate()
    sealed = HybridCipher(public).encrypt_raw(b"for you")
    assert cipher.decrypt_raw(sealed) == b"for you"
    assert HybridCipher(public, private).decrypt_raw(sealed) == b"for you"
    assert len(sealed) == 32 + 12 + len(b"for you") + 16
    with pytest.raises(Undecryptable, match="private"):
        HybridCipher(public).decrypt_raw(sealed)
    stranger, _, _ = HybridCipher.generate()
    for damaged in (sealed[:-1], sealed[:-1] + b"\x00", b"", b"\x00" * 80, sealed[:31]):
        with pytest.raises(Undecryptable):
            cipher.decrypt_raw(damaged)
    with pytest.raises(Undecryptable):
        stranger.decrypt_raw(sealed)
    assert encryption.decrypt(cipher, encryption.encrypt(HybridCipher(public), "t", {})).text == "t"


def test_the_recipients_form_is_the_originals() -> None:
    """HKDF (RFC 5869) with the ephemeral key as its salt and `engram-hybrid-v1`, by the standard library's HMAC."""
    _, public, private = HybridCipher.generate()
    sealed = HybridCipher(public).encrypt_raw(b"for you")
    ephemeral = import_x25519_public_key(sealed[:32])
    shared = key_agreement(static_priv=import_x25519_private_key(private), static_pub=ephemeral, kdf=bytes)
    extracted = hmac.new(sealed[:32], shared, hashlib.sha256).digest()
    key = hmac.new(extracted, b"engram-hybrid-v1\x01", hashlib.sha256).digest()
    assert (
        AES.new(key, AES.MODE_GCM, nonce=sealed[32:44]).decrypt_and_verify(sealed[44:-16], sealed[-16:]) == b"for you"
    )


@pytest.mark.parametrize("text", ["", "!!!", "é", "AAAA", "A"])
def test_what_is_no_ciphertext_is_said_to_be_none(text: str) -> None:
    with pytest.raises(Undecryptable):
        encryption.decrypt(NamespaceCipher("my_ns", "0123456789abcdef"), text)


def test_a_sealed_memory_nested_without_end_is_said_to_be_none() -> None:
    cipher = NamespaceCipher("my_ns", "0123456789abcdef")
    sealed = cipher.encrypt_raw(b'{"text":"","metadata":{"a":' + b"[" * 100_000)
    with pytest.raises(Undecryptable):
        encryption.decrypt(cipher, base64.urlsafe_b64encode(sealed).decode())
