"""Two tenants and an attacker: what one has is nowhere in what another sees, be it results, counts, sizes or errors."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.clock import ManualClock
from engram.hotkeys import Keypair, miner_scheme
from engram.memory.padding import SIZES
from engram.miner.service import Service
from tests.memory.stores import DIMENSION
from tests.miner import endpoints
from tests.miner.endpoints import Answer
from tests.miner.nodes import CONTROLLER, NODE, encoded, serving, signed

ANNA = Keypair.from_seed(bytes([11]) * 32)
BERT = Keypair.from_seed(bytes([12]) * 32)
EVE = Keypair.from_seed(bytes([13]) * 32)
NAMES = ("notes", "diary")
KEY = "0123456789abcdef"
UP = [1.0] + [0.0] * (DIMENSION - 1)


def fields_of(**given: Any) -> dict[str, Any]:
    return given


def named(keypair: Keypair, name: str, now_ms: int, fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, **miner_scheme.sign_namespace(keypair, name, now_ms)}


def bound(keypair: Keypair, endpoint: str, name: str, now_ms: int, fields: dict[str, Any]) -> bytes:
    return encoded(miner_scheme.sign_namespace_request(keypair, endpoint, name, fields, now_ms))


async def stored(service: Service, keypair: Keypair, name: str, text: str, now_ms: int) -> str:
    fields = {"raw_embedding": UP, "metadata": {"secret": text}}
    answer = await endpoints.ingest(service, bound(keypair, "IngestSynapse", name, now_ms, fields))
    assert answer.body["error"] is None, answer
    return str(answer.body["cid"])


async def settle_tenants(service: Service, now_ms: int) -> list[str]:
    """What tenants do: records, shares, conversations, deletions."""
    cids = []
    for number, (keypair, name) in enumerate([(ANNA, "notes"), (ANNA, "diary"), (BERT, "notes"), (ANNA, "notes")]):
        cids.append(await stored(service, keypair, name, f"secret {number}", now_ms + number))
    share = {"share_index": 1, "share_hex": "ab", "threshold": 2, "total": 3}
    for name in NAMES:
        answer = await endpoints.put_key_share(service, bound(ANNA, "KeyShareSynapse", name, now_ms, share))
        assert answer.status == 200
    by_key = {"text": "by key", "namespace": "notes", "namespace_key": KEY}
    cids.append(str((await endpoints.ingest(service, encoded(by_key))).body["cid"]))
    chat = {"user_id": "u", "conv_id": "c", "messages": [{"role": "user", "content": "secret talk", "ts": 1}]}
    saved = await endpoints.save_chat(service, signed(ANNA, "SaveChat", chat, now_ms))
    assert saved.status == 200
    gone = bound(ANNA, "DeleteSynapse", "notes", now_ms, {"cid": cids[0]})
    assert (await endpoints.delete(service, cids[0], gone)).status == 200
    query = bound(ANNA, "QuerySynapse", "notes", now_ms, {"query_vector": UP})
    results: Any = (await endpoints.query(service, query)).body["results"]
    assert [hit["metadata"]["secret"] for hit in results] == ["secret 3"]
    return cids


def without_times(answer: Answer) -> tuple[int, int, bytes]:
    """Status, size where it is padded, and the body without what the clock and the dice put there."""
    varying = ("latency_ms", "signature", "uptime_pct", "p50_latency_ms", "_p")
    body = {key: value for key, value in answer.body.items() if key not in varying}
    size = len(msgspec.json.encode(answer.body)) if "_p" in answer.body else 0
    return answer.status, size, msgspec.json.encode(body)


ATTACKS: tuple[str, ...] = (
    "ingest",
    "query",
    "list",
    "retrieve",
    "delete",
    "challenge",
    "prove",
    "share",
    "give",
    "repair",
    "root",
)
ATTACKS += ("commitment", "health", "stats", "chat", "chats", "attestation", "export", "whole", "batch")
SIGNINGS = ("none", "own", "own2", "forged", "key", "body")


async def attack(service: Service, what: str, how: str, name: str, cid: str, now_ms: int) -> Answer:
    """One request of Eve's: `how` she claims the namespace."""
    endpoint = {
        "ingest": "IngestSynapse",
        "query": "QuerySynapse",
        "delete": "DeleteSynapse",
        "list": "list",
        "challenge": "ChallengeSynapse",
        "prove": "prove-memory",
        "share": "KeyShareSynapse",
        "give": "KeyShareRetrieve",
        "repair": "RepairSynapse",
        "batch": "IngestBatch",
        "chat": "chat-history",
        "retrieve": "retrieve",
        "root": "commitment",
        "chats": "conversations",
        "export": "export",
    }.get(what, "other")
    fields: dict[str, Any] = {
        "raw_embedding": UP,
        "query_vector": UP,
        "cid": cid,
        "nonce_hex": "11" * 32,
        "version": 2,
        "expires_at": now_ms // 1000 + 60,
        "share_index": 2,
        "share_hex": "cd",
        "threshold": 2,
        "total": 3,
        "items": [{"raw_embedding": UP}],
        "user_id": "u",
        "conv_id": "c",
        "metadata": {"of": "eve"},
    }
    if what in ("retrieve", "root", "chat", "chats"):
        fields = {"user_id": "u"} if what in ("chat", "chats") else {"cid": cid} if what == "retrieve" else {}
    match how:
        case "own":
            fields = named(EVE, name, now_ms, fields)
        case "own2":
            fields = dict(miner_scheme.sign_namespace_request(EVE, endpoint, name, fields, now_ms))
        case "forged":
            fields = {**named(EVE, name, now_ms, fields), "namespace_hotkey": ANNA.ss58}
        case "key":
            fields = {**fields, "namespace": name, "namespace_key": KEY[::-1]}
        case _ if how == "body":
            fields = dict(miner_scheme.sign_body(EVE, endpoint, {**fields, "namespace": name}, now_ms))
        case _:
            pass
    body = encoded(fields)
    parameters = {key: str(value) for key, value in fields.items() if key not in ("cid", "user_id")}
    match what:
        case "retrieve":
            return await endpoints.retrieve(service, cid, parameters)
        case "delete":
            return await endpoints.delete(service, cid, body)
        case "root":
            return await endpoints.commitment(service, parameters)
        case "chat":
            return await endpoints.chat_history(service, "u", parameters)
        case "chats":
            return await endpoints.list_conversations(service, "u", parameters)
        case "commitment":
            return await endpoints.commitment(service)
        case "whole":
            return await endpoints.commitment(service, {"scope": "all"})
        case "health":
            return endpoints.health(service)
        case "stats":
            return endpoints.stats(service)
        case "attestation":
            return await endpoints.attestation(service, name)
        case _:
            pass
    ask = {
        "ingest": endpoints.ingest,
        "query": endpoints.query,
        "list": endpoints.listing,
        "challenge": endpoints.challenge,
        "prove": endpoints.prove_memory,
        "share": endpoints.put_key_share,
        "give": endpoints.get_key_share,
        "repair": endpoints.repair,
        "export": endpoints.export,
        "batch": endpoints.ingest_batch,
    }[what]
    return await ask(service, body)


