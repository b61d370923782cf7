"""What a node answers, to friends, strangers and nonsense."""

import hashlib
import hmac
import json
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.clock import ManualClock
from engram.hotkeys import Keypair
from engram.hotkeys import verify as verify_signature
from engram.memory.cid import is_cid
from engram.memory.embed.hash_embedder import HashEmbedder
from engram.memory.embed.protocol import Cut
from engram.memory.proof import keyed_tree, merkle
from engram.miner.service import Service
from tests.memory.stores import DIMENSION
from tests.miner import endpoints as answers
from tests.miner.endpoints import Answer
from tests.miner.nodes import CONTROLLER, NODE, STRANGER, encoded, in_namespace, serving, signed

UP = [1.0] + [0.0] * (DIMENSION - 1)
SLANTED = [1.0, 1.0] + [0.0] * (DIMENSION - 2)
MINE = "my_notes"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path) as made:
        yield made


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path, require_signature=True) as made:
        yield made


async def ingest(service: Service, **fields: Any) -> str:
    answer = await answers.ingest(service, encoded(fields))
    assert answer.status == 200, answer
    assert answer.body["error"] is None
    return str(answer.body["cid"])


async def found(service: Service, **fields: Any) -> list[str]:
    answer = await answers.query(service, encoded({"query_vector": UP, "top_k": 100, **fields}))
    assert answer.status == 200, answer
    results: Any = answer.body["results"]
    return [hit["cid"] for hit in results]


async def test_a_text_is_stored_found_listed_and_retrieved(service: Service) -> None:
    cid = await ingest(service, text="the red house", metadata={"n": 1})
    assert is_cid(cid)
    answer = await answers.query(service, encoded({"query_text": "a red house"}))
    assert answer.body["error"] is None
    results: Any = answer.body["results"]
    shown = {"cid": cid, "metadata": {"n": "1"}}
    assert results[0] == {**shown, "score": results[0]["score"], "trust_tier": "anonymous"}
    assert 0.3 < results[0]["score"] <= 1.0
    assert results[0]["trust_tier"] == "anonymous"
    assert (await answers.listing(service, b"{}")).body == {"records": [shown], "count": 1, "offset": 0, "limit": 50}
    assert (await answers.retrieve(service, cid, {})).body == shown


async def test_the_text_of_a_public_record_is_shown_to_the_controller_and_to_whoever_stored_it(
    service: Service,
) -> None:
    await answers.ingest(service, signed(STRANGER, "IngestSynapse", {"text": "a stranger's text"}))
    await ingest(service, text="an anonymous text")
    for keypair, seen in ((CONTROLLER, 2), (STRANGER, 1), (NODE, 0)):
        listed: Any = (await answers.listing(service, signed(keypair, "list", {}))).body["records"]
        assert len([record for record in listed if "text" in record]) == seen
        body = signed(keypair, "QuerySynapse", {"query_text": "text"})
        found_by: Any = (await answers.query(service, body)).body["results"]
        assert len([hit for hit in found_by if "text" in hit]) == seen
    anonymous: Any = (await answers.listing(service, b"{}")).body["records"]
    assert not any("text" in record for record in anonymous)


async def test_a_vector_is_stored_without_any_text(service: Service) -> None:
    cid = await ingest(service, raw_embedding=UP)
    assert (await answers.retrieve(service, cid, {})).body == {"cid": cid, "metadata": {}}
    answer = await answers.query(service, encoded({"query_vector": SLANTED}))
    results: Any = answer.body["results"]
    assert results[0]["score"] == pytest.approx(0.5**0.5, abs=1e-5)


async def test_storing_again_gives_the_same_cid_and_stores_nothing(service: Service) -> None:
    assert await ingest(service, text="once") == await ingest(service, text="once")
    assert answers.health(service).body["vectors"] == 1


