"""Keystores of polkadot-js, recorded from @polkadot/keyring 14 (tests/node/keystores.mjs), and ours read by others."""

import base64
import json
from pathlib import Path
from typing import Any

import bittensor_core
import pytest
from substrateinterface import Keypair as SubstrateKeypair

from engram.hotkeys import Keypair, WalletEncrypted, WalletFileError, WrongPassword, polkadot_keystore

RECORDED: Any = json.loads((Path(__file__).parent / "data" / "polkadot_js.json").read_bytes())
PASSWORD: str = RECORDED["password"]
KEYSTORES: Any = RECORDED["keystores"]
PAIR = Keypair.from_uri(RECORDED["uris"][0]["secret"])


def content(name: str) -> bytes:
    return json.dumps(KEYSTORES[name]).encode()


def changed(name: str = "words", encoded: Any = None, **fields: Any) -> bytes:
    """A keystore with other fields, `encoded` being a function of its bytes."""
    keystore = KEYSTORES[name] | fields
    if encoded is not None:
        octets = bytearray(base64.b64decode(keystore["encoded"]))
        keystore["encoded"] = base64.b64encode(encoded(octets) or octets).decode()
    return json.dumps(keystore).encode()


@pytest.mark.parametrize(
    ("name", "uri"), [("words", ""), ("derived", "//hard/soft"), ("seed", None), ("polkadot", ""), ("kusama", "")]
)
def test_a_keystore_of_polkadot_js_gives_the_key_of_its_address(name: str, uri: str | None) -> None:
    secret = RECORDED["uris"][0]["secret"] + uri if uri is not None else "0x" + "11" * 32
    assert polkadot_keystore.is_encrypted(content(name))
    assert polkadot_keystore.read(content(name), PASSWORD) == Keypair.from_uri(secret)


def test_a_keystore_without_a_password_needs_none() -> None:
    assert not polkadot_keystore.is_encrypted(content("plain"))
    assert polkadot_keystore.read(content("plain"), None) == PAIR


def test_a_keystore_wants_its_own_password() -> None:
    with pytest.raises(WalletEncrypted):
        polkadot_keystore.read(content("words"), None)
    for wrong in ("", "another", PASSWORD + " "):
        with pytest.raises(WrongPassword):
            polkadot_keystore.read(content("words"), wrong)


def test_our_keystore_is_read_by_others_and_by_us() -> None:
    written = polkadot_keystore.write(PAIR, PASSWORD, "a name")
    assert polkadot_keystore.read(written, PASSWORD) == PAIR
    assert json.loads(written)["meta"] == {"name": "a name"}
    for peer in (
        bittensor_core.Keypair.create_from_encrypted_json(written.decode(), PASSWORD),
        SubstrateKeypair.create_from_encrypted_json(written.decode(), PASSWORD, 42),
    ):
        assert peer.ss58_address == PAIR.ss58
    signed = SubstrateKeypair.create_from_encrypted_json(written.decode(), PASSWORD, 42).sign(b"message")
    assert SubstrateKeypair(ss58_address=PAIR.ss58).verify(b"message", signed)
    assert written != polkadot_keystore.write(PAIR, PASSWORD, "a name")


def scrypt(n: int = 1 << 15, p: int = 1, r: int = 8) -> Any:
    def put(octets: bytearray) -> None:
        octets[32:44] = b"".join(number.to_bytes(4, "little") for number in (n, p, r))

    return put


@pytest.mark.parametrize(
    ("n", "p", "r"),
    [
        *((1 << 18, 1, 8), (1 << 31, 1, 8), (1 << 17, 2, 8), (1 << 17, 1, 16), (0, 1, 8), (1, 1, 8), (3, 1, 8)),
        *((1 << 15, 0, 8), (1 << 15, 1, 0), (1 << 15, 1 << 31, 8), (1 << 15, 1, (1 << 32) - 1)),
        *((1 << 17, 1, 1), (1 << 16, 1, 1), (1 << 17, 8, 1), (2, 1, 1 << 19)),
    ],
)
def test_a_keystore_may_not_ask_for_more_memory_and_time_than_those_of_polkadot_js(n: int, p: int, r: int) -> None:
    with pytest.raises(WalletFileError, match=f"scrypt with N {n}, p {p}, r {r}"):
        polkadot_keystore.read(changed(encoded=scrypt(n, p, r)), PASSWORD)


def test_a_password_that_is_no_unicode_is_a_wrong_one() -> None:
    with pytest.raises(WrongPassword):
        polkadot_keystore.read(changed(encoded=scrypt()), "\udcff")


def flipped(at: int) -> Any:
    def flip(octets: bytearray) -> None:
        octets[at] ^= 1

    return flip


@pytest.mark.parametrize("at", [0, 44, 68, 100, 200])
def test_a_keystore_with_one_bit_changed_is_not_opened(at: int) -> None:
    with pytest.raises(WrongPassword):
        polkadot_keystore.read(changed(encoded=flipped(at)), PASSWORD)


OTHER = Keypair.from_uri("//Alice")


@pytest.mark.parametrize(
    ("keystore", "why"),
    [
        (b"", "no keystore"),
        (b"[]", "no keystore"),
        (b"\xff", "no keystore"),
        (b'{"accounts": [], "encoded": "", "encoding": {}}', "no keystore"),
        (json.dumps({"publicKey": "0x"}).encode(), "no keystore"),
        (changed(encoded=lambda octets: octets[:-1]), "encrypted in 132 bytes"),
        (changed(encoded=lambda octets: octets[:10]), "encrypted in 0 bytes"),
        (json.dumps(KEYSTORES["words"] | {"encoded": "no base64"}).encode(), "no base64"),
        (changed(encoding=KEYSTORES["words"]["encoding"] | {"version": "2"}), "version 2 .*export it again"),
        (changed(encoding=KEYSTORES["words"]["encoding"] | {"type": ["xsalsa20-poly1305"]}), "export it again"),
        (content("ed25519"), r"no sr25519 key \(pkcs8\+ed25519\)"),
        (content("ecdsa"), r"no sr25519 key \(pkcs8\+ecdsa\)"),
        (changed(address=OTHER.ss58), "is not its key's"),
        (changed(address="0x" + "00" * 32), "is not its key's"),
        (changed("plain", encoded=flipped(0)), "no key in its known form"),
        (changed("plain", encoded=flipped(81)), "no key in its known form"),
        (changed("plain", encoded=lambda octets: octets + b"0"), "no key in its known form"),
        (changed("plain", encoded=flipped(20)), "damaged|no usable"),
        (changed("plain", encoded=flipped(90)), "public key is not its private key's"),
    ],
)
def test_what_is_no_keystore_of_one_sr25519_key_is_refused_with_the_reason(keystore: bytes, why: str) -> None:
    with pytest.raises(WalletFileError, match=why) as refused:
        polkadot_keystore.read(keystore, PASSWORD)
    assert PASSWORD not in str(refused.value)


def test_an_address_in_hex_names_the_key_too() -> None:
    assert polkadot_keystore.read(changed("plain", address="0x" + PAIR.public_key.hex()), None) == PAIR


def test_no_secret_is_in_the_repr_of_what_a_keystore_is_read_into() -> None:
    keystore = polkadot_keystore._parsed(content("plain"))
    assert keystore.encoded not in repr(keystore)