async def test_an_attacker_sees_the_same_whether_or_not_there_are_tenants(tmp_path: Path) -> None:
    """Non-interference: the same requests of Eve's to a node with tenants and to one without."""
    clock = ManualClock()
    now_ms = int(clock.now() * 1000)
    (tmp_path / "full").mkdir()
    (tmp_path / "empty").mkdir()
    async with (
        serving(tmp_path / "full", clock=clock, tenants="anyone") as full,
        serving(tmp_path / "empty", clock=clock, tenants="anyone") as empty,
    ):
        cids = await settle_tenants(full, now_ms)
        claimed = st.tuples(st.sampled_from(SIGNINGS), st.sampled_from(NAMES))
        asked = st.tuples(st.sampled_from(ATTACKS), claimed, st.integers(0, 4))
        turn = 0

        @settings(max_examples=40, deadline=None)
        @given(st.lists(asked, min_size=1, max_size=12))
        def sequences(attacks: list[tuple[str, tuple[str, str], int]]) -> None:
            nonlocal turn
            for what, (how, name), target in attacks:
                turn += 1
                seen = [
                    without_times(trio.from_thread.run(attack, service, what, how, name, cids[target], now_ms + turn))
                    for service in (full, empty)
                ]
                assert seen[0] == seen[1], (what, how, name)
                assert b"secret" not in seen[0][2]
                assert seen[0][0] < 500

        await trio.to_thread.run_sync(sequences)
        page = await endpoints.listing(full, bound(ANNA, "list", "notes", now_ms + 20_000, {}))
        records: Any = page.body["records"]
        assert [record["metadata"] for record in records] == [{"secret": "secret 3"}]