@pytest.mark.parametrize("namespace", [None, "notes"])
async def test_a_text_that_has_the_vector_and_metadata_of_another_is_not_lost_in_silence(
    service: Service, namespace: str | None
) -> None:
    """Embedders read case, spaces and what follows some hundred words alike; the CID covers vector and metadata."""
    named = {"namespace": namespace} if namespace else {}

    async def told(keypair: Keypair, text: str) -> dict[str, Any]:
        fields = {"raw_embedding": UP, "text": text, **named}
        body = signed(keypair, "IngestSynapse", fields)
        answer: dict[str, Any] = (await answers.ingest(service, body)).body
        return {key: answer[key] for key in ("error", "text_kept") if key in answer}

    assert await told(CONTROLLER, "Polish") == {"error": None}
    assert await told(CONTROLLER, "Polish") == {"error": None}
    assert await told(CONTROLLER, "polish") == {"error": None, "text_kept": False}
    if namespace is None:  # strangers are told that theirs is not kept, not what is
        for text in ("Polish", "polish"):
            assert await told(STRANGER, text) == {"error": None, "text_kept": False}
            assert "text_kept" not in (await answers.ingest(service, encoded({"raw_embedding": UP, "text": text}))).body


async def test_a_filter_narrows_before_the_search(service: Service) -> None:
    for i in range(12):
        await ingest(service, raw_embedding=UP, metadata={"i": i})
    last = await ingest(service, raw_embedding=SLANTED, metadata={"colour": "blue"})
    assert await found(service, top_k=1, filter={"colour": "blue"}) == [last]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "Nothing to store"),
        ({"text": " "}, "empty"),
        ({"raw_embedding": [1, 2]}, "2 dimensions"),
        ({"text": "a", "metadata": {"k": "v" * 5_000}}, "over the limit"),
        ({"text": "x" * 8_193}, "8,193 characters"),
        ({"text": "a", "namespace": "my-ns"}, "Invalid namespace name"),
    ],
)
async def test_what_breaks_a_rule_is_told_with_status_200_and_no_cid(
    service: Service, fields: dict[str, object], reason: str
) -> None:
    answer = await answers.ingest(service, encoded(fields))
    assert (answer.status, answer.body["cid"]) == (200, None)
    assert reason in str(answer.body["error"])


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"a": NaN}', b'{"a":1,"a":2}', b"\xff", b'"text"', b"[" * 5_000, b'{"text": 5}']
)
async def test_malformed_requests_get_400_everywhere(service: Service, body: bytes) -> None:
    for ask in (answers.ingest, answers.query, answers.listing, answers.challenge, answers.prove_memory):
        if ask in (answers.query, answers.listing) and body == b'{"text": 5}':
            continue
        answer = await ask(service, body)
        assert answer.status == 400, ask
        assert answer.body["error"]


async def test_only_batches_may_be_large(service: Service) -> None:
    body = encoded({"text": "x" * 1_100_000})
    for ask in (answers.ingest, answers.query, answers.listing, answers.save_chat):
        answer = await ask(service, body)
        assert (answer.status, answer.body["code"]) == (413, "body_too_large")
    assert (await answers.ingest_batch(service, body)).status == 400


@pytest.mark.parametrize("fields", [{}, {"query_text": ""}, {"query_vector": [1.0]}, {"query_text": "a", "top_k": 101}])
async def test_a_search_that_breaks_a_rule_has_no_results_and_the_reason(
    service: Service, fields: dict[str, object]
) -> None:
    answer = await answers.query(service, encoded(fields))
    assert (answer.status, answer.body["results"]) == (200, [])
    assert answer.body["error"]


async def test_health_and_stats_have_the_fields_that_others_read(service: Service) -> None:
    await ingest(service, text="a")
    await found(service)
    health = answers.health(service).body
    assert health["status"] == "ok"
    assert health["vectors"] == 1
    assert (health["launch_token"], health["session_id"], health["hotkey"]) == ("token", "session", NODE.ss58)
    stats = answers.stats(service).body
    assert list(stats) == [
        *("status", "vectors", "peers", "uid", "queries_today", "p50_latency_ms", "proof_rate"),
        *("uptime_pct", "block", "avg_score", "hotkey"),
    ]
    assert (stats["vectors"], stats["queries_today"], stats["proof_rate"]) == (1, 1, None)
    assert isinstance(stats["p50_latency_ms"], float)


