"""The index on disk: one Qdrant Edge shard for public vectors, one for all private ones, and a mark.

Every call blocks and holds the GIL for its whole length (measured), so this runs in the worker process only.
The mark (`mark.json`) says for which truth and up to which sequence the shards are safely on disk, and which
folders they are; it is written after each flush. A folder without a readable mark is rebuilt from the truth.

A shard is replaced by a copy that another process builds from the truth: `begin_copy` names its folder and
notes every change from then on, `open_copy` opens what was built, `level_copy` brings it up to date in small
steps, and `swap` writes the mark that names it. A crash before that mark leaves the old shard, one after it the
new; a folder that no mark names is removed when the index is opened.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import qdrant_edge as edge

from engram import files
from engram.memory.index import edge_shard
from engram.memory.index.edge_wire import Place, Remove, Search

_FORMAT = 4
_MARK = "mark.json"


class Shards:
    """Both shards, opened for one truth. Raises what Qdrant Edge raises (plain Exception)."""

    def __init__(self, folder: Path, dimension: int, truth_id: str) -> None:
        self._folder = folder
        self._dimension = dimension
        self._truth_id = truth_id
        self._paths = dict(zip(edge_shard.NAMES, edge_shard.NAMES, strict=True))
        self._copy: edge.EdgeShard | None = None
        self._copying: tuple[str, str] | None = None
        self._changed: dict[int, None] = {}
        self._deleted = dict.fromkeys(edge_shard.NAMES, 0)
        self.sequence = self._read_mark()
        """The last change that was applied."""
        self.flushed = self.sequence
        """The last change that is safely on disk."""
        if self.sequence < 0:
            self._clear()
        self._sweep()
        self._open = self._load()

    def apply(self, changes: Sequence[Place | Remove], sequence: int) -> None:
        """Apply the changes to both shards."""
        for name, shard in self._open.items():
            mine = [change for change in changes if (change.private_to is not None) == (name == "private")]
            placed = [edge_shard.point(change) for change in mine if isinstance(change, Place)]
            removed: list[edge.PointId] = [change.id for change in mine if isinstance(change, Remove)]
            if placed:
                shard.update(edge.UpdateOperation.upsert_points(placed))
            if removed:
                shard.update(edge.UpdateOperation.delete_points(removed))
                self._deleted[name] += len(removed)
            if self._copying is not None and self._copying[0] == name:
                self._changed.update((change.id, None) for change in mine)
        self.sequence = max(self.sequence, sequence)

    def search(self, searches: Sequence[Search]) -> list[list[tuple[int, float]]]:
        """Return the hits of each search; those on the same shard share one pass."""
        answers: list[list[tuple[int, float]]] = [[] for _ in searches]
        for name, shard in self._open.items():
            mine = [i for i, search in enumerate(searches) if (search.private_to is not None) == (name == "private")]
            if not mine:
                continue
            batch = edge.QueryBatchRequest([edge_shard.query(searches[i]) for i in mine])
            for i, points in zip(mine, shard.query_batch(batch), strict=True):
                answers[i] = [(int(point.id), point.score) for point in points]
        return answers

    def check(self) -> None:
        """Search each shard once as a check; it does not find every corrupt file.

        Raises what the engine raises for a corrupt file, ValueError when a shard that has vectors finds none.
        """
        search = Search(0, None, struct.pack(f"<{self._dimension}f", *[1.0] * self._dimension), 1, [])
        for name, shard in self._open.items():
            # the graph of private vectors does not link namespaces: a search over all of them would find nothing
            query = edge_shard.query(search, exact=name == "private")
            [found] = shard.query_batch(edge.QueryBatchRequest([query]))
            if not found and shard.count(edge.CountRequest(exact=True)) > 0:
                raise ValueError(f"none of the {name} vectors is found")

    def points(self) -> int:
        """Return how many vectors there are."""
        return sum(shard.count(edge.CountRequest(exact=True)) for shard in self._open.values())

    def graphs(self) -> dict[str, tuple[int, int]]:
        """Return for each shard about how many vectors its graph has, and how many there are."""
        infos = {name: shard.info() for name, shard in self._open.items()}
        return {name: (info.indexed_vectors_count, info.points_count) for name, info in infos.items()}

    def deleted(self) -> dict[str, int]:
        """Return for each shard about how many vectors were deleted since it was built; their space is not free."""
        return dict(self._deleted)

    def flush(self) -> None:
        """Bring both shards to disk, then the mark."""
        for shard in self._open.values():
            shard.flush()
        self._write_mark()
        self.flushed = self.sequence

    def close(self) -> None:
        """Flush and close."""
        self.abandon_copy()
        self.flush()
        self._close()

    def reset(self) -> None:
        """Delete all vectors."""
        self.abandon_copy()
        self._close()
        self._clear()
        self._open = self._load()

    def begin_copy(self, name: str) -> Path:
        """Start noting the changes of shard `name` for its copy; return the path at which the copy is to be built."""
        generation = sum(1 for _ in self._folder.iterdir())
        while (self._folder / f"{name}-{generation}").exists():
            generation += 1
        self._copying = (name, f"{name}-{generation}")
        self._changed.clear()
        return self._folder / self._copying[1]

    def open_copy(self) -> None:
        """Open the copy that was built."""
        assert self._copying is not None
        self._copy = edge.EdgeShard.load(str(self._folder / self._copying[1]))

    def level_copy(self, at_most: int) -> bool:
        """Apply the next `at_most` noted changes to the copy; return True when none is left."""
        assert self._copying is not None
        assert self._copy is not None
        taken = [number for number, _ in zip(self._changed, range(at_most), strict=False)]
        for number in taken:
            del self._changed[number]
        if taken:
            edge_shard.copy_points(self._open[self._copying[0]], self._copy, taken)
        return not self._changed

    def swap(self) -> None:
        """Replace the shard by its copy, which must be up to date, and flush both shards."""
        assert self._copying is not None
        assert self._copy is not None
        name, there = self._copying
        old, gone = self._open[name], self._paths[name]
        self._open[name], self._paths[name], self._deleted[name] = self._copy, there, 0
        self._copy = self._copying = None
        self.flush()
        old.close()
        shutil.rmtree(self._folder / gone, ignore_errors=True)

    def abandon_copy(self) -> None:
        """Discard the copy in whatever state it is."""
        if self._copy is not None:
            self._copy.close()
        if self._copying is not None:
            shutil.rmtree(self._folder / self._copying[1], ignore_errors=True)
        self._copy = self._copying = None
        self._changed.clear()

    def _clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self.sequence = self.flushed = 0
        self._deleted = dict.fromkeys(edge_shard.NAMES, 0)
        self._paths = dict(zip(edge_shard.NAMES, edge_shard.NAMES, strict=True))
        for name, path in self._paths.items():
            edge_shard.create(self._folder / path, self._dimension, name).close()
        self._write_mark()

    def _sweep(self) -> None:
        for path in self._folder.iterdir():
            if path.is_dir() and path.name not in self._paths.values():
                shutil.rmtree(path, ignore_errors=True)

    def _load(self) -> dict[str, edge.EdgeShard]:
        return {name: edge.EdgeShard.load(str(self._folder / path)) for name, path in self._paths.items()}

    def _close(self) -> None:
        for shard in self._open.values():
            shard.close()

    def _read_mark(self) -> int:
        try:
            mark = json.loads((self._folder / _MARK).read_bytes())
            expected = {"format": _FORMAT, "dimension": self._dimension, "truth_id": self._truth_id}
            if {key: mark[key] for key in expected} != expected:
                return -1
            self._paths = {name: Path(str(mark["shards"][name])).name for name in edge_shard.NAMES}
            self._deleted |= {name: int(mark.get("deleted", {}).get(name, 0)) for name in edge_shard.NAMES}
            return int(mark["sequence"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return -1

    def _write_mark(self) -> None:
        write_mark(self._folder, self._dimension, self._truth_id, self.sequence, self._paths, self._deleted)


def write_mark(
    folder: Path,
    dimension: int,
    truth_id: str,
    sequence: int,
    shards: Mapping[str, str],
    deleted: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Write the mark to disk: the shards in these folders have everything up to change `sequence` of that truth, and
    this many vectors were deleted from them."""
    mark = {
        "format": _FORMAT,
        "dimension": dimension,
        "truth_id": truth_id,
        "sequence": sequence,
        "shards": dict(shards),
        "deleted": dict(deleted),
    }
    staged = folder / f".{_MARK}"
    with open(staged, "w", encoding="ascii") as file:
        json.dump(mark, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, folder / _MARK)
    files.sync(folder)
