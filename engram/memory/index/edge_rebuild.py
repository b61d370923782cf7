"""Decides when a graph is built and runs the build, one step at a time between the worker's requests."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from engram import children
from engram.children import Program
from engram.memory.index import patience
from engram.memory.index.edge_shards import Shards
from engram.memory.index.parent_death import tell

DELETED_FROM = 1_000
"""A shard with this many deleted vectors is worth rebuilding: 4 MB of vectors of 384 numbers."""
_LOOK_EVERY_S = 0.5
_QUIET_S = 2.0
_STEP = 64
"""Changes applied to the copy before the worker looks at its requests again: about 10 ms."""
_RETRY_AFTER_S = 60.0


class Rebuild:
    """Call `step` repeatedly. A graph is due from `graph_from` vectors without one."""

    def __init__(
        self,
        shards: Shards,
        truth_path: Path,
        dimension: int,
        truth_id: str,
        graph_from: int,
        deleted_from: int = DELETED_FROM,
    ) -> None:
        self._shards = shards
        self._truth_path = truth_path
        self._dimension = dimension
        self._truth_id = truth_id
        self._graph_from = graph_from
        self._deleted_from = deleted_from
        self._process: subprocess.Popen[bytes] | None = None
        self._levelling = False
        self._waiting_since = 0.0
        self._niceness = patience.NICENESS[0]
        self._vectors = 0
        self._name = ""
        self._built: dict[str, int] = {}
        self._look_at = 0.0
        self._changed_at = time.monotonic()

    @property
    def is_levelling(self) -> bool:
        """Whether `step` has work now; otherwise it waits for time to pass or for the builder."""
        return self._levelling

    @property
    def wait_s(self) -> float:
        """The most seconds to wait before calling `step` again."""
        return 0.05 if self._process is not None else _LOOK_EVERY_S

    def noticed_change(self) -> None:
        """Put off a start until changes pause, unless very many vectors are without a graph."""
        self._changed_at = time.monotonic()

    def step(self) -> None:
        """Start a builder when one is due; take over the shard that one has built."""
        if self._levelling:
            if self._shards.level_copy(_STEP):
                self._levelling = False
                self._shards.swap()
                # vectors that a build left without a graph would be left without one again
                self._built = {**self._built, self._name: self._shards.graphs()[self._name][1]}
        elif self._process is not None:
            self._take_over()
        elif time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_EVERY_S
            quiet = time.monotonic() - self._changed_at > _QUIET_S
            graphs = {
                name: (max(indexed, self._built.get(name, 0)), points)
                for name, (indexed, points) in self._shards.graphs().items()
            }
            name = due(graphs, self._graph_from, quiet=quiet)
            if name is None and quiet:
                points = {name: there for name, (_, there) in graphs.items()}
                name = crowded(self._shards.deleted(), points, self._deleted_from)
            if name is not None:
                self._name, self._vectors = name, graphs[name][1]
                self._waiting_since = time.monotonic()
                self._start(patience.NICENESS[0])

    def give_up(self) -> None:
        """End the builder and discard its work."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._levelling = False
        self._shards.abandon_copy()

    def _start(self, niceness: int) -> None:
        self._niceness = niceness
        target = self._shards.begin_copy(self._name)
        self._process = subprocess.Popen(
            [
                *children.command(Program.INDEX_BUILDER, str(self._truth_path), str(target)),
                *(str(self._dimension), self._truth_id, self._name, str(os.getpid()), str(niceness)),
            ],
            stdin=subprocess.DEVNULL,
        )

    def _lose_patience(self) -> None:
        """Raise the priority of a builder that waits long for the processor; restart it when that is not allowed."""
        assert self._process is not None
        waited_s = time.monotonic() - self._waiting_since
        wanted = patience.niceness(waited_s, self._vectors)
        if wanted == patience.NICENESS[0] or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        may = patience.relax(self._process.pid, wanted)  # repeatedly: the engine starts new threads at the old priority
        if wanted == self._niceness:
            return
        tell(f"index: a graph is not built after {waited_s:.0f} s; its builder goes on with niceness {wanted}")
        if may:
            self._niceness = wanted
        else:
            self.give_up()
            self._start(wanted)

    def _take_over(self) -> None:
        assert self._process is not None
        status = self._process.poll()
        if status is None:
            self._lose_patience()
            return
        self._process = None
        if status != 0:
            tell(f"index: building a graph failed with {status}; the index goes on without")
            self._look_at = time.monotonic() + _RETRY_AFTER_S
            self._shards.abandon_copy()
            return
        self._shards.open_copy()
        self._levelling = True


def due(graphs: Mapping[str, tuple[int, int]], graph_from: int, *, quiet: bool) -> str | None:
    """Return the shard that is due for a build, or None.

    A shard is due when its vectors without a graph number at least `graph_from` and a quarter of those with one; while
    changes come in, five times as many are needed, so that a bulk load causes few builds.

    >>> due({"public": (0, 9), "private": (0, 10)}, 10, quiet=True)
    'private'
    >>> due({"public": (0, 49), "private": (100, 120)}, 10, quiet=False)
    """
    for name, (indexed, points) in graphs.items():
        missing = points - indexed
        if missing >= max(graph_from, indexed // 4) and (quiet or missing >= 5 * graph_from):
            return name
    return None


def crowded(deleted: Mapping[str, int], points: Mapping[str, int], deleted_from: int) -> str | None:
    """Return the shard to rebuild because deleted vectors take a third or more of its space, or None.

    The engine never frees that space: a node that deletes as much as it stores would fill its disk.

    >>> crowded({"public": 9, "private": 10}, {"public": 2, "private": 20}, 10)
    'private'
    >>> crowded({"public": 10, "private": 0}, {"public": 40, "private": 0}, 10)
    """
    for name, gone in deleted.items():
        if gone >= max(deleted_from, points[name] // 2):
            return name
    return None
