"""A node's searches with a mode, and facts that change, through its endpoints."""

import base64
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from engram.cli.miner.ingest import read_line
from engram.clock import ManualClock
from engram.hotkeys import Keypair, miner_scheme
from engram.hotkeys.python_json import JsonObject
from engram.memory.embed.hash_embedder import hash_vector
from engram.memory.padding import SIZES
from engram.memory.upkeep import verify
from engram.miner.service import Service
from engram.sdk import restoring
from tests.memory.search.searchers import READ, ShortSighted
from tests.memory.stores import DIMENSION
from tests.miner import endpoints as answers
from tests.miner.nodes import CONTROLLER, ROOT, STAMPS, STRANGER, NodeProcess, encoded, node, serving, signed
from tests.sampling import NIGHTLY, SEED

FAR = "walruses whistle at whales"
LONG = "otters hold hands while they sleep in the kelp of the bay.. ".ljust(READ) + "x" * READ + FAR
NOBODYS = "v1::" + "0" * 64


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path, tenants="anyone", embedder=ShortSighted(), waits_for_windows=True) as made:
        yield made


async def ingest(service: Service, signer: Keypair | None = CONTROLLER, **fields: Any) -> dict[str, Any]:
    body = encoded(fields) if signer is None else signed(signer, "IngestSynapse", fields)
    answer = await answers.ingest(service, body)
    assert answer.status == 200, answer.body
    return dict(answer.body)


async def batch(service: Service, items: list[dict[str, Any]], signer: Keypair = CONTROLLER, **more: Any) -> Any:
    answer = await answers.ingest_batch(service, signed(signer, "IngestBatch", {"items": items, **more}))
    return answer.body["results"]


async def find(service: Service, text: str, signer: Keypair = CONTROLLER, **fields: Any) -> list[dict[str, Any]]:
    answer = await answers.query(service, signed(signer, "QuerySynapse", {"query_text": text, **fields}))
    assert answer.status == 200, answer.body
    assert answer.body["error"] is None, answer.body
    results: Any = answer.body["results"]
    return list(results)


async def test_a_search_without_a_mode_answers_as_it_always_did(service: Service) -> None:
    await ingest(service, text="otters")
    [hit] = await find(service, "otters")
    assert set(hit) == {"cid", "metadata", "text", "score", "trust_tier"}


async def test_a_search_with_a_mode_says_by_what_hits_are_ordered(service: Service) -> None:
    await ingest(service, text="otters hold hands", namespace="notes")
    await ingest(service, text="walruses do not", namespace="notes")
    first, second = await find(service, "otters", mode="hybrid", namespace="notes")
    assert first["text"] == "otters hold hands"
    assert first["relevance"] == pytest.approx(first["score"] + 0.3, abs=2e-6)
    assert second["relevance"] == second["score"]
    told = service.metrics.render().decode()
    assert 'engram_miner_searches_total{mode="hybrid"} 1.0' in told
    assert 'engram_miner_search_behind{what="words"} 0.0' in told
    [only] = await find(service, "walruses", mode="words", namespace="notes")
    assert (only["text"], only["relevance"]) == ("walruses do not", 1.0)


async def test_words_of_the_public_namespace_are_those_that_everyone_may_read(service: Service) -> None:
    await ingest(service, text="a secret of anna's")
    await ingest(service, text="an open word", metadata={"text": "an open word"})
    for word, found in (("secret", 0), ("open", 1)):
        answer = await answers.query(service, encoded({"query_text": word, "mode": "words"}))
        assert len(list(answer.body["results"])) == found


async def test_a_long_text_is_found_whole_and_the_answer_says_so(service: Service) -> None:
    stored = await ingest(service, text=LONG, metadata={"text": LONG})
    assert (stored["truncated"], stored["tokens"], stored["tokens_used"]) == (True, len(LONG), READ)
    assert stored["tokens_searchable"] == len(LONG)
    [listed] = await batch(service, [{"text": LONG, "metadata": {"text": LONG, "n": 2}}])
    assert listed["tokens_searchable"] == len(LONG)
    assert (await find(service, FAR, mode="vector", top_k=1))[0]["score"] == pytest.approx(1.0)
    short = await ingest(service, text="short")
    assert not short.keys() & {"truncated", "tokens_searchable"}


