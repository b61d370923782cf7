"""Embedders: meaning where it is promised, the published weights and no others, the same bytes every time."""

import hashlib
import json
import math
import os
import struct
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from engram.memory.embed import minilm_graph, weights
from engram.memory.embed.hash_embedder import HashEmbedder, hash_vector
from engram.memory.embed.minilm import MiniLmEmbedder
from engram.memory.embed.protocol import Cut
from engram.memory.errors import EmbedderUnavailable, WeightsRefused
from engram.memory.rules import unpack_vector

TEXTS = [
    "The kitten sleeps on the sofa all afternoon.",
    "Inflation made groceries dearer this spring.",
    "The bridge was closed after the river flooded.",
]
QUESTION = "Where do cats rest?"


def installed() -> bool:
    try:
        return bool(version(weights.PACKAGE))
    except PackageNotFoundError:
        return False


needs_weights = pytest.mark.skipif(not installed(), reason=f"needs the package {weights.PACKAGE}")


def cosine(one: bytes, other: bytes) -> float:
    return sum(a * b for a, b in zip(unpack_vector(one), unpack_vector(other), strict=True))


async def nearest(embedder: HashEmbedder | MiniLmEmbedder, question: str) -> str:
    (asked,) = await embedder.embed([question])
    vectors = await embedder.embed(TEXTS)
    return max(zip(TEXTS, vectors, strict=True), key=lambda pair: cosine(asked, pair[1]))[0]


