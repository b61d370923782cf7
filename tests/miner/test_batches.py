"""Batches: deleting and looking up many records in one request, and walking a namespace that changes meanwhile."""

import base64
import struct
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.hotkeys import Keypair, miner_scheme, verify
from engram.hotkeys.python_json import JsonObject
from engram.memory import padding
from engram.memory.batch_rules import check_lookup
from engram.memory.errors import InvalidRequest
from engram.memory.proof.keyed_tree import KeyedTree, key_of
from engram.miner.cursors import Cursors
from engram.miner.service import Service
from tests.memory.stores import DIMENSION
from tests.miner import endpoints as answers
from tests.miner.endpoints import Answer
from tests.miner.nodes import CONTROLLER, NODE, STAMPS, STRANGER, encoded, in_namespace, serving, signed

UP = [1.0] + [0.0] * (DIMENSION - 1)

ABSENT = "v1::" + "0" * 64


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path, tenants="anyone") as made:
        yield made


def numbers(number: int) -> list[float]:
    return [1.0, float(number), *[0.0] * (DIMENSION - 2)]


async def store(service: Service, signer: Keypair | None, count: int, *, first: int = 0, **more: Any) -> list[str]:
    items = [
        {"raw_embedding": numbers(number), "metadata": {"_ref": f"r{number % 7}", "n": number}}
        for number in range(first, first + count)
    ]
    fields = {"items": items, **more}
    body = encoded(fields) if signer is None else signed(signer, "IngestBatch", fields)
    results: Any = (await answers.ingest_batch(service, body)).body["results"]
    return [result["cid"] for result in results]


async def deleting(service: Service, signer: Keypair | None, cids: list[str], **more: Any) -> Answer:
    fields = {"cids": cids, **more}
    return await answers.delete_batch(
        service, encoded(fields) if signer is None else signed(signer, "DeleteBatch", fields)
    )


async def page(service: Service, **fields: Any) -> Mapping[str, Any]:
    answer = await answers.listing(service, signed(CONTROLLER, "list", fields))
    assert answer.status == 200, answer.body
    return answer.body


async def test_each_record_of_a_batch_is_deleted_by_whoever_may(service: Service) -> None:
    (own,), (theirs,), (nobodys,) = [
        await store(service, signer, 1, first=first)
        for first, signer in enumerate((STRANGER, Keypair.from_seed(bytes([9]) * 32), None))
    ]
    answer = await deleting(service, STRANGER, [own, theirs, nobodys, ABSENT, own])
    outcomes: Any = answer.body["results"]
    assert [each.get("code") for each in outcomes] == [None, "not_owner", "not_owner", "not_found", "not_found"]
    assert [each["deleted"] for each in outcomes] == [True, False, False, False, False]
    assert answer.body["deleted"] == 1
    assert (await deleting(service, CONTROLLER, [theirs, nobodys])).body["deleted"] == 2
    assert service.store.count().public == 0
    assert len(service.commitment) == 0


async def test_a_batch_is_deleted_by_nobody_without_a_signature_of_this_very_request(service: Service) -> None:
    cids = await store(service, CONTROLLER, 2)
    await store(service, CONTROLLER, 2, namespace="notes")
    assert (await deleting(service, None, cids)).status == 401
    assert (await answers.delete_batch(service, signed(CONTROLLER, "list", {"cids": cids}))).status == 401
    named = {"cids": cids, **in_namespace(CONTROLLER, "notes")}
    assert (await answers.delete_batch(service, encoded(named))).status == 401
    assert service.store.count() == msgspec.structs.replace(service.store.count(), public=2, private=2)
    asked: JsonObject = {"cids": [*cids]}
    fields = miner_scheme.sign_namespace_request(CONTROLLER, "DeleteBatch", "notes", asked, STAMPS.next())
    assert (await answers.delete_batch(service, encoded(fields))).body["deleted"] == 2
    assert (await answers.delete_batch(service, encoded(fields))).status == 403


async def test_a_batch_touches_no_other_namespace(service: Service) -> None:
    mine = await store(service, CONTROLLER, 3, namespace="notes")
    theirs = await store(service, STRANGER, 3, namespace="notes")
    assert mine == theirs
    assert (await deleting(service, STRANGER, theirs, namespace="notes")).body["deleted"] == 3
    assert (await page(service, namespace="notes"))["count"] == 3


@pytest.mark.parametrize(
    "fields",
    [{}, {"cids": []}, {"cids": "v1::"}, {"cids": [1]}, {"cids": ["x"] * 257}, {"cids": ["x" * 513]}],
)
async def test_a_malformed_batch_is_refused_whole(service: Service, fields: dict[str, Any]) -> None:
    answer = await answers.delete_batch(service, signed(CONTROLLER, "DeleteBatch", fields))
    assert (answer.status, answer.body["code"]) == (400, "malformed")
    assert "cids must be" in str(answer.body["error"])


