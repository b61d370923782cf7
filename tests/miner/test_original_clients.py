"""Requests as the original's clients send them, field by field: its Python and TypeScript SDKs and its validator.

They are unsigned or carry version 1 of the namespace signature, name fields that a miner ignores, and read HTTP 200
with `error`, `results`, `records`, `deleted` and a 404 on /retrieve.
"""

import hashlib
import json
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from config.model import HttpSettings
from engram.clock import SeededIds, SystemClock
from engram.hotkeys import Keypair, miner_scheme
from engram.memory.proof import proofs
from engram.miner.app import make_app
from tests.http.asgi_client import AsgiClient
from tests.memory.stores import DIMENSION
from tests.miner import endpoints
from tests.miner.nodes import STRANGER, serving

EMBEDDING = [0.25] + [0.0] * (DIMENSION - 1)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsgiClient]:
    async with serving(tmp_path, tenants="anyone") as service:
        settings = HttpSettings(requests_per_minute_per_ip=0)
        app = make_app(service, settings=settings, clock=SystemClock(), ids=SeededIds(4), metrics=service.metrics)
        yield AsgiClient(app)


async def post(client: AsgiClient, endpoint: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    answer = await client.post(f"/{endpoint}", data=json.dumps(body), headers={"Content-Type": "application/json"})
    return answer.status_code, await answer.get_json()


def signed(keypair: Keypair, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
    return dict(miner_scheme.sign_body(keypair, endpoint, body, time.time_ns() // 10**6))


async def test_the_python_client_without_a_key(client: AsgiClient) -> None:
    status, stored = await post(client, "IngestSynapse", {"text": "a note", "metadata": {"text": "a note", "n": 1}})
    assert (status, stored["error"], stored["cid"][:4], len(stored["cid"])) == (200, None, "v1::", 68)
    status, found = await post(client, "QuerySynapse", {"query_text": "a note", "top_k": 10})
    assert status == 200
    [hit] = found["results"]
    assert (hit["cid"], hit["metadata"]["text"], -2 <= hit["score"] <= 2) == (stored["cid"], "a note", True)
    assert set(hit) == {"cid", "score", "metadata", "trust_tier"}
    assert found["error"] is None
    assert found["latency_ms"] >= 0
    status, listed = await post(client, "list", {"filter": {}, "limit": 50, "offset": 0})
    assert (status, listed["count"], listed["records"][0]["cid"]) == (200, 1, stored["cid"])
    answer = await client.get(f"/retrieve/{quote(stored['cid'])}")
    assert (await answer.get_json())["metadata"] == {"text": "a note", "n": "1"}
    missing = await client.get(f"/retrieve/{quote('v1::' + '0' * 64, safe='')}")
    assert (missing.status_code, (await missing.get_json())["error"]) == (404, "not found")
    health = await (await client.get("/health")).get_json()
    assert (health["status"], type(health["vectors"])) == ("ok", int)


async def test_what_breaks_a_rule_reaches_the_python_clients_own_errors(
    client: AsgiClient,
) -> None:
    for body in ({}, {"text": ""}, {"text": "x" * 9_000}, {"raw_embedding": [0.1, 0.2]}):
        status, answer = await post(client, "IngestSynapse", body)
        assert (status, answer["cid"], bool(answer["error"])) == (200, None, True)
    status, answer = await post(client, "QuerySynapse", {"query_text": "", "top_k": 10})
    assert (status, answer["results"], bool(answer["error"])) == (200, [], True)


async def test_the_python_client_in_a_namespace_of_its_key(client: AsgiClient) -> None:
    def named() -> dict[str, Any]:  # the clients sign anew for every request
        return dict(miner_scheme.sign_namespace(STRANGER, "my_notes", time.time_ns() // 10**6))

    body = signed(STRANGER, "IngestSynapse", {"raw_embedding": EMBEDDING, "metadata": {"_enc": "AAAA"}, **named()})
    _, stored = await post(client, "IngestSynapse", body)
    assert stored["error"] is None
    _, found = await post(
        client, "QuerySynapse", signed(STRANGER, "QuerySynapse", {"query_vector": EMBEDDING, **named()})
    )
    assert [hit["metadata"] for hit in found["results"]] == [{"_enc": "AAAA"}]
    status, listed = await post(client, "list", named())
    assert (status, listed["count"]) == (200, 1)
    assert (await post(client, "list", {"namespace": "my_notes"}))[0] == 403
    assert (await post(client, "list", {}))[1]["count"] == 0


async def test_the_typescript_clients_with_a_namespace_key(client: AsgiClient) -> None:
    named = {"namespace": "my_ns", "namespace_key": "0123456789abcdef"}
    _, stored = await post(client, "IngestSynapse", {"text": "hello", "metadata": {}, **named})
    assert stored["error"] is None
    _, found = await post(client, "QuerySynapse", {"query_text": "hello", "top_k": 5, **named})
    assert [hit["cid"] for hit in found["results"]] == [stored["cid"]]


async def test_the_validator_seeds_challenges_and_repairs(client: AsgiClient) -> None:
    sent = {"raw_embedding": EMBEDDING, "metadata": {}, "model_version": "v1", "cid_override": "v1::" + "0" * 64}
    _, stored = await post(client, "IngestSynapse", signed(STRANGER, "IngestSynapse", sent))
    nonce, asked_by = "11" * 32, STRANGER.public_key
    asked = {"cid": stored["cid"], "nonce_hex": nonce, "expires_at": int(time.time()) + 10}
    asked["validator_hotkey_hex"] = asked_by.hex()
    status, proved = await post(client, "ChallengeSynapse", signed(STRANGER, "ChallengeSynapse", asked))
    packed = struct.pack(f"<{DIMENSION}f", *EMBEDDING)
    assert status == 200
    assert proved == {
        "embedding_hash": proofs.embedding_hash(packed),
        "proof": proofs.storage_proof(packed, bytes.fromhex(nonce), asked_by),
    }
    status, copied = await post(client, "RepairSynapse", signed(STRANGER, "RepairSynapse", {"cid": stored["cid"]}))
    assert (status, copied["embedding"], copied["metadata"]) == (200, EMBEDDING, {})
    unknown = {**asked, "cid": "v1::" + "1" * 64}
    assert (await post(client, "ChallengeSynapse", unknown))[0] == 404


async def test_a_signature_with_numbers_spelled_as_javascript_does(tmp_path: Path) -> None:
    canonical = '{"query_vector":[1e-7,1,0,0,0,0,0,0],"top_k":3}'
    assert DIMENSION == 8
    async with serving(tmp_path, require_signature=True) as service:
        nonce = time.time_ns() // 10**6
        for later_ms, wrap in ((0, b"%s"), (1, b"<Bytes>%s</Bytes>")):
            digest = hashlib.sha256(canonical.encode()).hexdigest()
            signature = STRANGER.sign(wrap % f"{nonce + later_ms}:QuerySynapse:{digest}".encode()).hex()
            body = (
                canonical[:-1] + f',"hotkey":"{STRANGER.ss58}","nonce":{nonce + later_ms},"signature":"{signature}"}}'
            )
            assert (await endpoints.query(service, body.encode())).status == 200