async def test_one_name_of_two_keys_is_two_namespaces(tmp_path: Path) -> None:
    clock = ManualClock()
    now_ms = int(clock.now() * 1000)
    async with serving(tmp_path, clock=clock, tenants="anyone") as service:
        cid = await stored(service, ANNA, "notes", "anna's", now_ms)
        assert await stored(service, BERT, "notes", "anna's", now_ms) == cid
        gone = bound(BERT, "DeleteSynapse", "notes", now_ms, {"cid": cid})
        assert (await endpoints.delete(service, cid, gone)).status == 200
        kept = await endpoints.retrieve(
            service, cid, {key: str(value) for key, value in named(ANNA, "notes", now_ms, {}).items()}
        )
        assert (kept.status, kept.body["metadata"]) == (200, {"secret": "anna's"})


async def test_a_namespace_is_opened_by_its_key_as_with_the_original(tmp_path: Path) -> None:
    async with serving(tmp_path, tenants="anyone") as service:
        by_key = {"namespace": "my_ns", "namespace_key": KEY}
        cid = (await endpoints.ingest(service, encoded({"text": "kept", **by_key}))).body["cid"]
        derived = "e72694994c36a876351fe91f6f93cc47907987028ebc5edde4dd575dfd4f0848"
        assert await service.store.get(f"key:{derived}:my_ns", str(cid)) is not None
        found: Any = (await endpoints.query(service, encoded({"query_text": "kept", **by_key}))).body["results"]
        assert [hit["cid"] for hit in found] == [cid]
        other = {**by_key, "namespace_key": KEY + "x"}
        assert (await endpoints.query(service, encoded({"query_text": "kept", **other}))).body["results"] == []
        short = {**by_key, "namespace_key": "short"}
        assert (await endpoints.ingest(service, encoded({"text": "a", **short}))).status == 403
        assert (await endpoints.delete(service, str(cid), encoded(other))).status == 404
        assert (await endpoints.delete(service, str(cid), encoded(by_key))).status == 200


async def test_a_node_of_one_controller_derives_nothing_from_keys_that_anybody_makes_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.miner.namespace_keys.NamespaceKeys.derive", None)
    share = {"share_index": 1, "share_hex": "ab", "threshold": 2, "total": 3}
    async with serving(tmp_path) as service:
        for ask in (endpoints.put_key_share, endpoints.get_key_share, endpoints.listing, endpoints.ingest):
            named = encoded({"text": "a", "namespace": "notes", "namespace_key": KEY, **share})
            assert (await ask(service, named)).status == 403