async def test_records_are_looked_up_by_many_references_at_once(service: Service) -> None:
    cids = await store(service, CONTROLLER, 20, namespace="notes")

    async def look(**fields: Any) -> Mapping[str, Any]:
        sent = {"namespace": "notes", "values": ["r0", "r3", "none", "r0"], **fields}
        answer = await answers.look_up(service, signed(CONTROLLER, "LookupBatch", sent))
        assert answer.status == 200, answer.body
        return answer.body

    wanted = [cid for number, cid in enumerate(cids) if number % 7 in (0, 3)]
    assert [each["cid"] for each in (await look())["records"]] == wanted
    lean = await look(whole=False, limit=4)
    assert lean["records"] == [{"cid": cid, "value": f"r{cids.index(cid) % 7}"} for cid in wanted[:4]]
    await deleting(service, CONTROLLER, wanted[:4], namespace="notes")
    rest = await look(whole=False, after=lean["next"])
    assert [each["cid"] for each in rest["records"]] == wanted[4:]
    assert rest["next"] is None
    by_number = await look(key="n", values=["5", "6"])
    assert [each["metadata"]["n"] for each in by_number["records"]] == ["5", "6"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"values": []}, "values"),
        ({"values": ["x"] * 257}, "values"),
        ({"values": ["\ud800"]}, "values"),
        ({"values": ["x"], "key": ""}, "key"),
        ({"values": ["x"], "key": 5}, "key"),
        ({"values": ["x"], "whole": 1}, "whole"),
        ({"values": ["x"], "limit": 0}, "limit"),
        ({"values": ["x"], "limit": True}, "limit"),
        ({"values": ["x"], "after": 5}, "after"),
    ],
)
def test_a_malformed_look_up_is_refused_by_its_field(fields: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{named} must be"):
        check_lookup(fields)


def test_a_look_up_has_defaults_and_a_limit() -> None:
    checked = check_lookup({"values": ["b", "a", "b"], "limit": 10_000, "after": None})
    assert (checked.key, checked.values, checked.whole, checked.limit, checked.after) == (
        "_ref",
        ("b", "a"),
        True,
        500,
        "",
    )


async def test_a_walk_sees_all_that_stays_and_proves_it(service: Service) -> None:
    """Of 60 records 20 are deleted and 5 added behind the first page: by offset 20 of the rest were never listed."""
    cids = await store(service, CONTROLLER, 60, namespace="notes")
    first = await page(service, namespace="notes", limit=20, after=None)
    await deleting(service, CONTROLLER, cids[:20], namespace="notes")
    cids += await store(service, CONTROLLER, 5, first=100, namespace="notes")
    seen, entries, after, last = [], [], first["next"], first
    while after is not None:
        last = await page(service, namespace="notes", limit=20, after=after)
        seen += [each["cid"] for each in last["records"]]
        entries += [key_of(each["cid"]) + bytes.fromhex(each["embedding_hash"]) for each in last["records"]]
        after = last["next"]
    assert seen == cids[20:]
    told = last["commitment"]
    tree = KeyedTree(entries)
    assert (told["root_hex"], told["count"]) == (tree.root.hex(), 45)
    assert told["signed"].startswith(f"engram-commitment:keyed-1:notes:{tree.root.hex()}:45:")
    assert verify(NODE.public_key, told["signed"].encode(), bytes.fromhex(told["signature"][2:]))


async def test_each_page_names_the_root_it_belongs_to_while_others_write(service: Service) -> None:
    await store(service, CONTROLLER, 10, namespace="notes")
    async with trio.open_nursery() as nursery:
        for first in range(0, 200, 20):
            nursery.start_soon(lambda first=first: store(service, None, 20, first=first))  # type: ignore[misc]
        for _ in range(20):
            told = (await page(service, namespace="notes", after=None))["commitment"]
            assert told is not None
            assert told["count"] == 10


async def test_a_namespace_that_changes_faster_than_it_is_read_has_pages_without_a_root(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(namespace: str, sequence: int) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(service.commitment, "as_of", never)
    await store(service, CONTROLLER, 3, namespace="notes")
    told = await page(service, namespace="notes", after=None)
    assert (told["count"], told["next"], told["commitment"]) == (3, None, None)


async def test_a_page_is_bounded_in_bytes(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    cids = await store(service, CONTROLLER, 10, namespace="notes")
    monkeypatch.setattr("engram.miner.handlers.listing.MOST_BYTES", 600)
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        told = await page(service, namespace="notes", after=after)
        assert 1 <= told["count"] < 10
        seen += [each["cid"] for each in told["records"]]
        after = told["next"]
    assert seen == cids


async def test_a_cursor_tells_nothing_and_is_good_for_its_namespace_alone(service: Service) -> None:
    await store(service, CONTROLLER, 3, namespace="notes")
    await store(service, None, 3)
    cursor = (await page(service, namespace="notes", limit=1, after=None))["next"]
    assert (await page(service, namespace="notes", limit=1, after=cursor))["records"][0]["metadata"]["n"] == "1"
    for after in (cursor, "x", "zz" * 16, "0" * 32):
        answer = await answers.listing(service, signed(CONTROLLER, "list", {"after": after}))
        assert (answer.status, "begin again" in str(answer.body["error"])) == (400, True)
    both = await answers.listing(service, signed(CONTROLLER, "list", {"after": None, "offset": 1}))
    assert (both.status, "not both" in str(both.body["error"])) == (400, True)


@given(st.text(max_size=20), st.integers(0, 2**63 - 1), st.text(max_size=20))
@settings(max_examples=50)
def test_a_cursor_comes_back_as_the_number_and_for_no_other_namespace(name: str, number: int, other: str) -> None:
    cursors = Cursors("truth")
    cursor = cursors.of(name, number)
    assert cursors.read(name, cursor) == number
    assert repr(cursors) == "Cursors()"
    for reader, namespace in ((Cursors("another truth"), name), *([(cursors, other)] if other != name else [])):
        with pytest.raises(InvalidRequest):
            reader.read(namespace, cursor)


async def test_offsets_go_on_as_they_were(service: Service) -> None:
    await store(service, CONTROLLER, 5, namespace="notes")
    told = await page(service, namespace="notes", limit=2, offset=3)
    assert set(told) - {"_p"} == {"records", "count", "offset", "limit"}
    assert [each["metadata"]["n"] for each in told["records"]] == ["3", "4"]


async def test_answers_to_private_batches_are_padded_in_size_and_time(tmp_path: Path) -> None:
    async with serving(tmp_path, private_bucket_s=0.02) as service:
        cids = await store(service, CONTROLLER, 40, namespace="notes")
        asked: list[tuple[Any, str, dict[str, Any]]] = [
            (answers.look_up, "LookupBatch", {"values": ["r1", "none"]}),
            (answers.listing, "list", {"after": None}),
            (answers.delete_batch, "DeleteBatch", {"cids": cids[:20]}),
            (answers.delete_batch, "DeleteBatch", {"cids": [ABSENT]}),
            (answers.delete_batch, "DeleteBatch", {"cids": []}),
        ]
        for endpoint, name, fields in asked:
            began = trio.current_time()
            answer = await endpoint(service, signed(CONTROLLER, name, {"namespace": "notes", **fields}))
            assert trio.current_time() - began >= 0.02, name
            size = len(msgspec.json.encode(answer.body))
            assert size == padding.padded_size(size), name


async def test_a_batch_gives_the_cids_of_single_ingests_and_a_result_for_each(tmp_path: Path) -> None:
    packed = base64.b64encode(struct.pack(f"<{DIMENSION}f", *UP)).decode()
    items: list[Any] = [
        {"text": "one", "metadata": {"n": 1}},
        {"raw_embedding": UP},
        {"raw_embedding_b64": packed, "metadata": {"b": True}},
        {"raw_embedding": [1.0]},
        {"raw_embedding_b64": "???"},
        {"raw_embedding_b64": packed[:8]},
        {"raw_embedding_b64": packed, "raw_embedding": UP},
        {"text": " "},
        5,
    ]
    async with serving(tmp_path) as service:
        answer = await answers.ingest_batch(service, encoded({"items": items}))
        results: Any = answer.body["results"]
        assert (answer.status, answer.body["stored"]) == (200, 3)
        for item, result in zip(items[:3], results, strict=False):
            single = (await answers.ingest(service, encoded(item))).body
            assert single == result
        assert all(result["cid"] is None and result["error"] for result in results[3:])
        assert answers.health(service).body["vectors"] == 3
        found: Any = (await answers.query(service, encoded({"query_vector_b64": packed}))).body["results"]
        assert len(found) == 3


@pytest.mark.parametrize(
    "fields", [{}, {"items": []}, {"items": 5}, {"items": [{}] * 257}], ids=["none", "empty", "number", "257"]
)
async def test_what_is_no_batch_is_a_400_and_stores_nothing(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with serving(tmp_path) as service:
        assert (await answers.ingest_batch(service, encoded(fields))).status == 400
        assert answers.health(service).body["vectors"] == 0


async def test_a_batch_is_stored_in_the_namespace_it_names(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        items = [{"text": f"text {i}"} for i in range(80)]
        body = signed(CONTROLLER, "IngestBatch", {"items": items, "namespace": "notes"})
        assert (await answers.ingest_batch(service, body)).body["stored"] == 80
        assert answers.health(service).body["vectors"] == 0
        listed = await answers.listing(service, encoded({**in_namespace(CONTROLLER, "notes"), "limit": 200}))
        assert listed.body["count"] == 80
