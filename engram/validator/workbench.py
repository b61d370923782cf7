"""What takes seconds of CPU, in a child process at the lowest priority: vectors of texts, and the truth of questions.

A child (workbench_child.py) reads one Work (msgpack) from standard input and writes one Done. It lives for one piece of
work, so that the model's memory is given back between rounds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import final

import msgspec
import trio

from config.model import MinerSettings
from engram import children, wire
from engram.children import Program
from engram.validator.errors import EmbeddingFailed


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """A record that a miner should hold: its CID and its vector (f32 little-endian)."""

    cid: str
    vector: bytes


class Draft(msgspec.Struct, frozen=True, array_like=True):
    """A question, drafted, whose truth is to be found among its candidates and the ground-truth file."""

    text: str
    candidates: list[Candidate]
    about: list[str]
    """CIDs of those candidates that the question is about: nothing that is farther away than these is asked for."""
    seeded: frozenset[str] = frozenset()
    """CIDs of the file's records that count."""
    uncertain: list[Candidate] = []
    """Records that the miner may hold or not: what they could push out of its first 10 is left out of the truth."""


class Work(msgspec.Struct, frozen=True):
    """One piece of work."""

    texts: list[str]
    drafts: list[tuple[str, int, list[str]]]
    """Text of each question, which of `candidates` are its, and the CIDs of those that it is about."""
    candidates: list[list[Candidate]]
    seeded: list[frozenset[str]]
    """The records of the ground-truth file that stand beside each of `candidates`."""
    uncertain: list[list[Candidate]]
    """The uncertain records beside each of `candidates`."""
    embedder: str
    """minilm | hash"""
    weights_dir: str
    cache_dir: str
    ground_truth: str = ""
    """Path of the ground-truth file; empty: none."""


class Truth(msgspec.Struct, frozen=True, array_like=True):
    """The vector of a question and the CIDs of its nearest records, nearest first: 10 at most, and how many of them are
    planted."""

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

    async def __call__(self, texts: Sequence[str], drafts: Sequence[Draft]) -> Done:
        """Return the vectors and truths. Raises EmbeddingFailed."""
        pools = {id(each.candidates): each for each in drafts}  # the questions of a miner share theirs
        places = {pool: place for place, pool in enumerate(pools)}
        work = Work(
            list(texts),
            [(each.text, places[id(each.candidates)], each.about) for each in drafts],
            [each.candidates for each in pools.values()],
            [each.seeded for each in pools.values()],
            [each.uncertain for each in pools.values()],
            embedder=self._miner.embedder,
            weights_dir=self._miner.weights_dir,
            cache_dir=self._miner.cache_dir or str(self._cache),
            ground_truth=self._ground_truth,
        )
        try:
            with trio.fail_after(self._timeout_s):
                done = await trio.run_process(
                    children.command(Program.WORKBENCH),
                    env=children.environment(os.environ),
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
            found = wire.msgpack_decoder(Done).decode(done.stdout)
        except msgspec.MsgspecError as error:
            raise EmbeddingFailed(f"the embedder's process answered nonsense: {error}") from None
        if len(found.vectors) != len(texts) or len(found.truths) != len(drafts):
            raise EmbeddingFailed("the embedder's process did not answer everything")
        return found


def _last_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:500] if lines else ""