async def test_a_text_that_comes_alone_waits_for_no_crowd_of_batches(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting:
        """In the place of the model: notes the order of the texts."""

        def __init__(self) -> None:
            self.texts: list[str] = []

        def vector(self, text: str) -> bytes:
            self.texts.append(text)
            return b""

    model = Counting()
    monkeypatch.setattr("engram.memory.embed.minilm._Model.load", lambda folder, cache: model)
    minilm = MiniLmEmbedder(None, tmp_path)
    async with trio.open_nursery() as crowd:
        for number in range(40):
            crowd.start_soon(minilm.embed, [f"batch {number}"] * 20)
        await trio.testing.wait_all_tasks_blocked()
        crowd.start_soon(minilm.embed, ["alone"])
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(minilm.run, lambda: None)
    assert model.texts.index("alone") < 4
    assert len(model.texts) == 40 * 20 + 1


@needs_weights
async def test_a_text_is_found_by_meaning_alone(tmp_path: Path, nursery: trio.Nursery) -> None:
    minilm = MiniLmEmbedder(None, tmp_path)
    states = [minilm.state]
    nursery.start_soon(minilm.run, lambda: None)
    assert await nearest(minilm, QUESTION) == TEXTS[0]
    assert [*states, minilm.state] == ["loading", "ready"]
    # Question and answer share no word, so an embedder without semantics has nothing to go by.
    assert await nearest(HashEmbedder(), QUESTION) != TEXTS[0]
    nursery.cancel_scope.cancel()


@needs_weights
async def test_the_same_text_gives_the_same_bytes_whatever_stands_beside_it(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    minilm = MiniLmEmbedder(None, tmp_path)
    nursery.start_soon(minilm.run, lambda: None)
    together = await minilm.embed([*TEXTS, "word " * 600, ""])
    for text, vector in zip(TEXTS, together, strict=False):
        assert await minilm.embed([text]) == [vector]
    for vector in together:
        assert math.hypot(*unpack_vector(vector)) == pytest.approx(1.0, abs=1e-5)
    nursery.cancel_scope.cancel()


@needs_weights
async def test_texts_are_cut_after_256_tokens(tmp_path: Path, nursery: trio.Nursery) -> None:
    minilm = MiniLmEmbedder(None, tmp_path)
    nursery.start_soon(minilm.run, lambda: None)
    long, longer = await minilm.embed(["word " * 254, "word " * 300])
    assert long == longer
    nursery.cancel_scope.cancel()


@needs_weights
async def test_the_graph_computes_what_the_papers_formulas_say(tmp_path: Path, nursery: trio.Nursery) -> None:
    minilm = MiniLmEmbedder(None, tmp_path)
    nursery.start_soon(minilm.run, lambda: None)
    (computed,) = await minilm.embed([TEXTS[0]])
    assert cosine(computed, by_hand(TEXTS[0])) == pytest.approx(1.0, abs=1e-5)
    nursery.cancel_scope.cancel()


def by_hand(text: str) -> bytes:
    """BERT with mean pooling, straight from the weights in numpy."""
    import numpy as np
    from tokenizers import Tokenizer

    files = weights.find(None)
    content = files.weights.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header: dict[str, Any] = json.loads(content[8 : 8 + length])

    def tensor(name: str) -> Any:
        start, end = header[name]["data_offsets"]
        raw = content[8 + length + start : 8 + length + end]
        return np.frombuffer(raw, dtype="<f4").reshape(header[name]["shape"]).astype(np.float64)

    def norm(x: Any, name: str) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return centred / spread * tensor(f"{name}.weight") + tensor(f"{name}.bias")

    def linear(x: Any, name: str) -> Any:
        return x @ tensor(f"{name}.weight").T + tensor(f"{name}.bias")

    tokenizer = Tokenizer.from_file(str(files.tokenizer))
    tokenizer.no_padding()
    ids = tokenizer.encode(text).ids
    x = tensor("embeddings.word_embeddings.weight")[ids]
    x = x + tensor("embeddings.position_embeddings.weight")[: len(ids)]
    x = norm(x + tensor("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
    erf = np.vectorize(math.erf)
    for i in range(6):
        layer = f"encoder.layer.{i}"
        q, k, v = (
            linear(x, f"{layer}.attention.self.{part}").reshape(len(ids), 12, 32).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(32))
        context = (scores / scores.sum(-1, keepdims=True)) @ v
        joined = context.transpose(1, 0, 2).reshape(len(ids), 384)
        x = norm(linear(joined, f"{layer}.attention.output.dense") + x, f"{layer}.attention.output.LayerNorm")
        inner = linear(x, f"{layer}.intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        x = norm(linear(inner, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm")
    mean = x.mean(0)
    packed: bytes = (mean / np.linalg.norm(mean)).astype("<f4").tobytes()
    return packed


@needs_weights
def test_the_graph_is_built_once_and_kept(tmp_path: Path) -> None:
    files = weights.find(None)
    built = minilm_graph.cached(files.weights, tmp_path / "cache")
    assert minilm_graph.cached(Path("/nowhere"), tmp_path / "cache") == built
    assert len(built) < 100_000


@needs_weights
@pytest.mark.parametrize("name", [weights.WEIGHTS, weights.TOKENIZER])
def test_files_that_are_not_the_published_ones_are_refused(tmp_path: Path, name: str) -> None:
    files = weights.find(None)
    for path in (files.weights, files.tokenizer):
        (tmp_path / path.name).symlink_to(path)
    assert weights.find(tmp_path).weights.parent == tmp_path
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(WeightsRefused, match=hashlib.sha256(b"something else").hexdigest()):
        weights.find(tmp_path)


async def test_missing_weights_fail_for_good_and_say_why(tmp_path: Path, nursery: trio.Nursery) -> None:
    minilm = MiniLmEmbedder(tmp_path, tmp_path)
    nursery.start_soon(minilm.run, lambda: None)
    with pytest.raises(EmbedderUnavailable, match="No such file"):
        await minilm.embed(["a"])
    assert minilm.state == "failed"
    nursery.cancel_scope.cancel()


@given(st.text())
def test_hashed_texts_are_unit_vectors(text: str) -> None:
    packed = hash_vector(text, 16)
    assert len(packed) == 64
    assert math.hypot(*unpack_vector(packed)) == pytest.approx(1.0, abs=1e-5)


def test_hashed_texts_that_share_words_are_near() -> None:
    one, same, other = (hash_vector(t, 384) for t in ("the red house", "a red house", "quantum chromodynamics"))
    assert cosine(one, same) > 0.5 > cosine(one, other)


@needs_weights
def test_a_node_reports_to_nobody(tmp_path: Path) -> None:
    """onnxruntime 1.31 writes `.ses` into the temporary folder and sends events to its maker, unless told not to."""
    load = "_Model.load(None, pathlib.Path(sys.argv[1]))"
    script = f"import pathlib, sys; from engram.memory.embed.minilm import _Model; {load}"
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env={**environment, "TMPDIR": str(elsewhere)}, check=True
    )
    assert list(elsewhere.iterdir()) == []


@needs_weights
async def test_what_is_left_out_of_a_long_text_is_counted(tmp_path: Path, nursery: trio.Nursery) -> None:
    minilm = MiniLmEmbedder(None, tmp_path)
    assert await minilm.cuts(["word " * 1_000]) == [None]
    nursery.start_soon(minilm.run, lambda: None)
    whole, long = "word " * 254, "word " * 1_000
    vectors = await minilm.embed([whole, long])
    assert await minilm.cuts([whole, long, whole + "more"]) == [None, Cut(1_000, 254), Cut(255, 254)]
    assert vectors[0] == vectors[1]
    hashed = HashEmbedder()
    assert await hashed.cuts([long]) == [None]
