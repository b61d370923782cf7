"""/openapi.json: OpenAPI 3.1, made once of the table in operations.py and of the very types that are encoded."""

import re
from functools import lru_cache
from typing import Final

import msgspec

from engram import __version__
from engram.gateway.operations import OPERATIONS, Answers, Operation

_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_INTRODUCTION: Final = (
    "Buys, watches and stops memory nodes. Requests to /sessions and /payments are signed with an sr25519 hotkey; "
    "answers to them are signed by the gateway (X-Gateway-Hotkey, X-Gateway-Sig). Payment is by x402."
)
_HOTKEY_SCHEME: Final = {
    "type": "apiKey",
    "in": "header",
    "name": "X-Sig",
    "description": (
        "With X-Hotkey (SS58 or 64 hex digits), X-Timestamp (unix ms, 60 s either way) and X-Sig: the sr25519 "
        "signature in hex of `engram-cloud:{METHOD}:{path}:{timestamp}`, or with X-Sig-Version 2 of "
        "`engram-cloud:{METHOD}:{path}:{timestamp}:{sha256hex(body)}`."
    ),
}
_TICKET_SCHEME: Final = {"type": "apiKey", "in": "query", "name": "ticket"}
_EVENT_STREAM: Final = "streamEvents"


@lru_cache(maxsize=1)
def openapi_document() -> bytes:
    """The whole document as JSON; it never changes within a process."""
    return msgspec.json.encode(_document())


def _document() -> dict[str, object]:
    types = {answer.schema for operation in OPERATIONS for answer in operation.answers if answer.schema is not None}
    types |= {operation.body for operation in OPERATIONS if operation.body is not None}
    ordered = sorted(types, key=lambda kind: kind.__name__)
    schemas, components = msgspec.json.schema_components(
        ordered, ref_template="#/components/schemas/{name}", schema_hook=_any
    )
    schema_of = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, object]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Engram cloud gateway", "version": __version__, "description": _INTRODUCTION},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"hotkey": _HOTKEY_SCHEME, "ticket": _TICKET_SCHEME},
        },
    }


def _any(kind: type) -> dict[str, object]:
    """`object` stands for any JSON value."""
    if kind is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError


def _operation(operation: Operation, schema_of: dict[type, dict[str, object]]) -> dict[str, object]:
    described: dict[str, object] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in _PARAMETER.findall(operation.path)
            ),
            *(
                {"name": taken.name, "in": taken.where, "schema": {"type": "string"}, "description": taken.description}
                for taken in operation.parameters
            ),
        ],
        "responses": {str(answer.status): _response(operation, answer, schema_of) for answer in operation.answers},
    }
    if operation.signed:
        described["security"] = [{"hotkey": []}] + ([{"ticket": []}] if operation.id == _EVENT_STREAM else [])
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_of[operation.body], "example": operation.body_example}},
        }
    return described


def _response(operation: Operation, answer: Answers, schema_of: dict[type, dict[str, object]]) -> dict[str, object]:
    described: dict[str, object] = {"description": answer.description}
    if answer.headers:
        described["headers"] = {name: {"schema": {"type": "string"}} for name in answer.headers}
    if answer.schema is not None:
        described["content"] = {"application/json": {"schema": schema_of[answer.schema], "example": answer.example}}
    elif operation.id == _EVENT_STREAM and answer.status == 200:
        described["content"] = {"text/event-stream": {"schema": {"type": "string"}, "example": answer.example}}
    return described
