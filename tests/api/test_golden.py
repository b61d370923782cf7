"""What clients see of the endpoints, held against what they saw before the endpoints were declared in one table."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engram.api.gateway import openapi_document
from engram.api.node import openapi_document as node_document
from tests.api.answers import walk
from tests.api.documents import meant
from tests.gateway.surface import running_gateway

DELIBERATE = {
    "/components/schemas/SessionsAnswer/properties/open_payments": "other devices of the hotkey sign no second payment",
    "/components/schemas/BackendAnswer": "nodes run in several places",
    "/components/schemas/BoughtAnswer/properties/emptied_at": "tells that a node began again empty",
    "/components/schemas/BoughtAnswer/properties/memory": "says what became of the memory",
    "/components/schemas/BoughtAnswer/properties/restored_at": "says what became of the memory",
    "/components/schemas/BoughtAnswer/required": "tells that a node began again empty",
    "/components/schemas/CreateSessionBody/description": "says what refuses values of a wrong type",
    "/components/schemas/ExtendSessionBody/properties/duration_hours/description": "was missing",
    "/components/schemas/NodesAnswer/properties/backends": "nodes run in several places",
    "/components/schemas/NodesAnswer/properties/price_usd_per_hour": "a place is told with its price",
    "/paths//nodes/get/responses/200/content/application/json/example/note": "an account of Akash has its limits",
    "/paths//nodes/get/responses/200/content/application/json/example/price_usd_per_hour": "its price",
    "/components/schemas/NodeSignatureAnswer": "for nodes that have not their hotkey",
    "/components/schemas/NodeSignatureBody": "for nodes that have not their hotkey",
    "/paths//node-signatures": "for nodes that have not their hotkey",
    **{
        f"/components/schemas/{name}": "a link by which another wallet pays"
        for name in ("LinkPaymentAnswer", "MakeOrderBody", "OrderAnswer", "OrderBody", "OrderStatusAnswer")
    },
    **{f"/paths//orders{path}": "a link by which another wallet pays" for path in ("", "/status", "/pay")},
    "/components/schemas/SpendingAnswer": "the app shows what its spending key owns",
    "/paths//balances/{address}": "the app shows what its spending key owns",
    "/paths//balances/{address}/faucet": "play money for trying things out",
    **{
        f"/components/schemas/{name}": "an identity moves to another device"
        for name in (
            "LeaveIdentityBody",
            "LeftIdentityAnswer",
            "TakeIdentityBody",
            "TakenIdentityAnswer",
            "TransferAnswer",
        )
    },
    **{f"/paths//transfers{path}": "an identity moves to another device" for path in ("", "/take")},
    **{
        f"/components/schemas/NodesAnswer/properties/{name}": "the app says how long a start takes here"
        for name in ("free_at", "usual_start_s", "longest_start_s")
    },
    "/paths//sessions/{session_id}/node/{path}": "a browser reaches its node through the gateway alone",
    "/components/schemas/SessionAnswer/description": "names the unit of its times",
    "/components/schemas/SessionAnswer/properties/emptied_at": "tells that a node began again empty",
    "/components/schemas/RestoredBody": "the controller says that it restored a memory",
    "/components/schemas/SessionAnswer/properties/memory": "says what became of the memory",
    "/components/schemas/SessionAnswer/properties/restored_at": "says what became of the memory",
    **{
        f"/paths//sessions{path}/responses/{status}/content/application/json/example/memory": "what became of it"
        for path, status in (("/post", 202), ("/{session_id}/extend/post", 202), ("/{session_id}/get", 200))
    },
    "/paths//sessions/{session_id}/restored": "the controller says that it restored a memory",
    "/components/schemas/SessionAnswer/required": "tells that a node began again empty",
    "/paths//nodes/get/responses/200/content/application/json/example/backends": "nodes run in several places",
    "/paths//nodes/get/responses/200/description": "says what docs/api.md said",
    "/paths//ready/get/responses/200/description": "says what docs/api.md said",
    "/paths//sessions/hotkey/{hotkey}/get/responses/200/content/application/json/example/sessions": (
        "tells that a node began again empty"
    ),
    "/paths//terms/get/responses/200/description": "says what docs/api.md said",
}
"""Where the gateway's document differs from the recorded one, and why."""
_ROOT = "/responses/200/content/application/json/schema"
_CERTIFIED = "of a node that has not its hotkey"
_SHARE = "//KeyShareRetrieve/post/responses/200/content/application/json/schema/properties"
_VALID = "says how long a record is current"
_RANKED = "finds long texts, words and variety"
_ITEMS = "//IngestBatch/post/requestBody/content/application/json/schema/properties/items/items/properties"
_SENT = "requestBody/content/application/json/schema/properties"
_SHOWN = {
    f"//QuerySynapse/post{_ROOT}/properties/results/items/properties": "a hit",
    f"//list/post{_ROOT}/properties/records/items/properties": "a record of a page",
    f"//retrieve/{{cid}}/get{_ROOT}/properties": "a record",
}
_SIGNED = "signs a receipt for who asks for one"
_VALIDITY = ("key", "supersedes", "expires_at")
NODE_DELIBERATE = {
    **{f"{_ITEMS}/{field}": _VALID for field in (*_VALIDITY, "superseded_by")},
    **{f"//IngestSynapse/post/{_SENT}/{field}": _VALID for field in (*_VALIDITY, "superseded_by")},
    **{
        f"{where}/{field}": f"{what} {_VALID}"
        for where, what in _SHOWN.items()
        for field in (*_VALIDITY, "superseded_by")
    },
    f"//IngestSynapse/post{_ROOT}/properties/superseded_by": _VALID,
    f"//IngestBatch/post{_ROOT}/properties/results/items/properties/superseded_by": _VALID,
    f"//IngestSynapse/post{_ROOT}/properties/current": _VALID,
    f"//IngestBatch/post{_ROOT}/properties/results/items/properties/current": _VALID,
    f"//retrieve/{{cid}}/get{_ROOT}/properties/windows": _RANKED,
    "//retrieve/{cid}/get/parameters": _RANKED,
    f"//IngestSynapse/post{_ROOT}/properties/tokens_searchable": _RANKED,
    f"//IngestBatch/post{_ROOT}/properties/results/items/properties/tokens_searchable": _RANKED,
    **{f"//QuerySynapse/post/{_SENT}/{field}": _RANKED for field in ("mode", "diversity", "recency", "history")},
    f"//QuerySynapse/post{_ROOT}/properties/results/items/properties/relevance": _RANKED,
    f"//list/post/{_SENT}/key": _VALID,
    f"//IngestSynapse/post/{_SENT}/receipt": _SIGNED,
    f"//IngestSynapse/post{_ROOT}/properties/receipt": _SIGNED,
    f"//retrieve/{{cid}}/delete/{_SENT}/receipt": _SIGNED,
    f"//retrieve/{{cid}}/delete{_ROOT}/properties/receipt": _SIGNED,
    "//certificate": _CERTIFIED,
    "//identity": _CERTIFIED,
    f"//ChallengeSynapse/post{_ROOT}/properties/certificate": _CERTIFIED,
    f"//list/post{_ROOT}/properties/commitment/properties/certificate": _CERTIFIED,
    f"//prove-memory/post{_ROOT}/properties/certificate": _CERTIFIED,
    f"//commitment/get{_ROOT}/properties/certificate": _CERTIFIED,
    f"//health/get{_ROOT}/properties/protocol": "what the node speaks with its gateway",
    f"//health/get{_ROOT}/required": "what the node speaks with its gateway",
    f"{_SHARE}/share_hex/maxLength": "was missing",
    f"{_SHARE}/share_hex/minLength": "was missing",
    f"{_SHARE}/share_index/maximum": "was missing",
    f"{_SHARE}/share_index/minimum": "was missing",
    f"{_SHARE}/threshold/maximum": "was missing",
    f"{_SHARE}/threshold/minimum": "was missing",
    "//stats/get/responses/200/content/application/json/schema/properties/hotkey/type": "a client takes null too",
    "//stats/get/responses/200/content/application/json/schema/properties/peers/type": "a client takes null too",
}
"""The same for a node's document, whose Structs are components now, once what a schema refers to stands in its place;
besides, titles, defaults and descriptions are there that were missing."""
GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


