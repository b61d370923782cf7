"""A graph is built beside the index that serves, from the truth, and taken over without anything lost."""

import contextlib
import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import qdrant_edge as edge
import trio

from engram.clock import SeededIds, SystemClock
from engram.durable.connection import open_reader
from engram.durable.driver import sqlite3
from engram.memory.filters import EVERYTHING
from engram.memory.index import edge_build, edge_shard, patience
from engram.memory.index.edge_index import EdgeIndex
from engram.memory.index.edge_rebuild import Rebuild
from engram.memory.index.edge_shards import Shards
from engram.memory.index.edge_wire import Place, Remove, Search
from engram.memory.index.protocol import Index
from engram.memory.model import PUBLIC
from engram.memory.store import record_sql
from engram.memory.store.record_db import Truth
from tests.memory.stores import DIMENSION, entry, excerpt, opened, random_vector, until, vector


def building(folder: Path, graph_from: int) -> Callable[[Truth], Index]:
    return lambda truth: EdgeIndex(
        folder / "index", DIMENSION, truth.truth_id, truth_path=folder / "truth.db", graph_from=graph_from
    )


def generations(folder: Path) -> set[str]:
    return {path.name for path in (folder / "index").iterdir() if path.is_dir()}


async def test_a_copy_is_built_and_taken_over_while_records_come_and_go(tmp_path: Path) -> None:
    rng = random.Random(3)
    async with opened(tmp_path, building(tmp_path, 10)) as both:
        stored = [
            await both.store.put(entry(random_vector(rng), namespace))
            for namespace in (PUBLIC, "mine")
            for _ in range(60)
        ]
        while generations(tmp_path) & {"public", "private"}:
            stored.append(await both.store.put(entry(random_vector(rng), rng.choice([PUBLIC, "mine"]))))
            gone = stored.pop(rng.randrange(len(stored)))
            assert await both.store.delete(gone.namespace, gone.cid)
            wanted = rng.choice(stored)
            (hit,) = await both.store.query(wanted.namespace, wanted.embedding, 1, EVERYTHING)
            assert hit.record == excerpt(wanted)
        assert both.deaths == 0
        assert await both.index.points() == len(stored)
        for namespace in (PUBLIC, "mine"):
            hits = await both.store.query(namespace, vector(1), 500, EVERYTHING)
            assert {hit.record.cid for hit in hits} == {each.cid for each in stored if each.namespace == namespace}
    async with opened(tmp_path, building(tmp_path, 10_000)) as both:
        await until(lambda: both.store.usable)
        assert await both.index.points() == len(stored)


async def test_a_worker_killed_while_it_takes_over_has_lost_nothing(tmp_path: Path) -> None:
    rng = random.Random(4)
    async with opened(tmp_path, building(tmp_path, 10)) as both:
        index = both.index
        assert isinstance(index, EdgeIndex)
        stored = [await both.store.put(entry(random_vector(rng))) for _ in range(50)]
        await until(lambda: len(generations(tmp_path)) > 2)
        assert index.worker_pid is not None
        os.kill(index.worker_pid, signal.SIGKILL)
        hits = await both.store.query(PUBLIC, vector(1), 500, EVERYTHING)
        assert {hit.record.cid for hit in hits} == {record.cid for record in stored}
        await until(lambda: "public" not in generations(tmp_path))
        hits = await both.store.query(PUBLIC, vector(1), 500, EVERYTHING)
        assert {hit.record.cid for hit in hits} == {record.cid for record in stored}


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return Shards(tmp_path / "index", DIMENSION, "this truth")


def found(shards: Shards) -> set[int]:
    (hits,) = shards.search([Search(1, None, vector(1), 100, [])])
    return {number for number, _ in hits}


def test_what_changes_after_a_copy_was_begun_is_brought_into_it(tmp_path: Path, shards: Shards) -> None:
    shards.apply([Place(number, None, vector(1, number), []) for number in range(1, 6)], 5)
    target = shards.begin_copy("public")
    copy = edge_shard.create(target, DIMENSION, "public")
    seen = [Place(number, None, vector(1, number), []) for number in range(1, 4)]  # 4 and 5 were too late
    copy.update(edge.UpdateOperation.upsert_points([edge_shard.point(place) for place in seen]))
    copy.close()
    shards.apply([Place(4, None, vector(1, 4), []), Place(5, None, vector(1, 5), []), Remove(2, None)], 8)
    shards.apply([Place(9, "mine", vector(1), [])], 9)
    shards.open_copy()
    assert not shards.level_copy(2)
    assert shards.level_copy(2)
    shards.swap()
    assert found(shards) == {1, 3, 4, 5}
    assert shards.flushed == 9
    shards.close()
    again = Shards(tmp_path / "index", DIMENSION, "this truth")
    assert found(again) == {1, 3, 4, 5}
    assert again.sequence == 9
    assert generations(tmp_path) == {"private", target.name}
    again.close()


def test_a_copy_that_was_given_up_leaves_no_trace(tmp_path: Path, shards: Shards) -> None:
    shards.apply([Place(1, None, vector(1), [])], 1)
    edge_shard.create(shards.begin_copy("public"), DIMENSION, "public").close()
    shards.open_copy()
    shards.abandon_copy()
    assert generations(tmp_path) == {"public", "private"}
    assert found(shards) == {1}
    shards.close()