# Private namespaces.


async def test_the_controller_uses_private_namespaces(service: Service) -> None:
    cid = await ingest(service, raw_embedding=UP, **in_namespace(CONTROLLER, MINE))
    assert await found(service, **in_namespace(CONTROLLER, MINE)) == [cid]
    listed = await answers.listing(service, encoded(in_namespace(CONTROLLER, MINE)))
    assert listed.body["count"] == 1
    parameters = {key: str(value) for key, value in in_namespace(CONTROLLER, MINE).items()}
    assert (await answers.retrieve(service, cid, parameters)).status == 200
    body = signed(CONTROLLER, "DeleteSynapse", {"cid": cid, "namespace": MINE})
    told = (await answers.delete(service, cid, body)).body
    assert (told["deleted"], told["cid"]) == (True, cid)
    assert await found(service, **in_namespace(CONTROLLER, MINE)) == []


async def test_the_controllers_body_signature_opens_a_namespace_as_well(service: Service) -> None:
    body = signed(CONTROLLER, "IngestSynapse", {"raw_embedding": UP, "namespace": MINE})
    assert (await answers.ingest(service, body)).body["error"] is None
    body = signed(CONTROLLER, "QuerySynapse", {"query_vector": UP, "namespace": MINE})
    results: Any = (await answers.query(service, body)).body["results"]
    assert len(results) == 1


async def test_nothing_private_shows_in_public(service: Service) -> None:
    cid = await ingest(service, text="a secret", **in_namespace(CONTROLLER, MINE))
    assert await found(service) == []
    assert (await answers.listing(service, b"{}")).body["count"] == 0
    assert (await answers.listing(service, encoded({"namespace": "__public__"}))).body["count"] == 0
    assert (await answers.retrieve(service, cid, {})).status == 404
    assert answers.health(service).body["vectors"] == 0
    assert answers.stats(service).body["vectors"] == 0
    assert (await answers.commitment(service)).body["count"] == 0
    challenge = {"cid": cid, "nonce_hex": "11" * 32, "expires_at": int(time.time()) + 60}
    assert (await answers.challenge(service, encoded(challenge))).status == 404
    body = signed(CONTROLLER, "DeleteSynapse", {"cid": cid})
    assert (await answers.delete(service, cid, body)).status == 404


async def test_the_same_content_lives_in_both_worlds_apart(service: Service) -> None:
    public = await ingest(service, raw_embedding=UP)
    assert await ingest(service, raw_embedding=UP, **in_namespace(CONTROLLER, MINE)) == public
    body = signed(CONTROLLER, "DeleteSynapse", {"cid": public, "namespace": MINE})
    assert (await answers.delete(service, public, body)).status == 200
    assert await found(service) == [public]


def unsigned(name: str) -> dict[str, Any]:
    return {"namespace": name}


def forged(name: str) -> dict[str, Any]:
    return {**in_namespace(STRANGER, name), "namespace_hotkey": CONTROLLER.ss58}


def of_another_name(name: str) -> dict[str, Any]:
    return {**in_namespace(CONTROLLER, "other"), "namespace": name}


