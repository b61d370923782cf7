"""A node's endpoints as its document describes them."""

import json
from typing import Any

import msgspec

from engram.api.node import openapi_document
from tests.api.documents import meant

Schema = dict[str, Any]


class Operation(msgspec.Struct, frozen=True):
    """One call: what it takes in its body and its query, and what a success answers."""

    id: str
    method: str
    path: str
    takes: Schema | None
    query: tuple[str, ...]
    media: str
    gives: Schema


def _operation(path: str, method: str, described: Schema) -> Operation:
    body = described.get("requestBody")
    [(media, content)] = described["responses"]["200"]["content"].items()
    return Operation(
        described["operationId"],
        method,
        path,
        None if body is None else body["content"]["application/json"]["schema"].get("properties", {}),
        tuple(each["name"] for each in described["parameters"] if each["in"] == "query"),
        media,
        content["schema"],
    )


OPERATIONS = tuple(
    _operation(path, method, described)
    for path, methods in meant(json.loads(openapi_document())).items()
    for method, described in methods.items()
)
POSTED = tuple(each.path for each in OPERATIONS if each.method == "post")
