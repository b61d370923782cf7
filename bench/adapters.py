"""Documents a second through the LangChain and LlamaIndex adapters: vectors given, into a private namespace with the
default padding, one client and so one connection; a namespace that holds other documents and memories already.

The yardstick stores as many documents of that size in the same node, over a bare socket, by requests that were made
and signed beforehand. Runs in .venv-adapters, where the frameworks are (`scripts/setup-adapters`). `python -m
bench.adapters [--quick]`.
"""

import base64
import json
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.support.report import print_line

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-adapters" / "bin" / "python"
QUICK = "--quick" in sys.argv
DOCUMENTS = 256 if QUICK else 2_048
DIMENSION = 384
BATCH = 128
RATES = ("langchain_add", "langchain_add_with_ids", "langchain_replace", "llama_index_add")
WANTED = {f"{name}_vs_yardstick": f">= {least}" for name, least in zip(RATES, (0.3, 0.2, 0.18, 0.2), strict=True)}


def vectors(seed: int) -> list[list[float]]:
    rng = random.Random(seed)
    return [[rng.gauss(0, 1) for _ in range(DIMENSION)] for _ in range(DOCUMENTS)]


def per_s(act: Callable[[], object], count: int = DOCUMENTS) -> float:
    began = time.perf_counter()
    act()
    return round(count / (time.perf_counter() - began), 1)


def langchain(url: str) -> dict[str, float]:
    from langchain_core.embeddings import Embeddings

    from engram.sdk import NodeClient
    from engram.sdk.langchain import EngramVectorStore
    from tests.miner.nodes import CONTROLLER

    class Given(Embeddings):
        """Hands out vectors that were made beforehand."""

        def __init__(self) -> None:
            self.vectors = vectors(1)

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return self.vectors[: len(texts)]

        def embed_query(self, text: str) -> list[float]:
            return self.vectors[0]

    texts = [f"document {number} ".ljust(400, ".") for number in range(DOCUMENTS)]
    details: list[dict[str, Any]] = [{"source": "bench", "page": number} for number in range(DOCUMENTS)]
    ids = [f"id {number}" for number in range(DOCUMENTS)]
    with NodeClient(url, CONTROLLER, namespace="langchain") as client:
        store = EngramVectorStore(client, Given())
        newer = [text.upper() for text in texts]
        return {
            "langchain_add_per_s": per_s(lambda: store.add_texts(texts, details)),
            "langchain_add_with_ids_per_s": per_s(lambda: store.add_texts(texts, details, ids=ids)),
            "langchain_replace_per_s": per_s(lambda: store.add_texts(newer, details, ids=ids)),
            "langchain_get_per_s": per_s(lambda: store.get_by_ids(ids)),
            "langchain_delete_per_s": per_s(lambda: store.delete(ids)),
        }


def llama_index(url: str) -> dict[str, float]:
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

    from engram.sdk import NodeClient
    from engram.sdk.llama_index import EngramVectorStore
    from tests.miner.nodes import CONTROLLER

    def node(number: int, vector: list[float]) -> TextNode:
        made = TextNode(id_=f"n{number}", text=f"document {number} ".ljust(400, "."), embedding=vector)
        made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"book {number // 50}")
        return made

    nodes = [node(number, vector) for number, vector in enumerate(vectors(2))]
    with NodeClient(url, CONTROLLER, namespace="llama_index") as client:
        store = EngramVectorStore(client)
        added = per_s(lambda: store.add(nodes))
        began = time.perf_counter()
        store.delete("book 1")
        deleted_s = round(time.perf_counter() - began, 3)
        return {"llama_index_add_per_s": added, "llama_index_delete_ref_doc_of_50_s": deleted_s}


def bare(port: int, namespace: str) -> float:
    """Documents a second over a bare socket."""
    from bench.support.http_load import Lane
    from bench.support.memories import signed

    packed = [base64.b64encode(struct.pack(f"<{DIMENSION}f", *vector)).decode() for vector in vectors(3)]
    items = [
        {
            "raw_embedding_b64": vector,
            "text": f"document {number} ".ljust(400, "."),
            "metadata": {"source": "bench", "page": number},
        }
        for number, vector in enumerate(packed)
    ]
    batches = [
        signed("IngestBatch", {"items": items[at : at + BATCH], "namespace": namespace})
        for at in range(0, DOCUMENTS, BATCH)
    ]
    lane = Lane(port)
    return per_s(lambda: [lane(batch) for batch in batches])


def measured() -> dict[str, float]:
    from tests.miner.nodes import node

    with tempfile.TemporaryDirectory() as name, node(Path(name), is_warm=False) as running:
        url = f"http://127.0.0.1:{running.port}"
        before = bare(running.port, "before")
        figures = langchain(url)
        between = bare(running.port, "between")
        figures |= llama_index(url)
        return figures | {"yardstick": statistics.median((before, between, bare(running.port, "after")))}


def main() -> None:
    if "--inside" in sys.argv:
        print(json.dumps(measured()))
        return
    figures: dict[str, Any] = dict.fromkeys(f"{name}_per_s" for name in RATES)
    yardstick: float | None = None
    reason: dict[str, str] = {}
    if PYTHON.exists():
        command = [str(PYTHON), "-m", "bench.adapters", "--inside", *(["--quick"] if QUICK else [])]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        yardstick = figures.pop("yardstick")
    else:
        reason = {"reason": "needs LangChain and LlamaIndex: run scripts/setup-adapters"}
    ratios = {
        f"{name}_vs_yardstick": None if yardstick is None else figures[f"{name}_per_s"] / yardstick for name in RATES
    }
    print_line("adapters", figures, {"yardstick": {"add_per_s": yardstick}}, ratios, WANTED, **reason)


if __name__ == "__main__":
    main()
