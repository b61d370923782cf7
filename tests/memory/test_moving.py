"""`engram miner reindex` and `push`: the index built anew, and moved to a server."""

import random
from pathlib import Path

import pytest
import trio

from engram.cli import main
from engram.memory.filters import EVERYTHING
from engram.memory.index import edge_reindex
from engram.memory.index.qdrant_index import QdrantIndex
from engram.memory.index.qdrant_push import push
from engram.memory.model import PUBLIC
from engram.miner import folder
from tests.fakes.qdrant_server import QdrantDouble
from tests.memory.stores import DIMENSION, entry, opened, random_vector, vector
from tests.shared import needs_shared

AMOUNT = 300


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A node's folder with 300 records, a third of them deleted again."""
    trio.run(_fill, tmp_path)
    return tmp_path


async def _fill(tmp_path: Path) -> None:
    rng = random.Random(2)
    async with opened(tmp_path) as both:
        async with trio.open_nursery() as nursery:
            for number in range(AMOUNT):
                nursery.start_soon(both.store.put, entry(random_vector(rng), "mine" if number % 2 else PUBLIC))
        for namespace in (PUBLIC, "mine"):
            for record in await both.store.page(namespace, EVERYTHING, AMOUNT // 6, 0):
                await both.store.delete(namespace, record.cid)


async def test_an_index_built_anew_has_everything_and_is_believed(filled: Path) -> None:
    told: list[tuple[int, int]] = []
    assert edge_reindex.reindex(filled / "truth.db", filled / "index", lambda *at: told.append(at)) == 200
    assert told[-1] == (200, 200)
    mark = (filled / "index" / "mark.json").read_bytes()
    async with opened(filled) as both:
        assert len(await both.store.query("mine", vector(1), 500, EVERYTHING)) == 100
        assert len(await both.store.query(PUBLIC, vector(1), 500, EVERYTHING)) == 100
        assert (filled / "index" / "mark.json").read_bytes() == mark
    assert {path.name for path in filled.iterdir() if path.is_dir()} == {"index"}


def test_the_command_refuses_a_running_node_and_a_wrong_folder(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with folder.claim(filled):
        assert main(["miner", "reindex", str(filled)]) == 1
    assert "stop it first" in capsys.readouterr().err
    assert main(["miner", "reindex", str(filled)]) == 0
    assert "200 vectors" in capsys.readouterr().err
    assert main(["miner", "reindex", str(tmp_path / "elsewhere")]) == 1


@needs_shared
def test_a_push_that_was_interrupted_goes_on(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with QdrantDouble(tmp_path / "server").serving() as server:
        seen: list[int] = []

        async def interrupted() -> None:
            with trio.CancelScope() as scope:

                def told(done: int, total: int) -> None:
                    seen.append(total)
                    scope.cancel()

                await push(filled / "truth.db", server.url, on_progress=told)

        async def again() -> int:
            return await push(filled / "truth.db", server.url, on_progress=lambda done, total: seen.append(total))

        trio.run(interrupted)
        assert trio.run(again) == 200
        assert seen[-1] < seen[0] == 200  # what was there was not sent again
        assert main(["miner", "push", str(filled), "--to", server.url]) == 0
        assert "200 vectors" in capsys.readouterr().err
        assert server.broken == []


@needs_shared
async def test_a_node_goes_over_to_the_server_that_was_pushed_to(filled: Path, tmp_path: Path) -> None:
    with QdrantDouble(tmp_path / "server").serving() as server:
        await push(filled / "truth.db", server.url)
        sent = len(server.calls)
        async with opened(filled, lambda truth: QdrantIndex(server.url, DIMENSION, truth.truth_id)) as both:
            assert len(await both.store.query("mine", vector(1), 500, EVERYTHING)) == 100
        assert len(server.calls) < sent + 10
        assert server.broken == []