async def test_a_public_search_does_not_tell_what_is_in_an_owners_text(service: Service) -> None:
    guess = "patient anna has illness forty two".ljust(READ)
    hidden = await ingest(service, text="an innocent beginning".ljust(READ) + guess)
    assert "tokens_searchable" not in hidden
    open_to_all = "an open beginning".ljust(READ) + "otters".ljust(READ)
    await ingest(service, text=open_to_all, metadata={"text": open_to_all})
    scores = {}
    for text in (guess, "otters".ljust(READ)):
        answer = await answers.query(service, encoded({"query_text": text, "mode": "vector"}))
        scores[text] = max(hit["score"] for hit in answer.body["results"])
    assert scores[guess] < 0.9 < scores["otters".ljust(READ)]


async def test_whether_the_end_of_a_long_text_is_found_can_be_asked_later(tmp_path: Path) -> None:
    slow = ShortSighted()
    slow.fails = True

    async def asked(service: Service, stored: dict[str, Any], windows: str = "true") -> Any:
        fields = miner_scheme.sign_namespace_request(
            CONTROLLER, "retrieve", "notes", {"cid": stored["cid"], "windows": windows}, STAMPS.next()
        )
        answer = await answers.retrieve(service, stored["cid"], {name: str(fields[name]) for name in fields})
        return answer.body.get("windows") if answer.status == 200 else answer.body["error"]

    async with serving(tmp_path, tenants="anyone", embedder=slow) as service:
        stored = await ingest(service, text=LONG, namespace="notes")
        assert await asked(service, stored) == "to come"
        assert await asked(service, stored, "false") is None
        assert await asked(service, stored, "maybe") == "windows must be true or false."
        assert await asked(service, await ingest(service, text="short", namespace="notes")) == "none"
        vector = await ingest(service, raw_embedding=[1.0] * DIMENSION, namespace="notes")
        assert await asked(service, vector) == "none"
    async with serving(tmp_path, tenants="anyone", embedder=ShortSighted()) as service:
        await find(service, FAR, mode="words", namespace="notes")
        while await asked(service, stored) != "there":  # noqa: ASYNC110 -- asking is the subject
            await trio.sleep(0.005)


async def test_windows_that_follow_the_answer_are_not_claimed(tmp_path: Path) -> None:
    async with serving(tmp_path, tenants="anyone", embedder=ShortSighted()) as service:
        assert (await ingest(service, text=LONG, namespace="notes"))["tokens_searchable"] == READ
    slow = ShortSighted()
    slow.fails = True
    async with serving(tmp_path, tenants="anyone", embedder=slow, noise_sigma=0.01) as service:
        noisy = await ingest(service, text=LONG, namespace="notes")
        assert noisy["truncated"] is True
        assert "tokens_searchable" not in noisy, "a window would be the text's own vector, without noise"


async def test_a_newer_fact_takes_the_place_of_the_older_one(service: Service) -> None:
    paris = await ingest(service, text="home is Paris", key="home", namespace="me")
    rome = await ingest(service, text="home is Rome", key="home", namespace="me")
    oslo = await ingest(service, text="home is Oslo", supersedes=rome["cid"], namespace="me")
    for mode in (None, "vector", "words", "hybrid"):
        assert [hit["text"] for hit in await find(service, "home is Paris", namespace="me", mode=mode)] == [
            "home is Oslo"
        ]
    shown = await find(service, "home is Paris", namespace="me", history=True)
    assert {hit["text"]: hit.get("superseded_by") for hit in shown} == {
        "home is Paris": rome["cid"],
        "home is Rome": oslo["cid"],
        "home is Oslo": None,
    }
    listed = await answers.listing(service, signed(CONTROLLER, "list", {"namespace": "me", "key": "home"}))
    records: Any = listed.body["records"]
    assert [each["cid"] for each in records] == [paris["cid"], rome["cid"], oslo["cid"]]
    assert {each["key"] for each in records} == {"home"}
    again = await ingest(service, text="home is Paris", namespace="me")
    assert again["superseded_by"] == rome["cid"]
    again = await ingest(service, text="home is Paris", key="home", namespace="me")
    assert again["cid"] == paris["cid"]
    assert "superseded_by" not in again
    assert [hit["text"] for hit in await find(service, "home", namespace="me")] == ["home is Paris"]


