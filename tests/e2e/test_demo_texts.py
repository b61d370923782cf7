"""The demo's question is one that only meaning answers."""

import re
import struct

from engram.demo import ANSWER, QUESTION, TEXTS
from engram.memory.embed.hash_embedder import HashEmbedder

STEM_LETTERS = 4
"""Two words that begin with the same four letters count as one stem; shorter words must differ as a whole."""


def stems(text: str) -> set[str]:
    return {word[:STEM_LETTERS] for word in re.findall(r"[a-z]+", text.lower())}


def test_the_question_shares_no_word_stem_with_any_text() -> None:
    for text in TEXTS:
        assert stems(QUESTION).isdisjoint(stems(text)), text


async def test_an_embedder_without_semantics_does_not_find_the_answer() -> None:
    question, *vectors = [
        struct.unpack(f"<{len(vector) // 4}f", vector) for vector in await HashEmbedder().embed([QUESTION, *TEXTS])
    ]
    scores = [sum(a * b for a, b in zip(question, vector, strict=True)) for vector in vectors]
    assert max(scores) > scores[TEXTS.index(ANSWER)]