async def test_a_signature_for_a_name_alone_deletes_nothing(tmp_path: Path) -> None:
    clock = ManualClock()
    now_ms = int(clock.now() * 1000)
    async with serving(tmp_path, clock=clock) as service:
        cid = await stored(service, CONTROLLER, "notes", "mine", now_ms)
        sniffed = encoded(named(CONTROLLER, "notes", now_ms, {"cid": cid}))
        assert (await endpoints.delete(service, cid, sniffed)).status == 401
        other = bound(CONTROLLER, "DeleteSynapse", "notes", now_ms, {"cid": "v1::" + "0" * 64})
        assert (await endpoints.delete(service, cid, other)).status == 401
        once = bound(CONTROLLER, "QuerySynapse", "notes", now_ms, {"query_vector": UP})
        assert (await endpoints.query(service, once)).status == 200
        replayed = await endpoints.query(service, once)
        assert (replayed.status, replayed.body["code"]) == (403, "replayed")
        assert (await endpoints.listing(service, once)).status == 403


async def test_a_request_meant_for_another_node_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, require_signature=True) as service:
        for receiver, status in ((EVE, 401), (NODE, 200)):
            body = signed(ANNA, "IngestSynapse", {"text": "a", "signed_for": receiver.ss58})
            assert (await endpoints.ingest(service, body)).status == status


async def test_private_answers_have_few_sizes_and_times_whatever_they_say(tmp_path: Path) -> None:
    async with serving(tmp_path, tenants="anyone", private_bucket_s=0.02) as service:
        sizes = set()
        for number in range(5):
            asks: list[dict[str, Any]] = [
                {"raw_embedding": UP, "metadata": {"n": "x" * 90 * number}, "namespace": "notes", "namespace_key": KEY},
                {"raw_embedding": UP, "namespace": "notes", "namespace_key": KEY[::-1] * number},
                {"raw_embedding": [], "namespace": "notes", "namespace_key": KEY},
                {"query_vector": UP, "namespace": "notes", "namespace_key": KEY, "top_k": number},
                {"namespace": "not a name", "namespace_key": KEY},
            ]
            for fields in asks:
                for ask in (endpoints.ingest, endpoints.query, endpoints.listing, endpoints.challenge):
                    began = trio.current_time()
                    answer = await ask(service, json.dumps(fields).encode())
                    assert trio.current_time() - began >= 0.02
                    sizes.add(len(msgspec.json.encode(answer.body)))
        assert sizes <= set(SIZES)
        public = await endpoints.ingest(service, json.dumps({"raw_embedding": UP}).encode())
        assert "_p" not in public.body


async def test_a_private_answer_says_no_more_of_its_time_than_the_bucket_it_came_in(tmp_path: Path) -> None:
    async with serving(tmp_path, tenants="anyone", private_bucket_s=0.02) as service:
        for top_k in (1, 1000):
            asked = {"query_vector": UP, "namespace": "notes", "namespace_key": KEY, "top_k": top_k}
            latency_ms = (await endpoints.query(service, encoded(asked))).body["latency_ms"]
            assert isinstance(latency_ms, float)
            assert latency_ms / 20 == pytest.approx(round(latency_ms / 20), abs=0.001)


async def test_what_is_refused_before_anything_is_looked_at_is_disguised_as_well(tmp_path: Path) -> None:
    async with serving(tmp_path, tenants="anyone", require_signature=True, private_bucket_s=0.02) as service:
        refused: list[dict[str, Any]] = [
            {"namespace": "notes"},
            {"namespace": "notes", "hotkey": ANNA.ss58, "nonce": 1, "signature": "00" * 64},
            {"namespace": "notes", "signed_for": ANNA.ss58},
        ]
        for fields in refused:
            answer = await endpoints.listing(service, encoded(fields))
            assert (answer.status, len(msgspec.json.encode(answer.body))) == (401, SIZES[0])
        assert "_p" not in (await endpoints.listing(service, b"{}")).body


def test_an_answer_that_took_longer_than_a_bucket_is_counted() -> None:
    from engram.miner.disguise import Disguise

    late: list[int] = []

    async def main() -> float:
        disguise = Disguise(0.1, lambda: late.append(1))
        arrived_s = trio.current_time()
        await trio.sleep(0.25)
        assert len(await disguise.encoded({}, arrived_s)) == SIZES[0]
        return float(trio.current_time() - arrived_s)

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == pytest.approx(0.3)
    assert late == [1]
