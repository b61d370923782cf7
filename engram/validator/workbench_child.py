"""The program of the workbench's child: `python -m engram.validator.workbench_child` takes a Work, writes a Done."""

import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import trio

from engram import crash_reports, wire
from engram.memory.embed.hash_embedder import HashEmbedder
from engram.memory.embed.minilm import MiniLmEmbedder
from engram.memory.embed.protocol import Embedder
from engram.validator.ground_truth import Entry, read_file
from engram.validator.scoring import TOP_K
from engram.validator.workbench import Candidate, Done, Truth, Work

NICENESS: Final = 19
ENOUGH: Final = 5
"""Right answers that a question has at least, wherever they are from."""
MOST_BYTES: Final = 256 * 1024 * 1024


async def _embedded(embedder: Embedder, work: Work) -> Done:
    async with trio.open_nursery() as nursery:
        await nursery.start(_run, embedder)
        vectors = [vector for text in work.texts for vector in await embedder.embed([text])]
        drafts = [vector for text, *_ in work.drafts for vector in await embedder.embed([text])]
        nursery.cancel_scope.cancel()
    shared = read_file(Path(work.ground_truth)) if work.ground_truth else []
    truths = [
        truth(vector, work.candidates[place], about, shared, work.seeded[place], work.uncertain[place])
        for vector, (_, place, about) in zip(drafts, work.drafts, strict=True)
    ]
    return Done(vectors, truths)


async def _run(embedder: Embedder, task_status: trio.TaskStatus[None]) -> None:
    started: Callable[[], None] = task_status.started
    await embedder.run(started)


def truth(
    vector: bytes,
    candidates: Sequence[Candidate],
    about: Collection[str],
    shared: Sequence[Entry] = (),
    seeded: Collection[str] = (),
    uncertain: Sequence[Candidate] = (),
) -> Truth:
    """Return the 10 records nearest to `vector` by cosine, of a miner's planted ones and of `shared` those `seeded`.

    They end with the last of those that the question is `about`, or after ENOUGH before the first planted record that
    it is not about: what is farther away has nothing to do with it, and any record of a customer may be nearer. They
    are fewer, too, where others could push the last of them out of the first 10 of an answer: `uncertain` records, and
    those of `shared` that the miner was not given yet, as anyone may have given them to it.
    """
    sure = {each.cid: each.vector for each in candidates}
    sure |= {each.cid: each.vector_bytes for each in shared if each.cid in seeded}
    doubtful = {each.cid: each.vector for each in uncertain} | {each.cid: each.vector_bytes for each in shared}
    doubts = [score for score, cid in _by_cosine(vector, doubtful) if cid not in sure]
    nearest = [
        cid
        for place, (score, cid) in enumerate(_by_cosine(vector, sure)[:TOP_K], start=1)
        if place + sum(each >= score for each in doubts) <= TOP_K
    ]
    last = max((place for place, cid in enumerate(nearest, start=1) if cid in about), default=0)
    own = {each.cid for each in candidates}
    strange = (place for place, cid in enumerate(nearest[:last]) if place >= ENOUGH and cid in own and cid not in about)
    nearest = nearest[: next(strange, last)]
    return Truth(vector, nearest, sum(cid in own for cid in nearest))


def _by_cosine(vector: bytes, records: Mapping[str, bytes]) -> list[tuple[float, str]]:
    """Return cosine (not divided by the vector's own length) and CID of the records that fit it, the nearest first."""
    fitting = [(cid, held) for cid, held in records.items() if len(held) == len(vector)]
    if not fitting:
        return []
    rows = np.frombuffer(b"".join(bytes_ for _, bytes_ in fitting), "<f4").reshape(len(fitting), -1)
    lengths = np.linalg.norm(rows, axis=1)
    scores = rows @ np.frombuffer(vector, "<f4") / np.where(lengths > 0, lengths, 1.0)
    return [(float(scores[index]), fitting[index][0]) for index in np.argsort(-scores, kind="stable")]


def main() -> int:
    """Do the work on standard input; returns the exit status."""
    os.nice(NICENESS)
    work = wire.msgpack_decoder(Work).decode(sys.stdin.buffer.read(MOST_BYTES))
    embedder: Embedder
    if work.embedder == "hash":
        embedder = HashEmbedder()
    else:
        embedder = MiniLmEmbedder(Path(work.weights_dir) if work.weights_dir else None, Path(work.cache_dir))
    sys.stdout.buffer.write(msgspec.msgpack.encode(trio.run(_embedded, embedder, work)))
    return 0


if __name__ == "__main__":
    crash_reports.enable()
    sys.exit(main())
