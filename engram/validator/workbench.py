"""What takes seconds of CPU, in a child process at the lowest priority: vectors of texts, and the truth of questions.

`python -m engram.validator.workbench` reads one Work (msgpack) from standard input and writes one Done. A child lives
for one piece of work, so that the model's memory is given back between rounds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, final

import msgspec
import trio

from config.model import MinerSettings
from engram.memory.embed.hash_embedder import HashEmbedder
from engram.memory.embed.minilm import MiniLmEmbedder
from engram.memory.embed.protocol import Embedder
from engram.validator.errors import EmbeddingFailed
from engram.validator.ground_truth import Entry, read_file
from engram.validator.scoring import TOP_K

NICENESS: Final = 19
MOST_BYTES: Final = 256 * 1024 * 1024


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """A record that a miner should hold: its CID and its vector (f32 little-endian)."""

    cid: str
    vector: bytes


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """A question whose truth is to be found among its candidates and the ground-truth file."""

    text: str
    candidates: list[Candidate]


class Work(msgspec.Struct, frozen=True):
    """One piece of work."""

    texts: list[str]
    asked: list[Asked]
    embedder: str
    """minilm | hash"""
    weights_dir: str
    cache_dir: str
    ground_truth: str = ""
    """Path of the ground-truth file; empty: none."""


class Truth(msgspec.Struct, frozen=True, array_like=True):
    """The vector of a question and the CIDs of its 10 nearest records, nearest first; how many of them are planted."""

    vector: bytes
    cids: list[str]
    planted: int


class Done(msgspec.Struct, frozen=True):
    """The answer: a vector for each text, a truth for each question."""

    vectors: list[bytes]
    truths: list[Truth]


@final
class Workbench:
    """Does the work in children of this process."""

    def __init__(self, miner: MinerSettings, cache: Path, ground_truth: str = "", timeout_s: float = 1_800.0) -> None:
        """Take the embedder's settings; `cache` is the folder for its graph."""
        self._miner = miner
        self._cache = cache
        self._ground_truth = ground_truth
        self._timeout_s = timeout_s

    async def __call__(self, texts: Sequence[str], asked: Sequence[Asked]) -> Done:
        """Return the vectors and truths. Raises EmbeddingFailed."""
        work = Work(
            list(texts),
            list(asked),
            embedder=self._miner.embedder,
            weights_dir=self._miner.weights_dir,
            cache_dir=self._miner.cache_dir or str(self._cache),
            ground_truth=self._ground_truth,
        )
        try:
            with trio.fail_after(self._timeout_s):
                done = await trio.run_process(
                    [sys.executable, "-m", "engram.validator.workbench"],
                    stdin=msgspec.msgpack.encode(work),
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                )
        except trio.TooSlowError:
            raise EmbeddingFailed(f"no vectors after {self._timeout_s:.0f} s") from None
        if done.returncode:
            raise EmbeddingFailed(_last_line(done.stderr) or f"the embedder's process ended with {done.returncode}")
        try:
            found = msgspec.msgpack.decode(done.stdout, type=Done)
        except msgspec.MsgspecError as error:
            raise EmbeddingFailed(f"the embedder's process answered nonsense: {error}") from None
        if len(found.vectors) != len(texts) or len(found.truths) != len(asked):
            raise EmbeddingFailed("the embedder's process did not answer everything")
        return found


def _last_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:500] if lines else ""


async def _embedded(embedder: Embedder, work: Work) -> Done:
    async with trio.open_nursery() as nursery:
        await nursery.start(_run, embedder)
        vectors = [vector for text in work.texts for vector in await embedder.embed([text])]
        asked = [vector for each in work.asked for vector in await embedder.embed([each.text])]
        nursery.cancel_scope.cancel()
    shared = read_file(Path(work.ground_truth)) if work.ground_truth else []
    return Done(
        vectors, [truth(vector, each.candidates, shared) for vector, each in zip(asked, work.asked, strict=True)]
    )


async def _run(embedder: Embedder, task_status: trio.TaskStatus[None]) -> None:
    started: Callable[[], None] = task_status.started
    await embedder.run(started)


def truth(vector: bytes, candidates: Sequence[Candidate], shared: Sequence[Entry]) -> Truth:
    """Return the 10 records nearest to `vector` by cosine, of a miner's planted ones and the public file's."""
    import numpy as np  # in the node's extra, which a validator needs; this child alone loads it

    found = [(each.cid, each.vector) for each in candidates] + [(each.cid, each.vector_bytes) for each in shared]
    found = [each for each in found if len(each[1]) == len(vector)]
    if not found:
        return Truth(vector, [], 0)
    rows = np.frombuffer(b"".join(bytes_ for _, bytes_ in found), "<f4").reshape(len(found), -1)
    lengths = np.linalg.norm(rows, axis=1)
    scores = rows @ np.frombuffer(vector, "<f4") / np.where(lengths > 0, lengths, 1.0)
    order = np.argsort(-scores, kind="stable")[:TOP_K]
    nearest = [found[index][0] for index in order]
    own = {each.cid for each in candidates}
    return Truth(vector, nearest, sum(cid in own for cid in nearest))


def main() -> int:
    """Do the work on standard input; returns the exit status."""
    os.nice(NICENESS)
    work = msgspec.msgpack.decode(sys.stdin.buffer.read(MOST_BYTES), type=Work)
    embedder: Embedder
    if work.embedder == "hash":
        embedder = HashEmbedder()
    else:
        embedder = MiniLmEmbedder(Path(work.weights_dir) if work.weights_dir else None, Path(work.cache_dir))
    sys.stdout.buffer.write(msgspec.msgpack.encode(trio.run(_embedded, embedder, work)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
