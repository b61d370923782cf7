"""What a memory node is loaded with: clustered vectors, half of them public, the rest over 100 private namespaces."""

import base64
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from bench.support.http_load import request
from engram.hotkeys import miner_scheme
from engram.memory import cid
from tests.miner.nodes import CONTROLLER

Vectors: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

DIMENSION: Final = 384
NAMESPACES: Final = 100
BATCH: Final = 64
TEXT_CHARS: Final = 132


def clustered(seed: int, amount: int) -> Vectors:
    """Unit vectors of 48 latent dimensions around 1,500 centres, in 384."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(1_500, 48))
    into = np.random.default_rng(8).normal(size=(48, DIMENSION))
    points = (centres[rng.integers(0, 1_500, amount)] + 0.5 * rng.normal(size=(amount, 48))) @ into
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True), dtype="<f4")


def namespace_of(number: int) -> int | None:
    """The private namespace of vector `number`; None: public. Whole batches of 64 have the same."""
    batch = number // BATCH
    return None if batch % 2 == 0 else batch // 2 % NAMESPACES


def cid_of(vector: Vectors) -> str:
    """The CID under which a vector without metadata is found."""
    return cid.compute(vector.tobytes(), {})


def batch(vectors: Vectors, first: int, *, as_numbers: bool = False) -> bytes:
    """A signed request that stores these vectors, the first of which is number `first`."""
    items: list[dict[str, Any]] = []
    for at, vector in enumerate(vectors, first):
        form = {"raw_embedding": vector.tolist()} if as_numbers else {"raw_embedding_b64": _packed(vector)}
        items.append({**form, "text": f"record {at} ".ljust(TEXT_CHARS, "."), "metadata": {}})
    number = namespace_of(first)
    return signed("IngestBatch", {"items": items, **({} if number is None else {"namespace": f"tenant_{number}"})})


def single(vector: Vectors) -> bytes:
    """A signed request that stores one public vector with a text."""
    fields = {"raw_embedding_b64": _packed(vector), "text": "single ".ljust(TEXT_CHARS, "."), "metadata": {}}
    return signed("IngestSynapse", fields)


def query(vector: Vectors, namespace: int | None = None) -> bytes:
    """A request for the ten nearest: public ones unsigned, private ones signed."""
    fields: dict[str, Any] = {"query_vector_b64": _packed(vector), "top_k": 10}
    if namespace is None:
        return request("POST", "/QuerySynapse", json.dumps(fields).encode())
    return signed("QuerySynapse", {**fields, "namespace": f"tenant_{namespace}"})


def signed(endpoint: str, fields: Mapping[str, Any]) -> bytes:
    """A request that the controller has signed."""
    body = miner_scheme.sign_body(CONTROLLER, endpoint, fields, time.time_ns() // 1_000_000)
    return request("POST", f"/{endpoint}", json.dumps(body).encode())


def nearest(vectors: Vectors, wanted: Vectors) -> list[set[str]]:
    """The CIDs of the ten exactly nearest of each wanted vector."""
    best = np.argsort(-(wanted @ vectors.T), axis=1)[:, :10]
    return [{cid_of(vectors[i]) for i in row} for row in best]


def found(answers: Sequence[bytes]) -> list[set[str]]:
    """The CIDs in answers to queries."""
    return [{hit["cid"] for hit in json.loads(answer)["results"]} for answer in answers]


def recall(wanted: Sequence[set[str]], there: Sequence[set[str]]) -> float:
    """The share of the wanted that was found."""
    return sum(len(a & b) for a, b in zip(wanted, there, strict=True)) / sum(map(len, wanted))


def _packed(vector: Vectors) -> str:
    return base64.b64encode(vector.tobytes()).decode()