def stale(name: str) -> dict[str, Any]:
    return in_namespace(CONTROLLER, name, time.time_ns() // 1_000_000 - 61_000)


def strangers(name: str) -> dict[str, Any]:
    return in_namespace(STRANGER, name)


def key_only(name: str) -> dict[str, Any]:
    return {"namespace": name, "namespace_key": "0123456789abcdef"}


@pytest.mark.parametrize("claim", [unsigned, forged, of_another_name, stale, strangers, key_only])
async def test_nobody_else_uses_private_namespaces(service: Service, claim: Any) -> None:
    cid = await ingest(service, text="mine", **in_namespace(CONTROLLER, MINE))
    refused: list[Answer] = [
        await answers.ingest(service, encoded({"text": "intruder", **claim(MINE)})),
        await answers.query(service, encoded({"query_text": "mine", **claim(MINE)})),
        await answers.listing(service, encoded(claim(MINE))),
        await answers.retrieve(service, cid, {key: str(value) for key, value in claim(MINE).items()}),
        await answers.delete(service, cid, encoded({"cid": cid, **claim(MINE)})),
        await answers.delete(service, cid, signed(STRANGER, "DeleteSynapse", {"cid": cid, **claim(MINE)})),
    ]
    assert {answer.status for answer in refused} == {403}
    assert not any(answer.body.get("results") for answer in refused)
    assert await found(service, **in_namespace(CONTROLLER, MINE)) == [cid]


# Deleting.


async def test_a_public_record_is_deleted_by_its_owner_or_the_controller(service: Service) -> None:
    for keypair in (STRANGER, CONTROLLER):
        body = signed(STRANGER, "IngestSynapse", {"text": "a stranger's"})
        cid = str((await answers.ingest(service, body)).body["cid"])
        deleted = await answers.delete(service, cid, signed(keypair, "DeleteSynapse", {"cid": cid}))
        assert deleted == Answer(200, {"deleted": True, "cid": cid})
        assert (await answers.retrieve(service, cid, {})).status == 404


async def test_nobody_else_deletes_a_public_record(service: Service) -> None:
    cid = await ingest(service, text="everybody's")
    other = await ingest(service, text="another")
    replayed = signed(CONTROLLER, "DeleteSynapse", {"cid": other})
    assert (await answers.delete(service, other, replayed)).status == 200
    for body, status in (
        (b"", 401),
        (encoded({"hotkey": CONTROLLER.ss58, "nonce": 1, "signature": "00"}), 401),
        (signed(STRANGER, "DeleteSynapse", {"cid": cid}), 403),
        (signed(CONTROLLER, "IngestSynapse", {"cid": cid}), 401),
        (signed(CONTROLLER, "DeleteSynapse", {}), 401),
        (signed(CONTROLLER, "DeleteSynapse", {"cid": other}), 401),
        (replayed, 401),
    ):
        assert (await answers.delete(service, cid, body)).status == status
    assert await found(service) == [cid]


# Signatures.


async def test_a_claimed_hotkey_is_never_believed(service: Service) -> None:
    body = {"text": "a", "hotkey": STRANGER.ss58, "nonce": int(time.time() * 1000), "signature": "0x" + "00" * 64}
    cid = str((await answers.ingest(service, encoded(body))).body["cid"])
    record = await service.store.get("__public__", cid)
    assert record is not None
    assert record.owner is None


async def test_where_signatures_are_required_nothing_goes_without(strict: Service) -> None:
    body = {"text": "a"}
    for refused in (
        encoded(body),
        encoded({**body, "hotkey": STRANGER.ss58, "nonce": int(time.time() * 1000), "signature": "0x" + "00" * 64}),
        signed(STRANGER, "QuerySynapse", body),
        signed(STRANGER, "IngestSynapse", body, int(time.time() * 1000) - 31_000),
    ):
        answer = await answers.ingest(strict, refused)
        assert (answer.status, answer.body["cid"]) == (401, None)
    accepted = signed(STRANGER, "IngestSynapse", body)
    assert (await answers.ingest(strict, accepted)).body["error"] is None
    assert (await answers.ingest(strict, accepted)).status == 401


async def test_stamps_from_before_the_start_are_refused(tmp_path: Path) -> None:
    clock = ManualClock()
    early = int(clock.now() * 1000) - 1
    async with serving(tmp_path, clock=clock, require_signature=True) as service:
        assert (await answers.ingest(service, signed(STRANGER, "IngestSynapse", {"text": "a"}, early))).status == 401
        later = signed(STRANGER, "IngestSynapse", {"text": "a"}, early + 1)
        assert (await answers.ingest(service, later)).status == 200


async def test_a_replay_is_remembered_for_as_long_as_its_stamp_would_pass(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, clock=clock, require_signature=True) as service:
        ahead = signed(STRANGER, "IngestSynapse", {"text": "a"}, int(clock.now() * 1000) + 29_000)
        assert (await answers.ingest(service, ahead)).status == 200
        clock.advance(58)
        assert (await answers.ingest(service, ahead)).status == 401


# Proofs.


async def test_a_challenge_is_met_in_the_form_validators_check(service: Service) -> None:
    cid = await ingest(service, raw_embedding=UP)
    nonce, validator = "11" * 32, "aa" * 32
    fields = {"cid": cid, "nonce_hex": nonce, "expires_at": int(time.time()) + 10, "validator_hotkey_hex": validator}
    answer = await answers.challenge(service, encoded(fields))
    digest = hashlib.sha256(struct.pack(f"<{DIMENSION}f", *UP)).hexdigest()
    key = hashlib.sha256(bytes.fromhex(validator) + bytes.fromhex(nonce)).digest()
    expected = hmac.new(key, digest.encode(), hashlib.sha256).hexdigest()
    assert answer == Answer(200, {"embedding_hash": digest, "proof": expected})
    assert answers.stats(service).body["proof_rate"] == 1.0
    anonymous = await answers.challenge(service, encoded({**fields, "validator_hotkey_hex": ""}))
    assert anonymous.status == 200
    assert anonymous.body["proof"] != expected


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"expires_at": 1}, 400),
        ({"expires_at": "soon"}, 400),
        ({"expires_at": True}, 400),
        ({"nonce_hex": "zz"}, 400),
        ({"nonce_hex": "11" * 31}, 400),
        ({"nonce_hex": 5}, 400),
        ({"validator_hotkey_hex": "é" * 64}, 400),
        ({"cid": "v1::" + "0" * 64}, 404),
        ({"cid": "nonsense"}, 404),
        ({"cid": 7}, 400),
    ],
)
async def test_a_bad_challenge_is_refused(service: Service, change: dict[str, object], status: int) -> None:
    cid = await ingest(service, raw_embedding=UP)
    fields = {"cid": cid, "nonce_hex": "11" * 32, "expires_at": int(time.time()) + 10, "validator_hotkey_hex": ""}
    assert (await answers.challenge(service, encoded(fields | change))).status == status


