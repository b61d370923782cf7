"""Turning texts into vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

EmbedderState = Literal["loading", "ready", "failed"]


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
        """`failed` is for good: the reason is in what `embed` raises."""
        ...

    async def run(self, ready: Callable[[], None]) -> None:
        """Loads the model in the background (it calls `ready` at once) and serves until cancelled."""
        ...

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """Returns a vector for each text; waits while the model is loading.

        Raises EmbedderUnavailable when it cannot be loaded or does not answer in time.
        """
        ...
