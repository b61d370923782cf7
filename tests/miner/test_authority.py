"""What asks for privacy, ownership or identity is obeyed or refused, at every operation and wherever it stands."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from config.model import HttpSettings
from engram.api import node
from engram.clock import SeededIds, SystemClock
from engram.hotkeys import authority as names
from engram.hotkeys import miner_scheme
from engram.miner import authority, namespace_keys
from engram.miner.app import make_app
from engram.miner.ops import ops_app
from engram.miner.service import Service
from tests.hotkeys.test_authority import SPELLINGS
from tests.http.asgi_client import AsgiClient
from tests.memory.stores import DIMENSION
from tests.miner.nodes import CONTROLLER, STAMPS, STRANGER, encoded, in_namespace, serving, signed
from tests.miner.operations import OPERATIONS, Operation
from tests.sampling import NIGHTLY, SEED

KEY = "0123456789abcdef"
LURE = "a lure for whoever looks at what is public"
UP = [1.0] + [0.0] * (DIMENSION - 1)
ENDPOINTS = {
    "delete": "DeleteSynapse",
    "attest": "AttestNamespace",
    "retrieve": "retrieve",
    "commitment": "commitment",
    "chatHistory": "chat-history",
    "conversations": "conversations",
    "saveChat": "SaveChat",
    "makeConversation": "MakeConversation",
    "renameConversation": "RenameConversation",
    "deleteConversation": "DeleteConversation",
}
"""By the operation's id, where it is not the path without its slash."""
OPEN = {"health", "identity", "stats", "attestation", "metagraph", "openapi"}


def endpoint(operation: Operation) -> str:
    return ENDPOINTS.get(operation.id, operation.path[1:])


@pytest.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setattr(namespace_keys, "_ROUNDS", 1)
    async with serving(tmp_path, tenants="anyone") as made:
        yield made


@pytest.fixture
def client(service: Service) -> AsgiClient:
    limits = HttpSettings(requests_per_minute_per_ip=0)
    app = make_app(service, settings=limits, clock=SystemClock(), ids=SeededIds(1), metrics=service.metrics)
    return AsgiClient(app)


def test_the_table_names_what_the_document_describes_and_no_more() -> None:
    described: dict[str, set[str]] = {}
    for operation in OPERATIONS:
        if operation.id not in OPEN:
            taken = {*(operation.takes or {}), *operation.query}
            described.setdefault(endpoint(operation), set()).update(filter(names.is_authority, taken))
    assert {name: set(fields) for name, fields in authority.UNDERSTOOD.items() if name != "namespace"} == described


async def answered(
    client: AsgiClient, method: str, path: str, body: object = None, query: str = ""
) -> tuple[int, dict[str, Any]]:
    data = encoded(body) if isinstance(body, dict) else body
    framing = {"Content-Length": str(len(data))} if isinstance(data, bytes) else {}
    sent = {} if data is None else {"data": data, "headers": framing}
    answer = await getattr(client, method)(path + (f"?{query}" if query else ""), **sent)
    lines = (await answer.get_data()).splitlines()
    return answer.status_code, json.loads(lines[0])


@pytest.mark.parametrize(
    "fields",
    [
        {"namespace_key": KEY},
        {"namespace": "", "namespace_key": KEY},
        {"namespace": None, **{key: value for key, value in in_namespace(STRANGER, "n").items() if key != "namespace"}},
        {**in_namespace(STRANGER, "notes"), "namespace": "__public__"},
        {"namespace_sig_version": 2},
        {"namespace": "notes", "namespace_key": KEY, "namespace_sig_version": 2},
        {**in_namespace(STRANGER, "notes"), "namespace_key": KEY},
        {"namespaceKey": KEY},
        {"owner": STRANGER.ss58},
        {"private": True},
        {"_hotkey": STRANGER.ss58},
    ],
    ids=lambda fields: "+".join(fields),
)
async def test_what_cannot_be_obeyed_is_refused_by_its_name(
    client: AsgiClient, service: Service, fields: dict[str, Any]
) -> None:
    for path, content in (("/IngestSynapse", {"text": "secret"}), ("/IngestBatch", {"items": [{"text": "secret"}]})):
        status, told = await answered(client, "post", path, {**content, **fields})
        assert (status, told["code"]) == (400, "misplaced_field")
        assert told["field"] in fields
        assert told["field"] in told["error"]
    assert service.store.count().public == service.store.count().private == 0


