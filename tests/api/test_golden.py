"""What clients see of the endpoints, held against what they saw before the endpoints were declared in one table."""

import json
from pathlib import Path
from typing import Any

from engram.gateway.openapi import openapi_document
from engram.miner.openapi import openapi_document as node_document
from tests.api.answers import walk
from tests.gateway.surface import running_gateway

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
    assert _unversioned(json.loads(openapi_document())) == golden("gateway_openapi")


def test_the_nodes_document_describes_the_same_requests_and_answers() -> None:
    assert _unversioned(json.loads(node_document())) == golden("node_openapi")


def _unversioned(document: dict[str, Any]) -> dict[str, Any]:
    document["info"].pop("version")
    return document
