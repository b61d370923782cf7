"""A node says that it is ready once its index and its embedder have each answered, and not before."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio

from engram.memory.embed import weights
from engram.memory.embed.protocol import Cut, EmbedderState
from engram.memory.errors import EmbedderUnavailable
from engram.miner.readiness import TEXT, Readiness
from engram.nodes import launch
from tests.fakes.without_packages import without
from tests.miner.nodes import NodeProcess, node
from tests.miner.test_node_process import installed


class StubbornEmbedder:
    """Answers the third time that it is asked."""

    dimension = 3
    name = "stubborn"
    state: EmbedderState = "loading"

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.asked: list[Sequence[str]] = []

    async def run(self, ready: Callable[[], None]) -> None:
        ready()

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        self.asked.append(texts)
        if len(self.asked) <= self.refusals:
            raise EmbedderUnavailable("not now")
        return [b""]

    async def cuts(self, texts: Sequence[str]) -> list[Cut | None]:
        return [None for _ in texts]

    async def windows(self, text: str) -> list[bytes]:
        return []


async def readiness_after(
    embedder: StubbornEmbedder, seconds: float, *, index: bool = True, records: bool = False
) -> bool:
    readiness = Readiness(embedder, lambda: index, lambda: records)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(readiness.run, lambda: None)
        await trio.sleep(seconds)
        nursery.cancel_scope.cancel()
    return readiness.ready


async def test_the_embedder_is_tried_until_it_answers_once(autojump_clock: object) -> None:
    embedder = StubbornEmbedder(2)
    assert not await readiness_after(embedder, 1.0)
    embedder = StubbornEmbedder(2)
    assert await readiness_after(embedder, 3_600.0)
    assert embedder.asked == [[TEXT]] * 3


async def test_without_an_answer_of_the_index_a_node_is_not_ready(autojump_clock: object) -> None:
    assert not await readiness_after(StubbornEmbedder(0), 60.0, index=False)


async def test_a_node_that_holds_records_comes_back_without_its_embedding_server(autojump_clock: object) -> None:
    assert await readiness_after(StubbornEmbedder(10**9), 60.0, records=True)


async def test_an_embedder_that_failed_for_good_is_not_tried_again(autojump_clock: object) -> None:
    embedder = StubbornEmbedder(10**9)
    embedder.state = "failed"
    assert not await readiness_after(embedder, 3_600.0)
    assert embedder.asked == []


def until_ready(running: NodeProcess) -> None:
    """Until both have answered, and the index, which answers first and then catches up, can be searched."""
    deadline = time.monotonic() + 20
    while not ((health := running.get("/health"))["ready"] and health["index"] == "ready"):
        assert time.monotonic() < deadline, running.log()
        time.sleep(0.02)


def test_a_whole_node_becomes_ready(tmp_path: Path) -> None:
    with node(tmp_path) as running:
        until_ready(running)
        assert running.get("/health")["embedder"] == "ready"


@pytest.mark.skipif(not installed(), reason=f"needs the package {weights.PACKAGE}")
def test_an_interpreter_without_onnxruntime_makes_no_ready_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", without(tmp_path / "blocked", "onnxruntime"))
    embedder = launch.EmbedderLaunch(kind="minilm", cache_dir=str(tmp_path / "cache"))
    with node(tmp_path, embedder=embedder) as running:
        deadline = time.monotonic() + 20
        while (health := running.get("/health"))["embedder"] != "failed" or health["index"] != "ready":
            assert time.monotonic() < deadline, running.log()
            time.sleep(0.02)
        assert (health["status"], health["ready"]) == ("ok", False)
        _, refusal = running.ask("POST", "/IngestSynapse", b'{"text": "a text"}')
        assert "install engram with its extra `node`" in refusal["error"]


def test_an_interpreter_without_the_vector_engine_makes_no_ready_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", without(tmp_path / "blocked", "qdrant_edge"))
    with node(tmp_path) as running:
        deadline = time.monotonic() + 20
        while "No module named 'qdrant_edge'" not in running.log():
            assert time.monotonic() < deadline, running.log()
            time.sleep(0.02)
        health = running.get("/health")
        assert (health["status"], health["ready"], health["embedder"]) == ("ok", False, "ready")
    assert os.environ["PYTHONPATH"].endswith("blocked")
