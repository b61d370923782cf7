"""An embedder without semantics that hashes words, word pairs and letter triples. For tests and vector-only nodes."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import final

import trio

from engram.memory.embed.protocol import Cut, EmbedderState

_WORDS = re.compile(r"\w+")


@final
class HashEmbedder:
    """Puts texts that share words or parts of words near each other; their meaning plays no part."""

    def __init__(self, dimension: int = 384) -> None:
        self.dimension = dimension

    @property
    def name(self) -> str:
        """The model, as shown to operators."""
        return "hash"

    @property
    def state(self) -> EmbedderState:
        """Always ready."""
        return "ready"

    async def run(self, ready: Callable[[], None]) -> None:
        """Nothing to load."""
        ready()
        await trio.sleep_forever()

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """Return a vector for each text."""
        return await trio.to_thread.run_sync(self._vectors, list(texts))

    async def cuts(self, texts: Sequence[str]) -> list[Cut | None]:
        """All of a text is read."""
        return [None] * len(texts)

    async def windows(self, text: str) -> list[bytes]:
        """All of a text is read."""
        return []

    def _vectors(self, texts: list[str]) -> list[bytes]:
        return [hash_vector(text, self.dimension) for text in texts]


def hash_vector(text: str, dimension: int) -> bytes:
    """Return the unit vector of a text (f32 little-endian)."""
    numbers = [0.0] * dimension
    for feature, weight in _features(text):
        digest = int.from_bytes(hashlib.blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        numbers[(digest >> 1) % dimension] += weight if digest & 1 else -weight
    norm = math.hypot(*numbers)
    if norm == 0.0:  # the text has no words, or its features cancel out
        numbers[0] = norm = 1.0
    return struct.pack(f"<{dimension}f", *(number / norm for number in numbers))


def _features(text: str) -> Iterator[tuple[str, float]]:
    words = [match.group().casefold() for match in _WORDS.finditer(text)]
    for word in words:
        yield f"w:{word}", 1.0
        padded = f"^{word}$"
        for i in range(len(padded) - 2):
            yield f"t:{padded[i : i + 3]}", 0.3
    for first, second in itertools.pairwise(words):
        yield f"p:{first} {second}", 0.5