async def test_a_shard_of_which_much_was_deleted_is_built_anew(tmp_path: Path) -> None:
    async with opened(tmp_path, building(tmp_path, 10_000)) as both:
        stored = [await both.store.put(entry(vector(1, number))) for number in range(30)]
        for record in stored[:20]:
            await both.store.delete(PUBLIC, record.cid)
    shards = Shards(tmp_path / "index", DIMENSION, both.truth.truth_id)
    assert shards.deleted() == {"public": 20, "private": 0}
    rebuild = Rebuild(shards, tmp_path / "truth.db", DIMENSION, both.truth.truth_id, 10_000, deleted_from=20)
    while shards.deleted()["public"]:
        rebuild.step()
        await trio.sleep(0.001)
    assert found(shards) == {record.id for record in stored[20:]}
    assert generations(tmp_path) == {"private", "public-3"}
    shards.close()
    again = Shards(tmp_path / "index", DIMENSION, both.truth.truth_id)
    assert again.deleted() == {"public": 0, "private": 0}
    again.close()


def test_a_built_shard_has_a_graph_over_everything(tmp_path: Path) -> None:
    rng = random.Random(6)
    dimension, amount = 384, 900
    Truth.open(tmp_path / "truth.db", SystemClock(), SeededIds(1)).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "truth.db")) as connection:
        for _ in range(amount):
            numbers = struct.pack(f"<{dimension}f", *(rng.gauss(0, 1) for _ in range(dimension)))
            record_sql.put(connection, entry(numbers), 1.0)
        connection.commit()
    placed: list[int] = []
    with contextlib.closing(open_reader(tmp_path / "truth.db")) as connection:
        assert edge_build.build(connection, tmp_path / "shard", dimension, "public", placed.append) == amount
    assert sum(placed) == amount
    shard = edge.EdgeShard.load(str(tmp_path / "shard"))
    assert shard.info().indexed_vectors_count == amount
    shard.close()


def test_an_index_with_a_graph_of_private_vectors_is_sound_when_it_is_opened_again(tmp_path: Path) -> None:
    rng = random.Random(7)
    dimension = 2_048  # of so large ones even a few are too many to be scanned
    places = [
        Place(
            number,
            f"tenant_{number % 10}",
            struct.pack(f"<{dimension}f", *(rng.gauss(0, 1) for _ in range(dimension))),
            [],
        )
        for number in range(1, 1_001)
    ]
    shards = Shards(tmp_path / "index", dimension, "this truth")
    shards.apply(places, 1_000)
    built = edge_shard.create(shards.begin_copy("private"), dimension, "private")
    built.update(edge.UpdateOperation.upsert_points([edge_shard.point(place) for place in places]))
    built.optimize()
    built.close()
    shards.open_copy()
    assert shards.level_copy(10_000)
    shards.swap()
    assert shards.graphs()["private"] == (1_000, 1_000)
    shards.check()
    shards.close()


class Starved:
    """A builder that gets no processor."""

    pid = 1
    started: ClassVar[list[int]] = []

    def __init__(self, command: list[str], **_: object) -> None:
        self.started.append(int(command[-1]))

    def poll(self) -> None:
        return None

    def kill(self) -> None:
        return None

    def wait(self) -> int:
        return -9


@pytest.mark.parametrize("may_relax", [True, False])
def test_a_builder_that_waits_long_is_less_nice(
    tmp_path: Path, shards: Shards, monkeypatch: pytest.MonkeyPatch, may_relax: bool
) -> None:
    now_s = 1_000.0
    relaxed: list[int] = []

    def relax(process: int, to: int) -> bool:
        relaxed.append(to)
        return may_relax

    monkeypatch.setattr("engram.memory.index.edge_rebuild.time.monotonic", lambda: now_s)
    monkeypatch.setattr("engram.memory.index.edge_rebuild.subprocess.Popen", Starved)
    monkeypatch.setattr(patience, "relax", relax)
    monkeypatch.setattr(Starved, "started", [])
    shards.apply([Place(number, None, vector(1, number), []) for number in range(1, 6)], 5)
    rebuild = Rebuild(shards, tmp_path / "truth.db", DIMENSION, "this truth", graph_from=5)
    for later_s in (10.0, 4.9, 0.2, 0.1, 10.0, 10_000.0):
        now_s += later_s
        rebuild.step()
    assert relaxed == [5, 0, 0]
    assert Starved.started == ([15] if may_relax else [15, 5, 0])
    shards.close()


def test_all_threads_of_a_builder_are_less_nice_where_that_is_allowed() -> None:
    program = (
        "import os, sys, threading; os.nice(15); threading.Thread(target=sys.stdin.read).start(); print(flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        allowed = patience.relax(child.pid, 5)
        threads = [int(each.name) for each in Path(f"/proc/{child.pid}/task").iterdir()]
        assert len(threads) == 2
        assert {os.getpriority(os.PRIO_PROCESS, each) for each in threads} == ({5} if allowed else {15})
    assert patience.relax(child.pid, 0)