async def test_the_commitment_is_fresh_signed_and_the_one_that_proofs_lead_to(service: Service) -> None:
    roots: list[str] = []
    for i in range(5):
        cid = await ingest(service, raw_embedding=[1.0, float(i), *UP[2:]])
        told = (await answers.commitment(service)).body
        assert told["count"] == i + 1
        roots.append(str(told["root_hex"]))
        signature = bytes.fromhex(str(told["signature"]).removeprefix("0x"))
        assert verify_signature(NODE.public_key, str(told["signed"]).encode(), signature)
        assert str(told["root_hex"]) in str(told["signed"])
        digest = hashlib.sha256(struct.pack(f"<{DIMENSION}f", 1.0, float(i), *UP[2:])).hexdigest()
        legacy = (await answers.commitment(service, {"form": "legacy"})).body
        asked = {"cid": cid, "embedding_hash": digest, "form": "legacy"}
        proved = (await answers.prove_memory(service, encoded(asked))).body
        assert proved["root_hex"] == legacy["root_hex"]
        proof = json.loads(str(proved["proof"]))
        steps = [merkle.Step(step["sibling"], step["side"]) for step in proof["steps"]]
        assert merkle.verify(merkle.Proof(proof["leaf_hex"], steps), bytes.fromhex(str(legacy["root_hex"])))
        proved = (await answers.prove_memory(service, encoded({"cid": cid, "embedding_hash": digest}))).body
        assert (proved["root_hex"], proved["included"]) == (told["root_hex"], True)
        shown = msgspec.json.decode(str(proved["proof"]), type=keyed_tree.Shown)
        assert keyed_tree.verify(shown, cid, bytes.fromhex(roots[-1])) == digest
    assert len(set(roots)) == 5
    assert (await answers.prove_memory(service, encoded({"cid": cid, "embedding_hash": "00"}))).status == 404
    absent = "v1::" + "0" * 64
    proved = (await answers.prove_memory(service, encoded({"cid": absent}))).body
    assert proved["included"] is False
    shown = msgspec.json.decode(str(proved["proof"]), type=keyed_tree.Shown)
    assert keyed_tree.verify(shown, absent, bytes.fromhex(roots[-1])) is None


