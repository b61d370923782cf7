"""/openapi.json: OpenAPI 3.1 of a node, from one table. A test holds it against the routes and the answers."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from engram.memory.exporting import KINDS
from engram.miner.service import VERSION

Schema = dict[str, object]

STRING: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
TRUTH: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
NUMBERS: Schema = {"type": "array", "items": NUMBER}
OBJECTS: Schema = {"type": "array", "items": OBJECT}

SIGNING: dict[str, Schema] = {
    "hotkey": {**STRING, "description": "SS58 of the signer."},
    "nonce": {**WHOLE, "description": "Unix milliseconds, 30 s either way."},
    "signature": {**STRING, "description": "sr25519 in hex over `{nonce}:{endpoint}:{sha256 of the canonical body}`."},
    "signed_for": {**STRING, "description": "SS58 of the one node that may take the request."},
}
NAMESPACE: dict[str, Schema] = {
    "namespace": {**STRING, "description": "A private namespace; left out: the public one."},
    "namespace_hotkey": STRING,
    "namespace_sig": STRING,
    "namespace_timestamp_ms": {**WHOLE, "description": "60 s either way."},
    "namespace_sig_version": {
        **WHOLE,
        "enum": [2],
        "description": "Left out: version 1, good for the request that it comes with first.",
    },
    "namespace_key": {**STRING, "minLength": 16, "description": "Opens a namespace without a signature."},
}
RECORD: dict[str, Schema] = {
    "text": STRING,
    "raw_embedding": NUMBERS,
    "raw_embedding_b64": {**STRING, "description": "The vector as base64 of f32 little-endian bytes."},
    "metadata": OBJECT,
    "model_version": STRING,
}
STORED: dict[str, Schema] = {"cid": {"type": ["string", "null"]}, "error": {"type": ["string", "null"]}}
SHARE: dict[str, Schema] = {"share_index": WHOLE, "share_hex": STRING, "threshold": WHOLE, "total": WHOLE}


class Operation(msgspec.Struct, frozen=True):
    """One call: what it takes in its body and what a success answers."""

    id: str
    method: str
    path: str
    summary: str
    takes: dict[str, Schema] | None
    gives: dict[str, Schema]
    query: tuple[str, ...] = ()


_PRIVATE = SIGNING | NAMESPACE
_QUERIED = (*NAMESPACE, *SIGNING)
_ROOT: dict[str, Schema] = {"root_hex": STRING, "count": WHOLE, "built_at": NUMBER, "hotkey": STRING, "form": STRING}
_ROOT |= {"signed": STRING, "signature": STRING}
_CHAT: dict[str, Schema] = {"user_id": STRING, "conv_id": STRING}
_QUERY: dict[str, Schema] = {"query_text": STRING, "query_vector": NUMBERS, "query_vector_b64": STRING}
_QUERY |= {"top_k": {**WHOLE, "minimum": 1, "maximum": 100, "default": 10}, "filter": OBJECT}
_PAGE: dict[str, Schema] = {"filter": OBJECT, "limit": {**WHOLE, "maximum": 200}, "offset": WHOLE}
_CHALLENGE: dict[str, Schema] = {"cid": STRING, "nonce_hex": STRING, "expires_at": WHOLE}
_CHALLENGE |= {"validator_hotkey_hex": STRING, "version": {**WHOLE, "enum": [1, 2]}}

OPERATIONS = (
    Operation("health", "get", "/health", "Whether the node is up.", None, {"status": STRING, "vectors": WHOLE}),
    Operation("stats", "get", "/stats", "Its work and its place.", None, {"status": STRING, "vectors": WHOLE}),
    Operation("ingest", "post", "/IngestSynapse", "Store a text or a vector.", _PRIVATE | RECORD, STORED),
    Operation(
        "ingestBatch",
        "post",
        "/IngestBatch",
        "Store up to 256 texts or vectors; a result for each.",
        _PRIVATE | {"items": {"type": "array", "maxItems": 256, "items": {**OBJECT, "properties": RECORD}}},
        {"results": {"type": "array", "items": {**OBJECT, "properties": STORED}}, "stored": WHOLE},
    ),
    Operation(
        "query",
        "post",
        "/QuerySynapse",
        "Find the nearest records by cosine.",
        _PRIVATE | _QUERY,
        {"results": OBJECTS, "latency_ms": NUMBER, "error": {"type": ["string", "null"]}},
    ),
    Operation(
        "list",
        "post",
        "/list",
        "A page of a namespace.",
        _PRIVATE | _PAGE,
        {"records": OBJECTS, "count": WHOLE, "offset": WHOLE, "limit": WHOLE},
    ),
    Operation(
        "retrieve", "get", "/retrieve/{cid}", "One record.", None, {"cid": STRING, "metadata": OBJECT}, query=_QUERIED
    ),
    Operation(
        "delete",
        "delete",
        "/retrieve/{cid}",
        "Take a record out (signed as DeleteSynapse).",
        _PRIVATE | {"cid": STRING},
        {"deleted": TRUTH, "cid": STRING},
    ),
    Operation(
        "repair",
        "post",
        "/RepairSynapse",
        "A public record with its vector.",
        SIGNING | {"cid": STRING},
        {"cid": STRING, "embedding": NUMBERS, "metadata": OBJECT},
    ),
    Operation("challenge", "post", "/ChallengeSynapse", "Prove storage.", _PRIVATE | _CHALLENGE, {"proof": STRING}),
    Operation(
        "commitment",
        "get",
        "/commitment",
        "The signed root over a namespace.",
        None,
        _ROOT,
        query=("form", "scope", *_QUERIED),
    ),
    Operation(
        "proveMemory",
        "post",
        "/prove-memory",
        "Prove that a record is under the root, or that it is not.",
        _PRIVATE | {"cid": STRING, "embedding_hash": STRING, "form": {**STRING, "enum": ["keyed-1", "legacy"]}},
        _ROOT | {"cid": STRING, "proof": STRING, "included": TRUTH},
    ),
    Operation(
        "export",
        "post",
        "/export",
        "Everything, page by page, for the controller: records, or what `kind` names.",
        SIGNING | {"after": WHOLE, "limit": WHOLE, "kind": {"enum": list(KINDS)}},
        {"records": OBJECTS, "count": WHOLE, "next": {"type": ["integer", "null"]}},
    ),
    Operation(
        "exportStream",
        "post",
        "/export-stream",
        "The same in one answer, a JSON document a line; the last has kind end.",
        SIGNING | {"after": WHOLE, "kind": {"enum": list(KINDS)}},
        {"kind": STRING},
    ),
    Operation(
        "putKeyShare",
        "post",
        "/KeyShareSynapse",
        "Keep a share of a namespace's key.",
        _PRIVATE | SHARE | {"replace": TRUTH},
        {"stored": TRUTH},
    ),
    Operation("getKeyShare", "post", "/KeyShareRetrieve", "Give the share back.", _PRIVATE, SHARE),
    Operation(
        "attest",
        "post",
        "/AttestNamespace",
        "Stand for a namespace with one's stake.",
        {"namespace": STRING, "owner_hotkey": STRING, "signature": STRING, "timestamp_ms": WHOLE},
        {"ok": TRUTH, "namespace": STRING, "trust_tier": STRING, "stake_tao": NUMBER},
    ),
    Operation(
        "attestation",
        "get",
        "/attestation/{namespace}",
        "Who stands for a namespace.",
        None,
        {"namespace": STRING, "trust_tier": STRING, "attested": TRUTH},
    ),
    Operation(
        "metagraph",
        "get",
        "/metagraph",
        "The subnet as last read.",
        None,
        {"neurons": OBJECTS, "block": {"type": ["integer", "null"]}},
    ),
    Operation(
        "chatHistory",
        "get",
        "/chat-history/{user_id}",
        "A conversation (signed as chat-history).",
        None,
        _CHAT | {"messages": OBJECTS},
        query=("conv_id", *SIGNING),
    ),
    Operation(
        "saveChat",
        "post",
        "/chat-history",
        "Keep a conversation's last 200 messages.",
        SIGNING | _CHAT | {"messages": OBJECTS},
        _CHAT | {"ok": TRUTH, "count": WHOLE},
    ),
    Operation(
        "conversations",
        "get",
        "/conversations/{user_id}",
        "A user's conversations (signed as conversations).",
        None,
        {"user_id": STRING, "conversations": OBJECTS},
        query=tuple(SIGNING),
    ),
    Operation(
        "makeConversation",
        "post",
        "/conversations",
        "Begin a conversation.",
        SIGNING | _CHAT | {"title": STRING},
        {"ok": TRUTH, "conv_id": STRING, "title": STRING},
    ),
    Operation(
        "renameConversation",
        "patch",
        "/conversations/{conv_id}",
        "Give a conversation another title.",
        SIGNING | _CHAT | {"title": STRING},
        {"ok": TRUTH, "conv_id": STRING, "title": STRING},
    ),
    Operation(
        "deleteConversation",
        "delete",
        "/conversations/{conv_id}",
        "Forget a conversation.",
        SIGNING | _CHAT,
        {"deleted": TRUTH, "conv_id": STRING},
    ),
    Operation("openapi", "get", "/openapi.json", "This document.", None, {"openapi": STRING}),
)


@lru_cache(maxsize=1)
def openapi_document() -> bytes:
    """Returns the document as JSON; it never changes within a process."""
    paths: dict[str, Schema] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    error: Schema = {**OBJECT, "required": ["error"], "properties": {"error": STRING, "code": STRING}}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Engram memory node", "version": VERSION},
            "paths": paths,
            "components": {"schemas": {"Error": error}},
        }
    )


def _described(operation: Operation) -> Schema:
    in_path = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    told: Schema = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": STRING} for name in in_path),
            *({"name": name, "in": "query", "schema": STRING} for name in operation.query),
        ],
        "responses": {
            "200": _content({**OBJECT, "required": list(operation.gives), "properties": operation.gives}, "Done."),
            "default": _content({"$ref": "#/components/schemas/Error"}, "Refused (4xx), or not now (503)."),
        },
    }
    if operation.takes is not None:
        body = {**OBJECT, "properties": operation.takes}
        told["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return told


def _content(schema: Schema, description: str) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
