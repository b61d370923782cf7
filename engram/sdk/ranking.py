"""How a client wants hits to be found and ranked."""

from typing import Literal, TypeAlias

import msgspec

from engram.hotkeys.python_json import JsonObject

Mode: TypeAlias = Literal["vector", "words", "hybrid"]


class Ranking(msgspec.Struct, frozen=True):
    """`mode`: `vector` also looks at windows of long texts, `words` at words, `hybrid` at all; None at the records' own
    vectors alone. `diversity` is 0 (by relevance alone) to 1 (by variety); `recency_s` a half-life in seconds by which
    newer memories count more; `history` shows superseded and expired ones too."""

    mode: Mode | None = None
    diversity: float = 0.0
    recency_s: float | None = None
    history: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for what every node refuses."""
        if self.mode not in (None, "vector", "words", "hybrid"):
            raise ValueError(f"mode must be 'vector', 'words' or 'hybrid', not {self.mode!r}")
        if not 0 <= self.diversity <= 1:
            raise ValueError(f"diversity must be from 0 to 1, not {self.diversity}")
        if self.recency_s is not None and not self.recency_s >= 1:
            raise ValueError(f"recency_s must be a half-life of at least 1 second, not {self.recency_s}")

    @property
    def is_plain(self) -> bool:
        """Whether hits are ordered by the cosine of the records' own vectors, as every miner orders them."""
        return self.mode is None and not self.diversity and self.recency_s is None

    @property
    def wants_words(self) -> bool:
        """Whether words count."""
        return self.mode in ("words", "hybrid")

    def fields(self) -> JsonObject:
        """Return the fields of a request; none for a plain search, which every miner understands."""
        fields: JsonObject = {}
        if self.mode is not None:
            fields["mode"] = self.mode
        if self.diversity:
            fields["diversity"] = self.diversity
        if self.recency_s is not None:
            fields["recency"] = self.recency_s
        if self.history:
            fields["history"] = True
        return fields


BY_COSINE = Ranking()
"""The nearest by the records' own vectors."""
