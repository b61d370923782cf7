"""Keys restored from what their owners wrote down: words or a seed, with a derivation path and a password.

The text is a Substrate secret URI: `WORDS`, `WORDS//hard/soft`, `WORDS//hard/soft///password`, or the same behind the
64 hex digits of a seed. Addresses are those of substrate-interface, bittensor-wallet and polkadot-js. No message
repeats any part of the text.
"""

import re
from typing import Final

import msgspec

from engram.hotkeys import key_content
from engram.hotkeys.bittensor_core import key_file_of, key_file_of_seed
from engram.hotkeys.errors import MalformedHotkey
from engram.hotkeys.keypair import Keypair

WORD_COUNTS: Final = (12, 15, 18, 21, 24)
_PATH: Final = re.compile(r"(?://?[^/]+)+\Z")
_URI: Final = re.compile(r"(?P<secret>[^/]*)(?P<path>(?://?[^/]+)*)(?:///(?P<password>.*))?\Z", re.DOTALL)
_SEED: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{64})\Z")


class Restored(msgspec.Struct, frozen=True):
    """A key and the plain content of its file, with the words or the seed where they alone give the key."""

    keypair: Keypair
    content: bytes

    def __repr__(self) -> str:
        return f"Restored({self.keypair.ss58})"


def from_words(text: str, derivation: str = "") -> Restored:
    """Restore the key of 12 to 24 BIP-39 words (English); case and spacing do not matter.

    `derivation` goes behind a path that the text has itself. Raises MalformedHotkey: a wrong number of words, a word
    that is none, words of which one is wrong or that are out of order (the checksum), or a path that is none.
    """
    secret, path, password = _parts(text, derivation)
    words = secret.lower().split()
    if len(words) not in WORD_COUNTS:
        raise MalformedHotkey(f"{len(words)} words; a key has 12 or 24 (15, 18 and 21 are taken too)")
    phrase = " ".join(words)
    try:
        keypair = Keypair.from_uri(_joined(phrase, path, password))
    except MalformedHotkey:
        raise MalformedHotkey(
            f"the {len(words)} words give no key: one is not of the BIP-39 list, or one is wrong or out of its place "
            "(the checksum does not match)"
        ) from None
    plain = not path and password is None
    return Restored(keypair, key_file_of(phrase) if plain else key_content.content_of(keypair))


def from_seed(text: str, derivation: str = "") -> Restored:
    """Restore the key of a seed of 64 hex digits, with or without 0x; as `from_words`. Raises MalformedHotkey."""
    secret, path, password = _parts(text, derivation)
    digits = _SEED.match(secret.strip())
    if digits is None:
        raise MalformedHotkey(f"a seed is 64 hex digits, not {len(secret.strip())} characters")
    seed = bytes.fromhex(digits[1])
    if not path and password is None:
        return Restored(Keypair.from_seed(seed), key_file_of_seed(seed))
    keypair = Keypair.from_uri(_joined("0x" + seed.hex(), path, password))
    return Restored(keypair, key_content.content_of(keypair))


def check_derivation(path: str) -> None:
    """Raise MalformedHotkey unless the path is empty or of parts such as `//hard` and `/soft`, without a password."""
    if path and _PATH.match(path) is None:
        raise MalformedHotkey(
            "a derivation path is of parts such as //hard and /soft; a ///password goes behind the words"
        )


def _parts(text: str, derivation: str) -> tuple[str, str, str | None]:
    check_derivation(derivation)
    found = _URI.match(text.strip())
    if found is None:
        raise MalformedHotkey("what stands behind the secret is no derivation path such as //hard/soft")
    return found["secret"], found["path"].strip() + derivation, found["password"]


def _joined(secret: str, path: str, password: str | None) -> str:
    return secret + path + ("" if password is None else f"///{password}")
