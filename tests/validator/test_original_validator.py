"""The original's validator against a node of ours: its calls in its order, over a socket, judged by its arithmetic.

What it computes is written here again from its description, by hashlib alone, and held against its published vectors;
no code of ours signs, identifies or proves on its side.
"""

import hashlib
import hmac
import json
import random
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from config.model import HttpSettings
from engram.clock import SeededIds, SystemClock
from engram.hotkeys import Keypair
from engram.memory.embed.hash_embedder import hash_vector
from engram.miner.app import make_app
from engram.miner.service import Service
from engram.validator import scoring, standing
from engram.validator.scoring import Parts
from engram.validator.standing import Standing, Tally
from tests.http.asgi_client import AsgiClient
from tests.memory.stores import DIMENSION
from tests.miner.nodes import NodeProcess, serving

VECTORS = json.loads((Path(__file__).parent.parent / "data" / "engram" / "vectors.json").read_text())
VALIDATOR = Keypair.from_uri("//Alice")


def signed(endpoint: str, body: dict[str, Any], nonce: int) -> dict[str, Any]:
    return body | {
        "hotkey": VALIDATOR.ss58,
        "nonce": nonce,
        "signature": "0x" + VALIDATOR.sign(message(endpoint, body, nonce).encode()).hex(),
    }


def message(endpoint: str, body: dict[str, Any], nonce: int) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), default=str)
    return f"{nonce}:{endpoint}:{hashlib.sha256(text.encode()).hexdigest()}"


