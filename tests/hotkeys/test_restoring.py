"""Words and seeds give the addresses that polkadot-js, substrate-interface and bittensor-core give for them."""

import json
from pathlib import Path
from typing import Any

import bittensor_core
import pytest
from hypothesis import given
from hypothesis import strategies as st
from substrateinterface import Keypair as SubstrateKeypair

from engram.hotkeys import Keypair, MalformedHotkey, key_content, restoring

RECORDED: Any = json.loads((Path(__file__).parent / "data" / "polkadot_js.json").read_bytes())
URIS: Any = RECORDED["uris"]
WORDS: str = URIS[0]["secret"]
HERE = Path("file")


@pytest.mark.parametrize("uri", URIS, ids=lambda uri: uri["secret"][:9] + uri["behind"])
def test_the_address_is_that_of_polkadot_js(uri: Any) -> None:
    restore = restoring.from_seed if uri["secret"].startswith("0x") else restoring.from_words
    restored = restore(uri["secret"] + uri["behind"])
    assert restored.keypair.ss58 == uri["address"]
    assert key_content.keypair(HERE, restored.content) == restored.keypair


@pytest.mark.parametrize("count", [12, 15, 18, 21, 24])
def test_words_and_their_seed_give_the_key_of_other_libraries(count: int) -> None:
    words = SubstrateKeypair.generate_mnemonic(count)
    restored = restoring.from_words(words)
    assert restored.keypair.ss58 == SubstrateKeypair.create_from_mnemonic(words).ss58_address
    assert restored.keypair.ss58 == bittensor_core.Keypair.create_from_mnemonic(words).ss58_address
    fields = json.loads(restored.content)
    assert fields["secretPhrase"] == words
    assert restoring.from_seed(fields["secretSeed"]).keypair == restored.keypair


def test_a_path_is_taken_from_the_text_the_argument_or_both() -> None:
    expected = SubstrateKeypair.create_from_uri(WORDS + "//hard/soft").ss58_address
    for text, derivation in ((WORDS + "//hard/soft", ""), (WORDS, "//hard/soft"), (WORDS + " //hard\n", "/soft")):
        assert restoring.from_words(text, derivation).keypair.ss58 == expected
    assert restoring.from_seed("11" * 32, "//0").keypair == restoring.from_seed("0x" + "11" * 32 + "//0").keypair


def test_case_and_spacing_of_words_do_not_matter() -> None:
    spaced = "\n  " + WORDS.upper().replace(" ", " \t ") + "\n"
    assert json.loads(restoring.from_words(spaced).content)["secretPhrase"] == WORDS


@pytest.mark.parametrize(
    ("text", "derivation", "why"),
    [
        ("", "", "0 words"),
        ("//Alice", "", "0 words"),
        ("walk", "", "1 words"),
        (WORDS + " walk", "", "13 words"),
        (WORDS.replace("walk", "fit"), "", "12 words give no key"),
        (WORDS.replace("walk", "walkk"), "", "12 words give no key"),
        (" ".join(reversed(WORDS.split())), "", "12 words give no key"),
        (WORDS, "hard", "derivation path"),
        (WORDS, "//a///password", "derivation path"),
        (WORDS, "/", "derivation path"),
        (WORDS + "//", "", "derivation path"),
    ],
)
def test_words_that_give_no_key_are_refused_and_not_repeated(text: str, derivation: str, why: str) -> None:
    with pytest.raises(MalformedHotkey, match=why) as refused:
        restoring.from_words(text, derivation)
    told = str(refused.value)
    assert "bottom" not in told
    assert "password" not in told.replace("///password goes", "")
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("text", ["", "0x", "11" * 31, "11" * 33, "zz" * 32, "0x" + "11" * 32 + "//", "11" * 64])
def test_a_seed_that_is_none_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(MalformedHotkey) as refused:
        restoring.from_seed(text)
    assert text == "" or text not in str(refused.value).split()


@given(st.text(max_size=200), st.text(max_size=20))
def test_any_text_is_a_key_or_refused(text: str, derivation: str) -> None:
    for restore in (restoring.from_words, restoring.from_seed):
        try:
            assert isinstance(restore(text, derivation).keypair, Keypair)
        except MalformedHotkey:
            continue


def test_no_secret_is_in_the_repr_of_a_restored_key() -> None:
    assert repr(restoring.from_words(WORDS)) == f"Restored({URIS[0]['address']})"