@pytest.mark.parametrize("name", [{}, {"namespace": "notes", "namespace_key": KEY}], ids=["public", "private"])
@pytest.mark.parametrize(
    "fields",
    [{"namespace": "notes"}, {"namespace": "diary"}, {"namespace_key": KEY}, in_namespace(STRANGER, "notes")],
    ids=["same", "other", "key", "signed"],
)
async def test_an_item_of_a_batch_asks_for_nothing_of_its_own_and_then_none_is_stored(
    client: AsgiClient, service: Service, name: dict[str, str], fields: dict[str, Any]
) -> None:
    items = [{"text": "first"}, {"text": "second", **fields}]
    status, told = await answered(client, "post", "/IngestBatch", {"items": items, **name})
    assert (status, told["code"], told["results"]) == (400, "misplaced_field", [])
    assert told["field"] == f"items[1].{next(iter(fields))}"
    assert service.store.count().public == service.store.count().private == 0


async def test_a_query_beside_a_body_and_a_body_beside_a_query_ask_for_nothing(
    client: AsgiClient, service: Service
) -> None:
    _, told = await answered(client, "post", "/IngestSynapse", {"text": LURE})
    asked = urlencode({"namespace": "notes", "namespace_key": KEY})
    for operation in OPERATIONS:
        path = operation.path.format(cid=told["cid"], user_id="u", conv_id="c", namespace="n")
        if operation.method != "get":
            status, refused = await answered(client, operation.method, path, {"text": "secret", "cid": "x"}, asked)
        elif operation.id in ("health", "stats"):
            continue
        else:
            status, refused = await answered(client, "get", path, {"namespace": "notes"})
        assert (status, refused["field"]) == (400, "namespace"), operation.id
    assert service.store.count().public == 1


@pytest.mark.parametrize("query", ["namespace=&namespace=notes&namespace_key=" + KEY, "namespace&Namespace=notes"])
@pytest.mark.parametrize("path", ["/commitment", "/retrieve/v1::ab", "/chat-history/u", "/conversations/u"])
async def test_a_parameter_of_authority_comes_once(client: AsgiClient, path: str, query: str) -> None:
    status, told = await answered(client, "get", path, query=query)
    assert (status, told["code"]) == (400, "misplaced_field")


async def test_what_asks_for_nothing_is_no_contradiction(client: AsgiClient) -> None:
    for empty in ({"namespace": None, "namespace_key": None}, {"namespace": "", "namespace_key": ""}, {"owner": None}):
        status, told = await answered(client, "post", "/IngestSynapse", {"text": "a", "cid_override": "x", **empty})
        assert (status, told["error"]) == (200, None)


@pytest.mark.parametrize("inner", [{"namespace": "notes"}, {"isPrivate": True}, {"Namespace_Key": KEY}])
async def test_what_asks_for_privacy_within_another_field_is_refused(
    client: AsgiClient, service: Service, inner: dict[str, Any]
) -> None:
    (name,) = inner
    for field, value in (("synapse", inner), ("items", [{"text": "b", **inner}]), ("options", [inner])):
        status, told = await answered(client, "post", "/IngestSynapse", {"text": "a", field: value})
        assert (status, told["code"], told["field"]) == (400, "misplaced_field", f"{field}.{name}")
    status, told = await answered(client, "post", "/IngestBatch", {"items": [{"text": "a", "synapse": inner}]})
    assert (status, told["field"]) == (400, f"items[0].synapse.{name}")
    assert service.store.count().public == service.store.count().private == 0


async def test_what_a_client_names_for_itself_may_have_any_name(client: AsgiClient) -> None:
    metadata = {"namespace": "notes", "private": True, "owner": "me"}
    _, stored = await answered(client, "post", "/IngestSynapse", {"text": "a", "metadata": metadata})
    status, told = await answered(client, "post", "/list", {"filter": {"namespace": "notes"}})
    assert (status, [each["cid"] for each in told["records"]]) == (200, [stored["cid"]])
    wrapped = {
        "text": "a",
        "dendrite": {"hotkey": STRANGER.ss58, "nonce": 1, "signature": "0x"},
        "axon": {"namespace": None},
    }
    assert (await answered(client, "post", "/IngestSynapse", wrapped))[0] == 200


@pytest.mark.parametrize("header", ["Namespace", "X-Namespace", "X-Engram-Namespace", "X-Namespace-Key"])
async def test_no_header_asks_for_a_namespace(client: AsgiClient, header: str) -> None:
    for path in ("/IngestSynapse", "/list", "/DeleteBatch"):
        answer = await client.post(path, data=encoded({"text": "a"}), headers={header: "notes"})
        assert (answer.status_code, (await answer.get_json())["code"]) == (400, "misplaced_field"), path
    behind = await client.post("/list", data=b"{}", headers={"Knative-Serving-Namespace": "default", "X-Namespace": ""})
    assert behind.status_code == 200