def identifier(embedding: Sequence[float], metadata: dict[str, str]) -> str:
    told = json.dumps(metadata | {"model_version": "v1"}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "v1::" + hashlib.sha256(struct.pack(f"<{len(embedding)}f", *embedding) + told.encode()).hexdigest()


def embedding_hash(embedding: Sequence[float]) -> str:
    return hashlib.sha256(struct.pack(f"<{len(embedding)}f", *embedding)).hexdigest()


def proof(embedding: Sequence[float], nonce: bytes, hotkey: bytes) -> str:
    key = hashlib.sha256(hotkey + nonce).digest()
    return hmac.new(key, embedding_hash(embedding).encode(), hashlib.sha256).hexdigest()


def score(recall: float, latency_ms: float, proof_rate: float) -> float:
    latency = 1.0 if latency_ms <= 100.0 else 0.0 if latency_ms >= 500.0 else 1.0 - (latency_ms - 100.0) / 400.0
    return 0.5 * recall + 0.3 * latency + 0.2 * proof_rate


def test_the_arithmetic_of_this_file_is_the_original_s_to_the_last_digit() -> None:
    embedding, nonce = [0.1, 0.2, 0.3], bytes([17] * 32)
    assert embedding_hash(embedding) == VECTORS["embedding_hash"]
    assert identifier(embedding, {}) == VECTORS["cid_empty_meta_rust"]
    assert identifier(embedding, {"source": "arxiv", "a": "1"}) == VECTORS["cid_meta_a1_rust"]
    assert proof(embedding, nonce, bytes([170] * 32)) == VECTORS["proof(nonce=11*32,hk=aa*32)"]
    assert proof(embedding, nonce, bytes(32)) == VECTORS["proof(nonce=11*32,hk=00*32)"]
    body = {"query_vector": [0.1, 1.0, 1e-7], "top_k": 10, "t": "é"}
    assert message("QuerySynapse", body, 1712345678123) == VECTORS["auth_canonical"]
    assert score(0.8, 250.0, 0.9) == scoring.score(0.8, 250.0, 0.9) == VECTORS["score(.8,250ms,.9)"]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    made = NodeProcess(tmp_path_factory.mktemp("node"))
    made.start()
    yield made
    made.terminate()


class OriginalValidator:
    """Calls one after the other, each with a nonce of its own, as the original's single task does."""

    def __init__(self, ask: Callable[[str, dict[str, Any]], tuple[int, dict[str, Any]]]) -> None:
        self.ask = ask
        self.nonce = 0

    def call(self, endpoint: str, **body: Any) -> tuple[int, dict[str, Any]]:
        self.nonce = max(time.time_ns() // 10**6, self.nonce + 1)
        return self.ask(endpoint, signed(endpoint, body, self.nonce))

    def challenge(self, cid: str, nonce: bytes, valid_s: float) -> tuple[int, dict[str, Any]]:
        return self.call(
            "ChallengeSynapse",
            cid=cid,
            nonce_hex=nonce.hex(),
            expires_at=int(time.time() + valid_s),
            validator_hotkey_hex=VALIDATOR.public_key.hex(),
        )


def ground_truth(entries: int, dimension: int) -> list[dict[str, Any]]:
    """As its file has it: the nearest record of each text is its own."""
    found = []
    for number in range(entries):
        text = f"Entry {number} of the ground truth: {random.Random(number).getrandbits(64):x} by word {number * 7}."
        embedding = list(struct.unpack(f"<{dimension}f", hash_vector(text, dimension)))
        cid = identifier(embedding, {"text": text})
        found.append({"text": text, "embedding": embedding, "cid": cid, "top_k_cids": [cid]})
    return found


def test_its_whole_cycle_of_seeding_scoring_and_challenging_ends_in_the_full_score(node: NodeProcess) -> None:
    def ask(endpoint: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return node.ask("POST", f"/{endpoint}", json.dumps(body).encode())

    validator, rng = OriginalValidator(ask), random.Random(5)
    truth = ground_truth(12, 384)
    assert node.get("/health")["status"] == "ok"
    for entry in truth:  # it seeds empty miners
        status, stored = validator.call(
            "IngestSynapse",
            raw_embedding=entry["embedding"],
            metadata={"text": entry["text"]},
            model_version="v1",
            cid_override=entry["cid"],
        )
        assert (status, stored["cid"], stored["error"]) == (200, entry["cid"], None)
    kept, weights = Standing(), {}
    for number in range(6):
        recalls = []
        for entry in rng.sample(truth, 5):
            status, found = validator.call("QuerySynapse", query_vector=entry["embedding"], top_k=10)
            assert (status, found["error"]) == (200, None)
            assert isinstance(found["latency_ms"], int | float)
            returned = [hit["cid"] for hit in found["results"]]
            recalls.append(len(set(returned) & set(entry["top_k_cids"])) / min(10, len(entry["top_k_cids"])))
        entry, nonce = rng.choice(truth), rng.randbytes(32)
        status, shown = validator.challenge(entry["cid"], nonce, 10)
        assert status == 200
        assert shown["embedding_hash"] == embedding_hash(entry["embedding"])
        proved = shown["proof"] == proof(entry["embedding"], nonce, VALIDATOR.public_key)
        recall = sum(recalls) / len(recalls)
        assert score(recall, 50.0, float(proved)) == Parts(recall, 50.0, float(proved)).score == 1.0
        kept = standing.after_round(kept, Parts(recall, 50.0, float(proved)), Tally(1, int(proved)), number)
        weights = scoring.normalized({7: standing.weight_of(kept, number), 9: 0.0})
    assert (kept.ema, kept.proof_rate, kept.slashes, weights) == (1.0, 1.0, 0, {7: 1.0})
    assert validator.challenge(truth[0]["cid"], bytes(32), -60)[0] == 400
    assert validator.challenge("v1::" + "0" * 64, bytes(32), 10)[0] == 404


async def test_what_it_repairs_is_the_same_record_at_the_other_miner(tmp_path: Path) -> None:
    embedding = [0.25, *[0.0] * (DIMENSION - 2), 0.75]
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    async with serving(tmp_path / "one") as one, serving(tmp_path / "other") as other:
        stored = await called(one, "IngestSynapse", raw_embedding=embedding, metadata={"text": "one holder", "n": 1})
        copied = await called(one, "RepairSynapse", cid=stored["cid"])
        assert copied == {"cid": stored["cid"], "embedding": embedding, "metadata": {"text": "one holder", "n": "1"}}
        again = await called(other, "IngestSynapse", raw_embedding=copied["embedding"], metadata=copied["metadata"])
        assert again["cid"] == stored["cid"] == identifier(embedding, {"text": "one holder", "n": "1"})


async def called(service: Service, endpoint: str, **body: Any) -> dict[str, Any]:
    settings = HttpSettings(requests_per_minute_per_ip=0)
    app = make_app(service, settings=settings, clock=SystemClock(), ids=SeededIds(4), metrics=service.metrics)
    sent = signed(endpoint, body, time.time_ns() // 10**6)
    answer = await AsgiClient(app).post(f"/{endpoint}", data=json.dumps(sent))
    assert answer.status_code == 200
    found: dict[str, Any] = await answer.get_json()
    return found