async def test_every_endpoint_of_the_gateway_answers_as_it_always_did() -> None:
    async with running_gateway() as gateway:
        answered = await walk(gateway)
    recorded = golden("gateway_answers")
    assert [each["request"] for each in answered] == [each["request"] for each in recorded]
    for now, before in zip(answered, recorded, strict=True):
        assert now == before


def test_the_gateways_document_describes_the_same_requests_and_answers() -> None:
    assert set(_differences(_unversioned(openapi_document()), golden("gateway_openapi"))) == DELIBERATE.keys()


def test_the_nodes_document_describes_the_same_requests_and_answers() -> None:
    now, before = _unversioned(node_document()), golden("node_openapi")
    assert set(_differences(meant(now), meant(before))) == NODE_DELIBERATE.keys()
    assert set(_described(before)) <= set(_described(now))


def _unversioned(document: bytes) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(document)
    described["info"].pop("version")
    return described


def _differences(now: Any, before: Any, at: str = "") -> Iterator[str]:
    """Where two documents differ, as JSON pointers."""
    if isinstance(now, dict) and isinstance(before, dict):
        for name in sorted(now.keys() | before.keys()):
            yield from _differences(now.get(name), before.get(name), f"{at}/{name}")
    elif now != before:
        yield at


def _described(node: Any) -> Iterator[str]:
    """Every description of a document."""
    if isinstance(node, dict):
        if isinstance(said := node.get("description"), str):
            yield said
        for each in node.values():
            yield from _described(each)
    elif isinstance(node, list):
        for each in node:
            yield from _described(each)
