"""Embeds texts through any server with an OpenAI-compatible /v1/embeddings endpoint."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import final

import msgspec
import trio

from engram.http.client import HttpClient
from engram.http.errors import HttpError
from engram.memory.embed.protocol import Cut, EmbedderState
from engram.memory.errors import EmbedderUnavailable

_LARGEST_BATCH = 64
_AT_ONCE = 4
_WAITING = 64
_ANSWER_WITHIN_S = 20.0
_BYTES_PER_NUMBER = 32
"""The most bytes that one number takes in the JSON answer."""


class _Embedding(msgspec.Struct, frozen=True):
    index: int
    embedding: list[float]


class _Embeddings(msgspec.Struct, frozen=True):
    data: list[_Embedding]


@final
class OpenAiEmbedder:
    """Asks `url` (such as `https://api.openai.com/v1`) for vectors of `model`, which have `dimension` numbers.

    Neither retries nor caches. A server whose vectors for the same text differ in the last bits gives that text another
    CID each time.
    """

    def __init__(self, http: HttpClient, url: str, model: str, dimension: int, api_key: str | None = None) -> None:
        self._http = http
        self._url = f"{url.rstrip('/')}/embeddings"
        self._model = model
        self.dimension = dimension
        self._headers: dict[str, str] = {}
        if api_key is not None:
            self.use_key(api_key)
        self._asking = trio.CapacityLimiter(_AT_ONCE)
        self._waiting = 0

    def __repr__(self) -> str:
        return f"OpenAiEmbedder({self._url!r}, {self._model!r})"

    def use_key(self, api_key: str) -> None:
        """Send this key to the server from the next request on."""
        self._headers = {"authorization": f"Bearer {api_key}"}

    @property
    def name(self) -> str:
        """The model, as shown to operators."""
        return self._model

    @property
    def state(self) -> EmbedderState:
        """Always ready: a server that is down shows only when a text is embedded."""
        return "ready"

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled."""
        ready()
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(1.0, shield=True):
                await self._http.aclose()

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """Return a unit vector for each text, within 20 s. Raises EmbedderUnavailable."""
        if self._waiting >= _WAITING:
            raise EmbedderUnavailable("too many texts wait for the embedding server")
        self._waiting += 1
        try:
            with trio.move_on_after(_ANSWER_WITHIN_S):
                vectors: list[bytes] = []
                for start in range(0, len(texts), _LARGEST_BATCH):
                    async with self._asking:
                        vectors += await self._ask(texts[start : start + _LARGEST_BATCH])
                return vectors
        finally:
            self._waiting -= 1
        raise EmbedderUnavailable(f"the embedding server did not answer within {_ANSWER_WITHIN_S:g} s")

    async def cuts(self, texts: Sequence[str]) -> list[Cut | None]:
        """Return None for each text: the server does not report truncation, and most refuse a text that is too long."""
        return [None] * len(texts)

    async def windows(self, text: str) -> list[bytes]:
        """No windows: the server does not say what its vector of a long text covers."""
        return []

    async def _ask(self, texts: Sequence[str]) -> list[bytes]:
        try:
            answer = await self._http.request(
                "POST",
                self._url,
                json={"model": self._model, "input": list(texts), "encoding_format": "float"},
                headers=self._headers,
                read_s=_ANSWER_WITHIN_S,
                total_s=_ANSWER_WITHIN_S,
                max_bytes=100_000 + len(texts) * self.dimension * _BYTES_PER_NUMBER,
            )
            if answer.status != 200:  # its body may quote the texts that were sent, so it is not shown
                raise EmbedderUnavailable(f"the embedding server answered {answer.status}")
            vectors = answer.decode(_Embeddings).data
        except HttpError as error:
            raise EmbedderUnavailable(f"the embedding server did not answer: {error}") from error
        by_index = {each.index: each.embedding for each in vectors}
        if set(by_index) != set(range(len(texts))) or len(vectors) != len(texts):
            raise EmbedderUnavailable(f"the embedding server gave {len(vectors)} vectors for {len(texts)} texts")
        return [self._unit(by_index[i]) for i in range(len(texts))]

    def _unit(self, numbers: Sequence[float]) -> bytes:
        if len(numbers) != self.dimension:
            raise EmbedderUnavailable(f"the model gives {len(numbers)} numbers, this node takes {self.dimension}")
        norm = math.hypot(*numbers)
        if not math.isfinite(norm) or norm == 0.0:
            raise EmbedderUnavailable("the embedding server gave a vector without a direction")
        return struct.pack(f"<{self.dimension}f", *(number / norm for number in numbers))
