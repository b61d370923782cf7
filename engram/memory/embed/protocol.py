"""Turning texts into vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

EmbedderState = Literal["loading", "ready", "failed"]

WINDOW_TOKENS, WINDOW_STRIDE, MOST_WINDOWS = 254, 190, 40
"""Tokens of a window beside its two marks; how many later the next one begins; and how many windows a text has."""
MOST_TOKENS = WINDOW_TOKENS + WINDOW_STRIDE * (MOST_WINDOWS - 1)
"""Tokens of a text, from its beginning, that its windows cover."""


class Cut(msgspec.Struct, frozen=True):
    """A text that is longer than the model reads: its number of tokens, and how many of them, counted from the start,
    its vector covers."""

    tokens: int
    tokens_used: int


class Embedder(Protocol):
    """Texts in, unit vectors (f32 little-endian bytes) out. The same text always gives the same bytes here."""

    dimension: int
    """Numbers in a vector."""

    @property
    def name(self) -> str:
        """The model, as shown to operators."""
        ...

    @property
    def state(self) -> EmbedderState:
        """`failed` is final; the reason is in the error that `embed` raises."""
        ...

    async def run(self, ready: Callable[[], None]) -> None:
        """Load the model in the background (it calls `ready` at once) and serve until cancelled."""
        ...

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """Return a vector for each text; waits while the model is loading.

        Raises EmbedderUnavailable when it cannot be loaded or does not answer in time.
        """
        ...

    async def cuts(self, texts: Sequence[str]) -> list[Cut | None]:
        """Return for each text what `embed` cuts off; None when nothing is cut off, or when that is not known."""
        ...

    async def windows(self, text: str) -> list[bytes]:
        """Return unit vectors of what of a long text its own vector does not cover, window by window; none where it
        covers everything, or this embedder makes no windows. Raises EmbedderUnavailable."""
        ...
