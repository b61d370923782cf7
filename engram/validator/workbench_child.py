"""The program of the workbench's child: `python -m engram.validator.workbench_child` takes a Work, writes a Done."""

import os
import sys
from collections.abc import Callable, Sequence
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
MOST_BYTES: Final = 256 * 1024 * 1024


async def _embedded(embedder: Embedder, work: Work) -> Done:
    async with trio.open_nursery() as nursery:
        await nursery.start(_run, embedder)
        vectors = [vector for text in work.texts for vector in await embedder.embed([text])]
        drafts = [vector for text, _ in work.drafts for vector in await embedder.embed([text])]
        nursery.cancel_scope.cancel()
    shared = read_file(Path(work.ground_truth)) if work.ground_truth else []
    truths = [
        truth(vector, work.candidates[place], [each for each in shared if each.cid in work.seeded[place]])
        for vector, (_, place) in zip(drafts, work.drafts, strict=True)
    ]
    return Done(vectors, truths)


async def _run(embedder: Embedder, task_status: trio.TaskStatus[None]) -> None:
    started: Callable[[], None] = task_status.started
    await embedder.run(started)


def truth(vector: bytes, candidates: Sequence[Candidate], shared: Sequence[Entry]) -> Truth:
    """Return the 10 records nearest to `vector` by cosine, of a miner's planted ones and its seeded ones (`shared`)."""
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
