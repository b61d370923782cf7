"""all-MiniLM-L6-v2 on onnxruntime, in a thread (onnxruntime releases the GIL).

Texts are embedded one at a time. In a batch the last bits of a vector depend on the other texts (measured: 62 of 64
texts), and so does its CID; alone, the same text always gives the same bytes. One thread, no memory arena: 145 MB in
all, 5 to 9 ms for a short text.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

import structlog
import trio

from engram.memory.embed import minilm_graph, weights
from engram.memory.embed.protocol import MOST_WINDOWS, WINDOW_STRIDE, WINDOW_TOKENS, Cut, EmbedderState
from engram.memory.embed.weights_hub import Hub, HubUnavailable
from engram.memory.errors import EmbedderUnavailable, WeightsRefused

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

_WAITING = 64
_BATCHES_AT_ONCE = 1
"""Requests with several texts that are embedded at the same time: one, so that a single text (a search above all) waits
for one text of one request, not for one text of each."""
_ANSWER_WITHIN_S = 20.0
_FIRST_WAIT_S = 5.0
_LONGEST_WAIT_S = 300.0

_log = structlog.get_logger("engram.memory")


@final
class MiniLmEmbedder:
    """Loads the model in the background while `run` runs; `embed` waits for it.

    `weights_dir` is a folder with the published files. Without it they are downloaded from `hub`, and without a hub
    they are read from the installed package. `cache` is the folder for the graph. An unreachable hub is retried after
    5 s to 5 min.
    """

    dimension = minilm_graph.DIMENSION

    def __init__(self, weights_dir: Path | None, cache: Path, hub: Hub | None = None) -> None:
        self._weights_dir = weights_dir
        self._hub = hub
        self._cache = cache
        self._waiting_for = "the model is loading"
        self._model: _Model | None = None
        self._refused: str | None = None
        self._settled = trio.Event()
        self._thread = trio.CapacityLimiter(1)
        self._batches = trio.CapacityLimiter(_BATCHES_AT_ONCE)
        self._room = trio.CapacityLimiter(_WAITING)

    @property
    def name(self) -> str:
        """The model, as shown to operators."""
        return "all-MiniLM-L6-v2"

    @property
    def state(self) -> EmbedderState:
        """Whether texts can be embedded now."""
        if self._refused is not None:
            return "failed"
        return "loading" if self._model is None else "ready"

    async def run(self, ready: Callable[[], None]) -> None:
        """Load the model; requests with texts wait for it, requests with vectors do not."""
        ready()
        try:
            folder = self._weights_dir
            if folder is None and self._hub is not None:
                folder = await self._fetched(self._hub)
            self._model = await trio.to_thread.run_sync(_Model.load, folder, self._cache)
        except ImportError as error:
            self._refused = f"{error}; install engram with its extra `node`"
        except (WeightsRefused, OSError) as error:
            self._refused = str(error)
        self._settled.set()
        await trio.sleep_forever()

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """Return the vector of each text. Raises EmbedderUnavailable."""
        with trio.move_on_after(_ANSWER_WITHIN_S):
            async with self._batches if len(texts) > 1 else contextlib.nullcontext(), self._room:
                await self._settled.wait()
                if self._model is None:
                    raise EmbedderUnavailable(f"texts cannot be embedded: {self._refused}")
                return [await trio.to_thread.run_sync(self._model.vector, text, limiter=self._thread) for text in texts]
        reason = "" if self._settled.is_set() else f": {self._waiting_for}"
        raise EmbedderUnavailable(f"the embedder did not answer within {_ANSWER_WITHIN_S:g} s{reason}")

    async def cuts(self, texts: Sequence[str]) -> list[Cut | None]:
        """Return what each text has beyond the model's token limit; None for each while the model is not loaded."""
        model = self._model
        if model is None:
            return [None] * len(texts)
        return [await trio.to_thread.run_sync(model.cut, text, limiter=self._thread) for text in texts]

    async def windows(self, text: str) -> list[bytes]:
        """Return the vectors of all windows of a text but the first, which is that of `embed`; MOST_WINDOWS in all.

        Windows are embedded one by one, so that a search waits for one of them at most.
        """
        await self._settled.wait()
        if self._model is None:
            raise EmbedderUnavailable(f"texts cannot be embedded: {self._refused}")
        further = await trio.to_thread.run_sync(self._model.further, text, limiter=self._thread)
        return [await trio.to_thread.run_sync(self._model.vector_of, ids, limiter=self._thread) for ids in further]

    async def _fetched(self, hub: Hub) -> Path:
        def report_progress(done: int, total: int) -> None:
            self._waiting_for = f"its weights are being downloaded, {done / 1e6:.0f} of {total / 1e6:.0f} MB"

        hub.on_progress = report_progress
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                return await hub.fetch()
            except (HubUnavailable, OSError) as error:
                self._waiting_for = f"its weights cannot be downloaded now: {error}"
                _log.warning("weights_not_downloaded", reason=str(error), again_in_s=wait_s)
            await trio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


@final
class _Model:
    """The loaded model; blocking, for one thread at a time."""

    def __init__(self, session: InferenceSession, tokenizer: Tokenizer, overlapping: Tokenizer) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self._overlapping = overlapping

    @classmethod
    def load(cls, weights_dir: Path | None, cache: Path) -> _Model:
        # The official wheels send telemetry from import on unless it is disabled first; a node must not.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime
        from tokenizers import Tokenizer

        files = weights.find(weights_dir)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(files.weights.parent)
        )
        graph = minilm_graph.cached(files.weights, cache)
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        tokenizer = Tokenizer.from_file(str(files.tokenizer))
        tokenizer.enable_truncation(minilm_graph.MAX_TOKENS)
        tokenizer.no_padding()
        overlapping = Tokenizer.from_file(str(files.tokenizer))
        overlapping.enable_truncation(minilm_graph.MAX_TOKENS, stride=WINDOW_TOKENS - WINDOW_STRIDE)
        overlapping.no_padding()
        model = cls(session, tokenizer, overlapping)
        model.vector("engram")  # a model that loads may still fail to compute
        return model

    def vector(self, text: str) -> bytes:
        return self.vector_of(self._tokenizer.encode(text).ids)

    def further(self, text: str) -> list[list[int]]:
        return [each.ids for each in self._overlapping.encode(text).overflowing[: MOST_WINDOWS - 1]]

    def vector_of(self, tokens: Sequence[int]) -> bytes:
        import numpy as np

        ids = np.array([tokens], dtype=np.int64)
        (vectors,) = self._session.run(["vectors"], {"ids": ids, "mask": np.ones_like(ids)})
        return np.asarray(vectors, dtype="<f4").tobytes()

    def cut(self, text: str) -> Cut | None:
        read = self._tokenizer.encode(text)
        if not read.overflowing:
            return None
        used, *others = (each.special_tokens_mask.count(0) for each in (read, *read.overflowing))
        return Cut(used + sum(others), used)