async def test_a_body_of_more_fields_than_any_operation_has_is_refused_unread(
    client: AsgiClient, service: Service
) -> None:
    many = {f"k{number}": 1 for number in range(authority.MOST_FIELDS + 1)}
    for path, body in (
        ("/IngestSynapse", {"text": "a"} | many),
        ("/IngestSynapse", {"text": "a", "synapse": many}),
        ("/IngestBatch", {"items": [{"text": "a"}, {"text": "b"} | many]}),
        ("/IngestBatch", {"items": [{"text": "a"}]} | many),
    ):
        status, told = await answered(client, "post", path, body)
        assert (status, told["code"]) == (400, "too_many_fields")
    status, told = await answered(client, "post", "/IngestSynapse", {"text": "a", "metadata": many})
    assert told["error"] is None
    assert service.store.count().public == 1


async def test_a_request_to_the_operator_names_no_more_than_it_means(service: Service) -> None:
    operator = AsgiClient(ops_app(service, clock=SystemClock(), ids=SeededIds(2), metrics=service.metrics))
    status, told = await answered(operator, "post", "/namespace", {"action": "list", "owner": "me"})
    assert (status, told["field"]) == (400, "owner")


SENT: dict[str, dict[str, Any]] = {
    "ingest": {"metadata": {}, "raw_embedding": UP},
    "ingestBatch": {},
    "query": {"query_vector": UP, "top_k": 100},
    "challenge": {"nonce_hex": "11" * 32, "expires_at": 2**33},
    "putKeyShare": {"share_index": 1, "share_hex": "ab", "threshold": 2, "total": 3},
    "saveChat": {"user_id": "u", "messages": [{"role": "user", "content": "secret"}]},
    "makeConversation": {"user_id": "u", "conv_id": "c", "title": "secret"},
    "renameConversation": {"user_id": "u", "conv_id": "c", "title": "secret"},
    "deleteConversation": {"user_id": "u", "conv_id": "c"},
}
_values = st.sampled_from([None, "", "notes", "__public__", KEY, STRANGER.ss58, 2, True, 1_700_000_000_000])
_asks = st.dictionaries(st.sampled_from(sorted(names.FIELDS)), _values, max_size=4)
_spellings = st.sampled_from([str, *SPELLINGS])


class Ask:
    """What is asked beside the content, and where: in the body, signed or not, in an item, or in the query."""

    def __init__(self, fields: dict[str, Any], place: str, way: str) -> None:
        self.fields, self.place, self.way = fields, place, way

    @property
    def for_privacy(self) -> bool:
        """Whether any field asks that not everybody sees it; signing a body does not."""
        signing = {"hotkey", "nonce", "signature", "signed_for", "timestamp", "sig"}
        plain = {name.replace("_", "").replace("-", "").casefold() for name in signing | {"timestamp_ms"}}
        return self.way in ("v1", "v2", "key") or any(
            value not in (None, "", "__public__") and name.replace("_", "").replace("-", "").casefold() not in plain
            for name, value in self.fields.items()
        )

    def __repr__(self) -> str:
        return f"{self.fields} {self.place} {self.way}"


def made(operation: Operation, ask: Ask, number: int, lure: str) -> tuple[object, str]:
    """Body and query of a request."""
    secret = {"metadata": {"secret": f"secret {number}"}}
    fields = {**SENT.get(operation.id, {"cid": lure})}
    if operation.id == "challenge":
        fields["cid"] = lure
    if operation.id == "ingest":
        fields |= secret
    if operation.id == "ingestBatch":
        item = {"raw_embedding": UP, **secret}
        fields["items"] = [item, item | ask.fields] if ask.place == "item" else [item]
    if ask.place == "body" and operation.method != "get":
        fields |= ask.fields
    match ask.way:
        case "key":
            fields |= {"namespace": "notes", "namespace_key": KEY}
        case "v1":
            fields |= in_namespace(STRANGER, "notes")
        case "v2":
            named = endpoint(operation)
            fields = dict(miner_scheme.sign_namespace_request(STRANGER, named, "notes", fields, STAMPS.next()))
        case "body":
            fields = json.loads(signed(STRANGER, endpoint(operation), fields))
        case _:
            pass
    query = ask.fields if ask.place == "query" or operation.method == "get" else {}
    if operation.method == "get":
        return None, urlencode({name: value for name, value in (fields | query).items() if name != "cid"})
    return fields, urlencode(query)


