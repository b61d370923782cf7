"""Noise on private vectors."""

import time
from pathlib import Path
from typing import Any

from tests.memory.stores import DIMENSION
from tests.miner import endpoints
from tests.miner.nodes import CONTROLLER, encoded, serving, signed

UP = [1.0] + [0.0] * (DIMENSION - 1)


async def test_noise_is_off_and_when_on_moves_private_vectors_only_and_says_what_it_protects(tmp_path: Path) -> None:
    (tmp_path / "quiet").mkdir()
    async with serving(tmp_path / "quiet") as service:
        assert endpoints.health(service).body["noise"] is None
    async with serving(tmp_path, noise_sigma=0.02) as service:
        told: Any = endpoints.health(service).body["noise"]
        assert (told["sigma"], round(told["epsilon"]), told["delta"]) == (0.02, 5426, 1e-5)
        cids = set()
        stamp = time.time_ns() // 10**6
        for later_ms in (0, 1):
            fields = {"raw_embedding": UP, "namespace": "notes"}
            body = signed(CONTROLLER, "IngestSynapse", fields, stamp + later_ms)
            cids.add((await endpoints.ingest(service, body)).body["cid"])
        assert len(cids) == 2
        query = signed(CONTROLLER, "QuerySynapse", {"query_vector": UP, "namespace": "notes"})
        results: Any = (await endpoints.query(service, query)).body["results"]
        assert all(0.9 < hit["score"] < 1.0 for hit in results)
        public = (await endpoints.ingest(service, encoded({"raw_embedding": UP}))).body["cid"]
        found: Any = (await endpoints.query(service, encoded({"query_vector": UP}))).body["results"]
        assert (found[0]["cid"], found[0]["score"]) == (public, 1.0)
