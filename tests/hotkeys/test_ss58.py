import hashlib

import base58
import bittensor_core
import pytest
from hypothesis import given
from hypothesis import strategies as st
from substrateinterface import Keypair as SubstrateKeypair

from engram.hotkeys import MalformedHotkey, parse_hotkey, ss58

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
ALICE_KEY = bytes.fromhex("d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d")

keys = st.binary(min_size=32, max_size=32).filter(any)


@given(keys)
def test_every_key_has_one_address_and_comes_back_from_it(key: bytes) -> None:
    assert ss58.decode(ss58.encode(key)) == key
    assert parse_hotkey(key.hex()) == parse_hotkey("0x" + key.hex().upper()) == key


@given(keys)
def test_addresses_are_those_of_substrate_interface(key: bytes) -> None:
    assert ss58.encode(key) == SubstrateKeypair(public_key=key, ss58_format=42).ss58_address


def test_an_address_of_another_network_is_refused_although_it_is_the_same_key() -> None:
    polkadot = bittensor_core.ss58_encode(ALICE_KEY, ss58_format=0)
    with pytest.raises(MalformedHotkey):
        ss58.decode(polkadot)
    generic = bittensor_core.ss58_encode(ALICE_KEY, ss58_format=116)
    with pytest.raises(MalformedHotkey):
        ss58.decode(generic)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        ALICE + " ",
        ALICE + "\n",
        " " + ALICE,
        ALICE[:-1] + "Z",
        ALICE.lower(),
        "0" + ALICE[1:],
        "1" * 48,
        "5" * 100_000,
        "é" * 48,
        "0x" + ALICE_KEY.hex(),
    ],
)
def test_what_is_no_canonical_address_is_refused(text: str) -> None:
    with pytest.raises(MalformedHotkey):
        ss58.decode(text)


@pytest.mark.parametrize(
    "text",
    ["", "0x", ALICE_KEY.hex()[:-1], ALICE_KEY.hex() + "0", "0X" + ALICE_KEY.hex(), ALICE_KEY.hex() + "\n", "g" * 64],
)
def test_what_is_no_key_in_hex_is_refused(text: str) -> None:
    with pytest.raises(MalformedHotkey):
        parse_hotkey(text)


def test_the_neutral_element_is_nobodys_key() -> None:
    with pytest.raises(MalformedHotkey):
        parse_hotkey("00" * 32)
    checksum = hashlib.blake2b(b"SS58PRE" + b"\x2a" + bytes(32)).digest()[:2]
    with pytest.raises(MalformedHotkey):
        ss58.decode(base58.b58encode(b"\x2a" + bytes(32) + checksum).decode())


def test_a_key_of_the_wrong_length_has_no_address() -> None:
    with pytest.raises(MalformedHotkey):
        ss58.encode(b"short")


def test_a_prefix_of_two_bytes_is_not_written() -> None:
    assert ss58.encode(ALICE_KEY, prefix=0) == bittensor_core.ss58_encode(ALICE_KEY, ss58_format=0)
    with pytest.raises(ValueError, match="64"):
        ss58.encode(ALICE_KEY, prefix=64)


def test_a_number_beyond_35_bytes_is_refused() -> None:
    with pytest.raises(MalformedHotkey):
        ss58.decode("z" * 48)