async def test_nothing_is_stored_or_shown_under_less_privacy_than_any_field_asks_for(
    client: AsgiClient, service: Service
) -> None:
    _, told = await answered(client, "post", "/IngestSynapse", {"metadata": {"lure": LURE}, "raw_embedding": UP})
    lure, numbers = told["cid"], iter(range(10**9))
    stored: set[int] = set()

    async def ask_it(operation: Operation, ask: Ask) -> None:
        number = next(numbers)
        path = re.sub(r"\{cid\}", lure, operation.path).format(user_id="u", conv_id="c", namespace="notes")
        body, query = made(operation, ask, number, lure)
        status, told = await answered(client, operation.method, path, body, query)
        assert status < 500, told
        if not ask.for_privacy:
            return
        stored.add(number)
        shown = json.dumps(told)
        assert LURE not in shown
        assert status != 200 or not {"proof", "embedding", "deleted"} & told.keys() or told.get("included") is False

    @seed(SEED)
    @settings(max_examples=3_000 if NIGHTLY else 250, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        operation=st.sampled_from([each for each in OPERATIONS if each.id not in OPEN] + 6 * [OPERATIONS[2]]),
        fields=_asks,
        spell=_spellings,
        place=st.sampled_from(["body", "item", "query"]),
        way=st.sampled_from(["none", "body", "v1", "v2", "key"]),
    )
    def examples(operation: Operation, fields: dict[str, Any], spell: Any, place: str, way: str) -> None:
        asked = {spell(name): value for name, value in fields.items()}
        ask = Ask(asked if place != "item" or operation.id == "ingestBatch" else {}, place, way)
        trio.from_thread.run(ask_it, operation, ask)

    await trio.to_thread.run_sync(examples)
    for path, body in (
        ("/list", {"limit": 200}),
        ("/QuerySynapse", {"query_vector": UP, "top_k": 100}),
        ("/export", json.loads(signed(CONTROLLER, "export", {}))),
    ):
        _, told = await answered(client, "post", path, body)
        shown = json.dumps(told)
        assert LURE in shown
        assert not [number for number in stored if f'"secret {number}"' in shown]
    assert service.store.count().private > 0


SIGNED = [each for each in OPERATIONS if each.id not in OPEN | {"attest", "certify"}]
EVERYTHING: dict[str, Any] = {
    "cid": "v1::" + "0" * 64,
    "user_id": "u",
    "conv_id": "c",
    "title": "t",
    "text": "a",
    "query_text": "a",
    "items": [{"text": "a"}],
    "messages": [],
}
"""A body that every operation reads something of."""


def test_no_two_operations_are_signed_by_one_name() -> None:
    named = [endpoint(operation) for operation in SIGNED]
    assert (
        len(set(named))
        == len(named)
        == len(authority.UNDERSTOOD) - len({"AttestNamespace", "certificate", "namespace"})
    )


@pytest.mark.parametrize("made_for", SIGNED, ids=lambda operation: operation.id)
async def test_a_signature_for_one_operation_is_good_for_no_other(tmp_path: Path, made_for: Operation) -> None:
    async with serving(tmp_path, require_signature=True, tenants="anyone") as strict:
        limits = HttpSettings(requests_per_minute_per_ip=0)
        app = make_app(strict, settings=limits, clock=SystemClock(), ids=SeededIds(1), metrics=strict.metrics)
        for sent_to in SIGNED:
            path = sent_to.path.format(cid=EVERYTHING["cid"], user_id="u", conv_id="c")
            in_path = {name for name in ("cid", "user_id") if f"{{{name}}}" in sent_to.path}
            fields, query = EVERYTHING, ""
            if sent_to.method == "get":
                fields = {name: value for name, value in EVERYTHING.items() if isinstance(value, str)}
                fields = {name: value for name, value in fields.items() if name in in_path or name == "title"}
            body = json.loads(signed(CONTROLLER, endpoint(made_for), fields))
            if sent_to.method == "get":
                query = urlencode({name: value for name, value in body.items() if name not in in_path})
            sent = None if sent_to.method == "get" else body
            status, told = await answered(AsgiClient(app), sent_to.method, path, sent, query)
            assert (status == 401) == (sent_to is not made_for), (sent_to.id, told)


def test_every_row_is_read_by_the_table_of_its_operation_and_private_where_a_namespace_may_be_named() -> None:
    for row in node.ROUTES:
        understood = authority.UNDERSTOOD.get(row.signed_as, frozenset())
        path = row.url(**dict.fromkeys(row.path_parameters, "x"))
        read = authority.read_by({"method": row.method, "path": path})
        assert row.private == ("namespace_key" in understood), row.id
        if row.takes_body:
            assert read.checks_body, row.id
            assert row.signed_as in authority.UNDERSTOOD, row.id
        elif row.signed_as:
            assert read.query == understood, row.id
