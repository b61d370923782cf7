"""Notes that the app at /app encrypted on a phone: read and written with the same identity's key.

    keypair = Keypair.from_uri("the twelve words …")
    NodeClient(url, keypair, namespace=NAMESPACE, cipher=cipher(keypair), embed=embedder(keypair))

Such notes are found by their words: a vector is made of a text's words and their trigrams, hashed under a key that is
derived from the identity's. Whoever sees the vectors sees which notes share words, and not which words. The same in
TypeScript: phone/src/core/notes.ts.
"""

import hashlib
import math
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final

from engram.hotkeys import Keypair
from engram.sdk.encryption import NamespaceCipher

NAMESPACE: Final = "phone_private"
DIMENSION: Final = 384
"""Numbers in a node's vectors, unless its /health says otherwise."""
_COFACTOR: Final = 8
_WORD_WEIGHT: Final = 4.0


def cipher(keypair: Keypair) -> NamespaceCipher:
    """Return what opens and seals the notes of this identity."""
    return NamespaceCipher(NAMESPACE, namespace_key(keypair))


def namespace_key(keypair: Keypair) -> str:
    """Return the key of these notes' cipher, for programs that are not to have the identity's own."""
    return _derived(keypair, b"engram notes 1").hex()


def embedder(keypair: Keypair, dimension: int = DIMENSION) -> Callable[[str], list[float]]:
    """Return what makes the vector (of length 1) by which a note of this identity is found."""
    key = _derived(keypair, b"engram notes vectors 1")

    def embed(text: str) -> list[float]:
        sums = [0.0] * dimension
        for feature, weight in dict(_features(text)).items():
            hashed = hashlib.blake2b(feature.encode(), key=key, digest_size=16).digest()
            for at in range(0, 16, 4):
                index = int.from_bytes(hashed[at : at + 2], "little") % dimension
                sums[index] += weight if hashed[at + 2] & 1 else -weight
        length = math.hypot(*sums)
        if length == 0:
            return [1.0] + [0.0] * (dimension - 1)
        return [each / length for each in sums]

    return embed


def _features(text: str) -> Iterator[tuple[str, float]]:
    """Yield the words of a text and the trigrams of their letters, each with its weight."""
    for word in dict.fromkeys(_words(text)):
        yield f"w:{word}", _WORD_WEIGHT
        letters = f"^{word}$"
        for at in range(len(letters) - 2):
            yield f"g:{letters[at : at + 3]}", 1.0


def _words(text: str) -> list[str]:
    """Return the runs of letters, marks and digits of a text, in lower case."""
    compared = unicodedata.normalize("NFKC", text).lower()
    kept = (letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in compared)
    return "".join(kept).split()


def _derived(keypair: Keypair, use: bytes) -> bytes:
    """Return the identity's key of 32 bytes for another use.

    It is a hash of the private key in the form that polkadot-js writes, whose scalar is multiplied by the cofactor.
    """
    private = keypair.private_key()
    scalar = int.from_bytes(private[:32], "little") * _COFACTOR
    return hashlib.blake2b(scalar.to_bytes(32, "little") + private[32:], key=use, digest_size=32).digest()
