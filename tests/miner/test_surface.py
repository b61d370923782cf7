"""The HTTP surface of a node and of its operator: every route is described, and nonsense is never a 500."""

import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from config.model import HttpSettings
from engram.clock import SeededIds, SystemClock
from engram.hotkeys import miner_scheme
from engram.http.app import App
from engram.http.request import Answer, Handler
from engram.miner.app import bind, make_app
from engram.miner.ops import ops_app
from engram.miner.service import Service
from tests.http.asgi_client import AsgiClient
from tests.miner.nodes import CONTROLLER, STRANGER, encoded, serving, signed
from tests.miner.operations import OPERATIONS, POSTED
from tests.miner.test_authority import endpoint


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path) as made:
        yield made


def app_of(service: Service) -> App:
    settings = HttpSettings(requests_per_minute_per_ip=0, max_body_bytes=100_000)
    clock, ids = SystemClock(), SeededIds(2)
    return make_app(service, settings=settings, clock=clock, ids=ids, metrics=service.metrics)


def ops_of(service: Service) -> App:
    return ops_app(service, clock=SystemClock(), ids=SeededIds(3), metrics=service.metrics)


class Recorded:
    """What is bound, in the place of a router."""

    def __init__(self) -> None:
        self.routes: set[tuple[str, str]] = set()

    def add(self, method: str, path: str, handler: Handler, *, hot: bool = False, in_parts: bool = False) -> None:
        self.routes.add((method.lower(), path.replace("...", "")))

    def add_probe(self, path: str, handler: Handler) -> None:
        self.routes.add(("get", path))

    def add_fixed(self, path: str, answer: Answer) -> None:
        self.routes.add(("get", path))


async def test_the_document_names_every_route_and_no_other(service: Service) -> None:
    described = {(operation.method, operation.path) for operation in OPERATIONS}
    recorded = Recorded()
    bind(recorded, service)
    assert described == recorded.routes
    client = AsgiClient(app_of(service))
    answer = await client.get("/openapi.json")
    document = json.loads(await answer.get_data())
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {operation.path for operation in OPERATIONS}
    assert len({operation.id for operation in OPERATIONS}) == len(OPERATIONS)


async def test_an_endpoint_that_takes_a_body_is_posted_to_and_nothing_else(service: Service) -> None:
    client = AsgiClient(app_of(service))
    for path in POSTED:
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST"), path
        assert (await answer.get_json())["code"] == "method_not_allowed"


async def test_the_root_without_parameters_is_the_one_with_empty_ones(service: Service) -> None:
    client = AsgiClient(app_of(service))
    direct, by_form = [await (await client.get(f"/commitment{asked}")).get_json() for asked in ("", "?form=keyed-1")]
    assert set(direct) == set(by_form)
    assert (direct["root_hex"], direct["count"]) == (by_form["root_hex"], by_form["count"])


def undescribed(schema: dict[str, Any], told: Any) -> list[str]:
    """Fields of an answer that its schema does not name, however deep; an object without properties holds any."""
    if isinstance(told, list):
        return [name for each in told for name in undescribed(schema.get("items", {}), each)]
    if not isinstance(told, dict) or "properties" not in schema:
        return []
    named: dict[str, Any] = schema["properties"]
    deeper = [name for key, value in told.items() if key in named for name in undescribed(named[key], value)]
    return sorted(set(told) - set(named)) + deeper