# Bounds.


async def test_anonymous_records_never_fill_what_is_the_controllers(tmp_path: Path) -> None:
    async with serving(tmp_path, quota=400_000, kept_share=0.5) as service:
        refusal: dict[str, object] = {}
        for i in range(100):
            refusal = (await answers.ingest(service, encoded({"text": f"text {i}"}))).body
            if refusal["cid"] is None:
                break
        assert refusal["code"] == "over_quota"
        assert "controller's" in str(refusal["error"])
        batch = (await answers.ingest_batch(service, encoded({"items": [{"text": "more"}]}))).body["results"]
        assert batch[0]["code"] == "over_quota"
        mine = signed(CONTROLLER, "IngestSynapse", {"text": "mine"})
        assert (await answers.ingest(service, mine)).body["error"] is None


async def test_a_full_node_refuses_with_a_clear_error_and_still_serves(tmp_path: Path) -> None:
    async with serving(tmp_path, quota=180_000) as service:
        stored, refusal = [], None
        for i in range(100):
            answer = await answers.ingest(service, encoded({"text": f"text {i}"}))
            if answer.body["cid"] is None:
                refusal = answer
                break
            stored.append(answer.body["cid"])
        assert refusal is not None
        assert (refusal.status, refusal.body["code"]) == (200, "over_quota")
        assert "used up" in str(refusal.body["error"])
        assert stored
        assert len(await found(service)) == len(stored)


async def test_an_answer_says_what_a_vector_does_not_have_of_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cuts(self: HashEmbedder, texts: list[str]) -> list[Cut | None]:
        return [Cut(900, 254) if len(text) > 1_000 else None for text in texts]

    monkeypatch.setattr(HashEmbedder, "cuts", cuts)
    cut = {"truncated": True, "tokens": 900, "tokens_used": 254}
    async with serving(tmp_path) as service:
        items: list[dict[str, Any]] = [
            {"text": "x" * 2_000},
            {"text": "y" * 100},
            {"text": "z" * 2_000, "raw_embedding": UP},
            {"text": "a"},
        ]
        told: Any = (await answers.ingest_batch(service, encoded({"items": items}))).body["results"]
        for item, result in zip(items, told, strict=True):
            single = (await answers.ingest(service, encoded(item))).body
            for each in (single, result):
                assert {name: each[name] for name in cut if name in each} == (cut if item is items[0] else {})
        refused = (await answers.ingest(service, encoded({"text": "x" * 9_000}))).body
        assert "truncated" not in refused


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    *("text", "raw_embedding", "metadata", "model_version", "query_text", "query_vector", "top_k", "filter"),
    *("namespace", "namespace_hotkey", "namespace_sig", "namespace_timestamp_ms", "hotkey", "nonce", "signature"),
    *("limit", "offset", "cid", "nonce_hex", "expires_at", "validator_hotkey_hex", "embedding_hash"),
)


def sound(answer: Answer) -> None:
    """A 200, or a refusal that says why; never a fault of the node."""
    assert answer.status == 200 or 400 <= answer.status < 500
    assert answer.status == 200 or answer.body["error"]
    assert msgspec.json.encode(answer.body)


async def test_whatever_is_sent_is_answered_below_500(tmp_path: Path) -> None:
    """One store for all examples; Hypothesis drives from a thread, since it cannot await."""
    async with serving(tmp_path) as service:

        @settings(max_examples=150)
        @given(st.dictionaries(st.sampled_from(FIELDS), anything, max_size=6))
        def examples(fields: dict[str, Any]) -> None:
            body = json.dumps(fields).encode()
            for ask in (answers.ingest, answers.query, answers.listing, answers.challenge, answers.prove_memory):
                sound(trio.from_thread.run(ask, service, body))
            sound(trio.from_thread.run(answers.delete, service, "v1::x", body))
            texts = {key: value for key, value in fields.items() if isinstance(value, str)}
            sound(trio.from_thread.run(answers.retrieve, service, "v1::x", texts))

        await trio.to_thread.run_sync(examples)