@pytest.mark.parametrize("again", ["key", "supersedes"])
async def test_a_version_that_differs_behind_the_vectors_reach_is_refused_and_loses_nothing(
    service: Service, again: str
) -> None:
    head = "the same beginning of a document".ljust(READ)
    first = await ingest(service, text=head + " an old end about foxes", key="doc", namespace="me")
    newer: dict[str, Any] = {"text": head + " a new end about wolves", again: "doc" if again == "key" else first["cid"]}
    refused = await ingest(service, namespace="me", receipt=True, **newer)
    assert (refused["cid"], refused["code"]) == (None, "other_text")
    assert "send a metadata field that tells the versions apart" in refused["error"]
    assert not refused.keys() & {"receipt", "tokens", "tokens_searchable"}
    [listed] = await batch(service, [newer], namespace="me")
    assert (listed["cid"], listed["code"]) == (None, "other_text")
    assert [hit["text"] for hit in await find(service, "foxes", namespace="me", mode="words")] == [
        head + " an old end about foxes"
    ]
    stored = await ingest(service, namespace="me", metadata={"version": 2}, **newer)
    assert stored["tokens_searchable"] == len(newer["text"])
    assert [hit["text"] for hit in await find(service, "end", namespace="me", mode="words")] == [newer["text"]]
    assert len(await find(service, "end", namespace="me", mode="words", history=True)) == 2


async def test_nothing_is_told_of_a_text_that_is_not_kept(service: Service) -> None:
    head = "the same beginning of a document".ljust(READ)
    await ingest(service, text=head + " an old end", namespace="me")
    other = await ingest(service, text=head + " another end that is longer", namespace="me")
    assert other["text_kept"] is False
    assert not other.keys() & {"truncated", "tokens", "tokens_searchable"}


async def test_what_has_expired_is_not_found(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, clock=clock) as service:
        [stored] = await batch(service, [{"text": "rain today", "expires_at": clock.now() + 60}])
        assert len(await find(service, "rain")) == 1
        clock.advance(60)
        assert await find(service, "rain") == []
        assert len(await find(service, "rain", history=True)) == 1
        record = await answers.retrieve(service, stored["cid"], {})
        assert record.body["expires_at"] == clock.now()


@pytest.mark.parametrize("more", [{}, {"namespace": "me"}])
async def test_only_ones_own_record_is_superseded(service: Service, more: dict[str, Any]) -> None:
    annas = await ingest(service, text="anna's", **more)
    refused = await ingest(service, STRANGER, text="not anna's", supersedes=annas["cid"], **more)
    assert "which is no record of yours in this namespace" in refused["error"]
    missing, kept = await batch(service, [{"text": "x", "supersedes": NOBODYS}, {"text": "kept", "key": "k"}], **more)
    assert "no record of yours" in missing["error"]
    assert kept["cid"]


@pytest.mark.parametrize("field", [{"key": "home"}, {"supersedes": NOBODYS}, {"superseded_by": NOBODYS}])
async def test_an_unsigned_public_record_supersedes_nothing(service: Service, field: dict[str, str]) -> None:
    refused = await ingest(service, None, text="x", **field)
    assert f"{next(iter(field))} says what replaces a record of yours" in refused["error"]
    assert service.store.count().public == 0


async def test_roots_are_those_of_all_records_whatever_is_current(service: Service) -> None:
    for number in range(3):
        await ingest(service, text=f"home is town {number}", key="home")
    assert len(service.commitment) == 3
    again = await ingest(service, text="home is town 0", key="home")
    assert again["cid"]
    assert len(service.commitment) == 3
    root = await answers.commitment(service)
    assert root.body["count"] == 3


def ingested(record: dict[str, Any]) -> JsonObject:
    """Return an exported record as `engram miner ingest` sends it."""
    line = read_line(json.dumps(record).encode(), 1, "there")
    assert line is not None
    return line.item


@pytest.mark.parametrize("item_of", [restoring.item_of, ingested])
async def test_a_record_whose_successor_was_deleted_stays_superseded_where_it_is_moved(
    service: Service, item_of: Callable[[dict[str, Any]], JsonObject]
) -> None:
    paris = await ingest(service, text="home is Paris", key="home", namespace="me")
    rome = await ingest(service, text="home is Rome", key="home", namespace="me")
    fields = {"cid": rome["cid"], "namespace": "me"}
    assert (await answers.delete(service, rome["cid"], signed(CONTROLLER, "DeleteSynapse", fields))).status == 200
    listed = await answers.listing(service, signed(CONTROLLER, "list", {"namespace": "me"}))
    [record] = listed.body["records"]
    assert record["superseded_by"] == rome["cid"]
    vector = base64.b64encode(hash_vector("home is Paris", DIMENSION)).decode()
    item = item_of({**record, "kind": "record", "embedding_b64": vector})
    for _ in range(2):
        [stored] = await batch(service, [dict(item)], namespace="there")
        assert (stored["cid"], stored["superseded_by"]) == (paris["cid"], rome["cid"])
        assert await find(service, "home", namespace="there") == []
    oslo = await ingest(service, text="home is Oslo", key="home", namespace="other")
    await batch(service, [dict(item)], namespace="other")
    [current] = await find(service, "home", namespace="other")
    assert current["cid"] == oslo["cid"], "what was superseded where it comes from supersedes nothing"