@pytest.mark.parametrize("namespace", [None, "notes"])
async def test_answers_are_what_the_document_says_field_by_field(service: Service, namespace: str | None) -> None:
    client = AsgiClient(app_of(service))
    stamps = iter(range(time.time_ns() // 10**6, 2**63))
    named = {"namespace": namespace} if namespace else {}
    asked: set[str] = set()

    async def ask(id: str, path: str, fields: dict[str, Any]) -> dict[str, Any]:
        operation = next(each for each in OPERATIONS if each.id == id)
        name = endpoint(operation)
        sent = (
            miner_scheme.sign_body(CONTROLLER, name, fields, next(stamps))
            if id not in ("attest", "identity")
            else fields
        )
        if operation.method == "get":
            kept = {key: value for key, value in sent.items() if key not in ("cid", "user_id")}
            answer = await client.get(path, query_string=kept)
        else:
            answer = await getattr(client, operation.method)(path, data=encoded(sent))
        lines = (await answer.get_data()).splitlines()
        told: dict[str, Any] = json.loads(lines[0])
        assert (answer.status_code, answer.mimetype) == (200, operation.media), (id, told)
        jsonschema.validate(told, operation.gives)
        if id not in ("export", "exportStream"):  # documents, as engram.memory.upkeep.export_pages names their fields
            assert undescribed(operation.gives, told) == [], id
        asked.add(id)
        return told

    cid = (await ask("ingest", "/IngestSynapse", {"text": "a", "metadata": {"n": 1}, **named}))["cid"]
    await ask("ingest", "/IngestSynapse", {"text": "A", "metadata": {"n": 1}, **named})
    await ask("ingest", "/IngestSynapse", {**named})
    await ask("ingestBatch", "/IngestBatch", {"items": [{"text": "c"}, {}, 5], **named})
    await ask("query", "/QuerySynapse", {"query_text": "a", **named})
    await ask("query", "/QuerySynapse", {**named})
    await ask("list", "/list", named)
    await ask("list", "/list", {"after": None, **named})
    await ask("lookupBatch", "/LookupBatch", {"key": "n", "values": ["1"], **named})
    await ask("lookupBatch", "/LookupBatch", {"key": "n", "values": ["1"], "whole": False, "limit": 1, **named})
    await ask("deleteBatch", "/DeleteBatch", {"cids": ["v1::" + "0" * 64], **named})
    await ask("retrieve", f"/retrieve/{cid}", {"cid": cid, **named})
    challenge = {"cid": cid, "nonce_hex": "11" * 32, **named}
    await ask("challenge", "/ChallengeSynapse", {**challenge, "expires_at": 9_999_999_999})
    await ask("challenge", "/ChallengeSynapse", {**challenge, "expires_at": int(time.time()) + 60, "version": 2})
    await ask("commitment", "/commitment", named)
    for sought in (cid, "v1::" + "0" * 64):
        await ask("proveMemory", "/prove-memory", {"cid": sought, **named})
    await ask("export", "/export", {})
    await ask("exportStream", "/export-stream", {})
    await ask("attest", "/AttestNamespace", dict(miner_scheme.sign_attestation(CONTROLLER, "notes", next(stamps))))
    for name in ("notes", "nobodys"):
        await ask("attestation", f"/attestation/{name}", {})
    for path in ("health", "stats", "metagraph"):
        await ask(path, f"/{path}", {})
    await ask("openapi", "/openapi.json", {})
    await ask("identity", "/identity", {"nonce_hex": "00" * 32})
    chat: dict[str, Any] = {"user_id": "u", "conv_id": "c"}
    await ask("makeConversation", "/conversations", {**chat, "title": "t"})
    await ask("saveChat", "/chat-history", {**chat, "messages": [{"role": "user", "content": "hi"}]})
    await ask("chatHistory", "/chat-history/u", {"user_id": "u"})
    await ask("conversations", "/conversations/u", {"user_id": "u"})
    await ask("renameConversation", "/conversations/c", {**chat, "title": "u"})
    await ask("deleteConversation", "/conversations/c", chat)
    if namespace:
        share = {"share_index": 1, "share_hex": "ab", "threshold": 2, "total": 3}
        await ask("putKeyShare", "/KeyShareSynapse", {**share, **named})
        await ask("getKeyShare", "/KeyShareRetrieve", named)
    else:
        await ask("repair", "/RepairSynapse", {"cid": cid})
    await ask("delete", f"/retrieve/{cid}", {"cid": cid, **named})
    elsewhere = {"repair"} if namespace else {"putKeyShare", "getKeyShare"}
    without_hotkey = {"certify"}  # test_identity.py
    assert {operation.id for operation in OPERATIONS} - asked == elsewhere | without_hotkey


junk = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", b"{}", b"[]", b"null", b"{", b'{"a":NaN}', b'{"a":1,"a":2}', b"\xff", b"[" * 3_000]),
    st.dictionaries(
        st.sampled_from(["namespace", "text", "cid", "items", "share_index", "user_id", "messages", "form", "version"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        ),
        max_size=4,
    ).map(lambda fields: json.dumps(fields).encode()),
)


async def test_nonsense_is_refused_with_a_reason_at_every_endpoint(service: Service) -> None:
    client, operator = AsgiClient(app_of(service)), AsgiClient(ops_of(service))

    async def ask(method: str, path: str, body: bytes) -> None:
        for surface in (client, operator):
            answer = await getattr(surface, method)(path, data=body)
            told = await answer.get_data()
            assert answer.status_code < 500, (method, path, body, told)
            if answer.status_code >= 400:
                assert json.loads(told)["error"]

    paths = [(operation.method, operation.path) for operation in OPERATIONS]
    paths += [("post", "/namespace"), ("get", "/wallet-stats/{hotkey}"), ("get", "/metrics")]

    @settings(max_examples=80, deadline=None)
    @given(st.sampled_from(paths), st.sampled_from(["x", "v1%3A%3Aab", "%00", "%ED%A0%80", "a/b", "é", "%FF"]), junk)
    def examples(where: tuple[str, str], name: str, body: bytes) -> None:
        path = re.sub(r"\{\w+\}", name, where[1])
        trio.from_thread.run(ask, where[0], path, body)

    await trio.to_thread.run_sync(examples)


@pytest.mark.parametrize("path", ["/conversations/u", "/chat-history/u", "/retrieve/v1::ab", "/commitment"])
@pytest.mark.parametrize("query", ["nonce=x", "nonce=1&hotkey=5&signature=zz", "namespace=a-b", "namespace=a", "x=%FF"])
async def test_bad_parameters_are_refused_with_a_reason(service: Service, path: str, query: str) -> None:
    answer = await AsgiClient(app_of(service)).get(f"{path}?{query}")
    assert answer.status_code < 500
    if answer.status_code >= 400:
        assert (await answer.get_json())["error"]


async def test_conversations_over_http(service: Service) -> None:
    client = AsgiClient(app_of(service))
    saved = signed(CONTROLLER, "SaveChat", {"user_id": "u", "messages": [{"role": "user", "content": "hi"}]})
    assert (await client.post("/chat-history", data=saved)).status_code == 200
    fields = miner_scheme.sign_body(CONTROLLER, "chat-history", {"user_id": "u"}, int(SystemClock().now() * 1000))
    query = {key: str(value) for key, value in fields.items() if key != "user_id"}
    told = await (await client.get("/chat-history/u", query_string=query)).get_json()
    [message] = told["messages"]
    assert (message["role"], message["content"]) == ("user", "hi")
    assert SystemClock().now() - 60 < message["ts"] <= SystemClock().now()


async def test_the_operator_counts_and_erases_namespaces(service: Service) -> None:
    client, operator = AsgiClient(app_of(service)), AsgiClient(ops_of(service))
    await client.post("/IngestSynapse", data=encoded({"text": "public"}))
    for number in range(3):
        body = signed(CONTROLLER, "IngestSynapse", {"text": f"mine {number}", "namespace": "notes"})
        await client.post("/IngestSynapse", data=body)
    listed = await (await operator.post("/namespace", data=encoded({"action": "list"}))).get_json()
    assert listed["namespaces"] == [{"namespace": "__public__", "records": 1}, {"namespace": "notes", "records": 3}]
    erase = encoded({"action": "delete", "namespace": "notes"})
    from_a_page = await operator.post("/namespace", data=erase, headers={"Origin": "https://evil.example"})
    assert from_a_page.status_code == 403
    assert (await (await operator.post("/namespace", data=erase)).get_json())["deleted"] == 3
    for bad in ({}, {"action": "create"}, {"action": "delete"}, {"action": "delete", "namespace": "__public__"}):
        assert (await operator.post("/namespace", data=encoded(bad))).status_code == 400
    assert (await client.post("/namespace", data=erase)).status_code == 404
    wallet = await (await operator.get(f"/wallet-stats/{CONTROLLER.ss58}")).get_json()
    assert (wallet["hotkey"], wallet["requests"]) == (CONTROLLER.ss58, 3)
    assert len((await (await operator.get("/wallet-stats")).get_json())["wallets"]) == 1
    assert (await operator.get(f"/wallet-stats/{STRANGER.ss58}")).status_code == 404


async def test_the_operators_status_tells_of_a_chain_only_where_there_is_one(service: Service) -> None:
    told = await (await AsgiClient(ops_of(service)).get("/status")).get_json()
    assert (told["hotkey"], told["netuid"], told["uid"]) == (service.identity.signer.address, 450, None)
    assert (told["chain"], told["announcement"]) == (None, None)
    assert (await AsgiClient(app_of(service)).get("/status")).status_code == 404


async def test_metrics_count_what_was_done_and_are_the_operators_only(service: Service) -> None:
    client, operator = AsgiClient(app_of(service)), AsgiClient(ops_of(service))
    for body in ({"text": "a"}, {"text": "b"}, {"text": " "}):
        await client.post("/IngestSynapse", data=encoded(body))
    await client.post("/QuerySynapse", data=encoded({"query_text": "a"}))
    assert (await client.get("/metrics")).status_code == 404
    text = str(await (await operator.get("/metrics")).get_data(as_text=True))
    for line in (
        "engram_miner_vectors 2.0",
        'engram_miner_ingests_total{outcome="stored"} 2.0',
        'engram_miner_ingests_total{outcome="refused"} 1.0',
        'engram_miner_queries_total{outcome="answered"} 1.0',
        "engram_miner_query_seconds_count 1.0",
        "engram_miner_ingest_seconds_count 3.0",
    ):
        assert line in text, line
