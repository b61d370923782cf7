import copy
import pickle

import bittensor_core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from substrateinterface import Keypair as SubstrateKeypair

from engram.hotkeys import Keypair, MalformedHotkey, verify

ALICE = Keypair.from_uri("//Alice")
BOB = Keypair.from_uri("//Bob")


@settings(max_examples=30)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_signatures_are_understood_by_substrate_interface_and_bittensor(seed: bytes, message: bytes) -> None:
    ours = Keypair.from_seed(seed)
    theirs = SubstrateKeypair.create_from_seed(seed)
    core = bittensor_core.Keypair.create_from_seed(seed)
    assert ours.ss58 == theirs.ss58_address == core.ss58_address
    assert theirs.verify(message, ours.sign(message))
    assert core.verify(message, ours.sign(message))
    assert verify(ours.public_key, message, theirs.sign(message))
    assert verify(ours.public_key, message, core.sign(message))
    assert not verify(ours.public_key, message + b"x", theirs.sign(message))


def test_a_signature_over_the_wrapped_message_counts_only_where_it_may() -> None:
    wrapped = ALICE.sign(b"<Bytes>pay</Bytes>")
    assert verify(ALICE.public_key, b"pay", wrapped)
    assert not verify(ALICE.public_key, b"pay", wrapped, allow_wrapped=False)


@pytest.mark.parametrize("signature", [b"", b"x", bytes(64), b"\xff" * 64, bytes(63), bytes(65)])
def test_a_malformed_signature_is_not_valid_and_raises_nothing(signature: bytes) -> None:
    assert not verify(ALICE.public_key, b"message", signature)


@pytest.mark.parametrize("key", [b"", b"\xff" * 32, BOB.public_key, ALICE.public_key + b"x"])
def test_another_or_impossible_key_is_not_valid_and_raises_nothing(key: bytes) -> None:
    assert not verify(key, b"message", ALICE.sign(b"message"))


def test_nobody_signs_for_the_neutral_element() -> None:
    # s*B = R + k*0 holds for R = s*B whatever the message: the zero key accepts anybody's forgery.
    assert not verify(bytes(32), b"message", bytes(64))
    assert not verify(bytes(32), b"message", bytes(63) + b"\x80")


def test_no_secret_leaves_by_repr_str_pickle_or_copy() -> None:
    pair = Keypair.generate()
    secret = pair.private_key().hex()
    for text in (repr(pair), str(pair), f"{pair}", repr([pair]), repr(vars(type(pair)))):
        assert secret not in text
    with pytest.raises(TypeError):
        pickle.dumps(pair)
    with pytest.raises(TypeError):
        copy.deepcopy(pair)
    assert not hasattr(pair, "__dict__")


def test_pairs_are_equal_by_their_public_key() -> None:
    assert Keypair.from_uri("//Alice") == ALICE != BOB
    assert len({ALICE, Keypair(ALICE.private_key()), BOB}) == 2
    assert ALICE != "text"
    assert Keypair.generate() != Keypair.generate()


@pytest.mark.parametrize("secret", [b"", bytes(32), b"\xff" * 64])
def test_what_is_no_private_key_is_refused(secret: bytes) -> None:
    with pytest.raises(MalformedHotkey):
        Keypair(secret)


def test_what_is_no_seed_or_uri_is_refused_without_naming_it() -> None:
    with pytest.raises(MalformedHotkey):
        Keypair.from_seed(b"short")
    with pytest.raises(MalformedHotkey) as refused:
        Keypair.from_uri("these words are no mnemonic")
    assert "words" not in str(refused.value)