async def test_answers_of_all_modes_are_padded(tmp_path: Path) -> None:
    async with serving(tmp_path, private_bucket_s=0.001) as service:
        await ingest(service, text="otters", namespace="me")
        for mode in ("vector", "words", "hybrid"):
            fields = {"query_text": "otters", "mode": mode, "namespace": "me", "diversity": 0.5, "recency": 9.0}
            answer = await answers.query(service, signed(CONTROLLER, "QuerySynapse", fields))
            assert len(msgspec.json.encode(answer.body)) in SIZES
        refused = await answers.query(
            service, signed(CONTROLLER, "QuerySynapse", {"query_text": "x", "mode": "x", "namespace": "me"})
        )
        assert refused.status == 400
        assert len(msgspec.json.encode(refused.body)) in SIZES


async def test_the_longest_query_is_one(service: Service) -> None:
    await ingest(service, text="otters", namespace="me")
    for text in ("otters " * 1_170, "o" * 8_192, '"' * 8_192, "東" * 8_192, "(" * 8_000 + "otters NEAR/2"):
        assert len(text) <= 8_192
        await find(service, text, mode="hybrid", namespace="me")


@pytest.mark.serial
def test_a_node_that_is_killed_finds_every_acknowledged_word_and_none_deleted(tmp_path: Path) -> None:
    with node(tmp_path) as running:
        cids = [running.post("/IngestSynapse", text=f"w{n}", metadata={"text": f"w{n} fox"})["cid"] for n in range(40)]
        for cid in cids[::4]:
            assert running.delete(cid)[0] == 200
        running.kill()
        running.start()
        hits = running.post("/QuerySynapse", query_text="fox", mode="words", top_k=100)["results"]
        assert {hit["cid"] for hit in hits} == set(cids) - set(cids[::4])
        more = running.post("/IngestSynapse", text="late", metadata={"text": "late fox"})["cid"]
        hits = running.post("/QuerySynapse", query_text="late", mode="words")["results"]
        assert [hit["cid"] for hit in hits] == [more]


@pytest.mark.serial
def test_windows_and_private_words_survive_being_killed_while_they_are_made(tmp_path: Path) -> None:
    def ask(path: str, endpoint: str, **fields: Any) -> dict[str, Any]:
        return running.ask("POST", path, signed(CONTROLLER, endpoint, {"namespace": "notes", **fields}))[1]

    def hits(text: str, mode: str, top_k: int) -> list[dict[str, Any]]:
        return list(ask("/QuerySynapse", "QuerySynapse", query_text=text, mode=mode, top_k=top_k)["results"])

    running, rng = NodeProcess(tmp_path), random.Random(SEED)
    running.entry = [str(ROOT / "tests" / "miner" / "windowing_node.py")]
    ends: dict[str, str] = {}
    try:
        running.start()
        for kill in range(12 if NIGHTLY else 4):
            for number in range(8):
                end = f"w{kill}x{number} whales whistle at walruses".ljust(60)
                text = f"text {number} of kill {kill}".ljust(60) + end
                ends[ask("/IngestSynapse", "IngestSynapse", text=text)["cid"]] = end
            gone = rng.choice(list(ends))
            body = signed(CONTROLLER, "DeleteSynapse", {"cid": gone, "namespace": "notes"})
            assert running.ask("DELETE", f"/retrieve/{gone}", body)[0] == 200
            deleted = ends.pop(gone)
            running.kill()
            running.start()
            assert {hit["cid"] for hit in hits("whales", "words", 100)} == ends.keys()
            assert hits(deleted.split()[0], "words", 10) == []
        for cid, end in ends.items():
            give_up = time.monotonic() + 20
            while (best := hits(end, "vector", 1)[0])["score"] < 0.999 and time.monotonic() < give_up:
                time.sleep(0.02)
            assert (best["cid"], best["score"]) == (cid, pytest.approx(1.0))
    finally:
        if running.process is not None and running.process.poll() is None:
            running.kill()
    assert verify.check(tmp_path / "data").problems == []
