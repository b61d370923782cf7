"""/openapi.json: OpenAPI 3.1 of a node, from one table. A test holds it against the routes and the answers."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from engram.miner.schemas import (
    ATTESTED,
    CHALLENGE,
    CHAT,
    CIDS,
    CONVERSATION,
    ERROR,
    EXPORT,
    HEALTH,
    HIT,
    LOOKUP,
    MESSAGE,
    NAMESPACE,
    NEURON,
    NUMBER,
    NUMBERS,
    OBJECT,
    PADDED,
    PAGE,
    PRIVATE,
    PROOF,
    PROOF_1,
    PROOF_2,
    QUERY,
    RECORD,
    ROOT,
    SHARE,
    SHOWN,
    SIGNING,
    STATS,
    STORED,
    STORED_MAYBE,
    STRING,
    TEXT,
    TIER,
    TRUTH,
    WHOLE,
    Fields,
    Schema,
    many,
    one,
    or_null,
)
from engram.miner.service import VERSION


class Operation(msgspec.Struct, frozen=True):
    """One call: what it takes in its body, what a success always answers, and what it may answer besides."""

    id: str
    method: str
    path: str
    summary: str
    takes: Fields | None
    gives: Fields
    query: tuple[str, ...] = ()
    may: Fields = {}
    media: str = "application/json"
    """Of a success; `gives` is each line of one that has lines."""


_QUERIED = (*NAMESPACE, *SIGNING)
_ITEMS: Schema = {"type": "array", "minItems": 1, "maxItems": 256, "items": {**OBJECT, "properties": RECORD}}
_DELETED: Fields = {"deleted": TRUTH}
_ERROR: Fields = {"error": or_null("string")}

OPERATIONS = (
    Operation("health", "get", "/health", "Whether the node is up.", None, HEALTH),
    Operation("stats", "get", "/stats", "Its work and its place.", None, STATS),
    Operation(
        "ingest",
        "post",
        "/IngestSynapse",
        "Store a text or a vector.",
        PRIVATE | RECORD,
        STORED,
        may=STORED_MAYBE | PADDED,
    ),
    Operation(
        "ingestBatch",
        "post",
        "/IngestBatch",
        "Store up to 256 texts or vectors; a result for each.",
        PRIVATE | {"items": _ITEMS},
        {"results": many(STORED, STORED_MAYBE), "stored": WHOLE} | _ERROR,
        may=PADDED,
    ),
    Operation(
        "query",
        "post",
        "/QuerySynapse",
        "Find the nearest records by cosine.",
        PRIVATE | QUERY,
        {"results": many(HIT, TEXT), "latency_ms": NUMBER} | _ERROR,
        may={"code": STRING} | PADDED,
    ),
    Operation(
        "list",
        "post",
        "/list",
        "A page of a namespace.",
        PRIVATE | PAGE,
        {"records": many(SHOWN, TEXT | {"embedding_hash": STRING}), "count": WHOLE, "limit": WHOLE},
        may={"offset": WHOLE, "next": or_null("string"), "commitment": {**one(ROOT), "type": ["object", "null"]}}
        | PADDED,
    ),
    Operation(
        "lookupBatch",
        "post",
        "/LookupBatch",
        "Records whose metadata have one of up to 256 references.",
        PRIVATE | LOOKUP,
        {"records": many({"cid": STRING}, SHOWN | TEXT | {"value": STRING}), "count": WHOLE, "next": or_null("string")},
        may=PADDED,
    ),
    Operation(
        "deleteBatch",
        "post",
        "/DeleteBatch",
        "Take up to 256 records out (signed); a result for each.",
        PRIVATE | CIDS,
        {"results": many(_DELETED | {"cid": STRING} | _ERROR, {"code": STRING}), "deleted": WHOLE} | _ERROR,
        may=PADDED,
    ),
    Operation("retrieve", "get", "/retrieve/{cid}", "One record.", None, SHOWN, query=_QUERIED, may=TEXT | PADDED),
    Operation(
        "delete",
        "delete",
        "/retrieve/{cid}",
        "Take a record out (signed as DeleteSynapse).",
        PRIVATE | {"cid": STRING},
        _DELETED | {"cid": STRING},
        may=PADDED,
    ),
    Operation(
        "repair",
        "post",
        "/RepairSynapse",
        "A public record with its vector.",
        SIGNING | {"cid": STRING},
        SHOWN | {"embedding": NUMBERS},
    ),
    Operation(
        "challenge",
        "post",
        "/ChallengeSynapse",
        "Prove storage; by version 2 with the vector's bytes.",
        PRIVATE | CHALLENGE,
        PROOF,
        may=PROOF_1 | PROOF_2 | PADDED,
    ),
    Operation(
        "commitment",
        "get",
        "/commitment",
        "The signed root over a namespace.",
        None,
        ROOT,
        query=("form", "scope", *_QUERIED),
        may=PADDED,
    ),
    Operation(
        "proveMemory",
        "post",
        "/prove-memory",
        "Prove that a record is under the root, or that it is not.",
        PRIVATE | {"cid": STRING, "embedding_hash": STRING, "form": {**STRING, "enum": ["keyed-1", "legacy"]}},
        ROOT | {"cid": STRING, "proof": {**STRING, "description": "JSON in a string."}},
        may={"included": {**TRUTH, "description": "Not with the legacy form, which shows presence only."}} | PADDED,
    ),
    Operation(
        "export",
        "post",
        "/export",
        "Everything, page by page, for the controller: records, or what `kind` names.",
        SIGNING | EXPORT | {"limit": WHOLE},
        {"records": many({"kind": STRING, "id": WHOLE}), "count": WHOLE, "next": or_null("integer")},
    ),
    Operation(
        "exportStream",
        "post",
        "/export-stream",
        "The same in one answer, a JSON document a line; the last has kind end.",
        SIGNING | EXPORT,
        {"kind": STRING},
        media="application/x-ndjson",
    ),
    Operation(
        "putKeyShare",
        "post",
        "/KeyShareSynapse",
        "Keep a share of a namespace's key.",
        PRIVATE | SHARE | {"replace": TRUTH},
        {"stored": TRUTH},
        may=PADDED,
    ),
    Operation("getKeyShare", "post", "/KeyShareRetrieve", "Give the share back.", PRIVATE, SHARE, may=PADDED),
    Operation(
        "attest",
        "post",
        "/AttestNamespace",
        "Stand for a namespace with one's stake.",
        {"namespace": STRING, "owner_hotkey": STRING, "signature": STRING, "timestamp_ms": WHOLE},
        TIER | {"ok": TRUTH, "stake_tao": NUMBER},
    ),
    Operation(
        "attestation",
        "get",
        "/attestation/{namespace}",
        "Who stands for a namespace.",
        None,
        TIER | {"attested": TRUTH},
        may=ATTESTED,
    ),
    Operation(
        "metagraph",
        "get",
        "/metagraph",
        "The subnet as last read.",
        None,
        {"neurons": many(NEURON), "block": or_null("integer")},
    ),
    Operation(
        "chatHistory",
        "get",
        "/chat-history/{user_id}",
        "A conversation (signed as chat-history).",
        None,
        CHAT | {"messages": many(MESSAGE)},
        query=("conv_id", *SIGNING),
    ),
    Operation(
        "saveChat",
        "post",
        "/chat-history",
        "Keep a conversation's last 200 messages (signed as SaveChat).",
        SIGNING | CHAT | {"messages": many({"role": STRING, "content": STRING}, MESSAGE)},
        CHAT | {"ok": TRUTH, "count": WHOLE},
    ),
    Operation(
        "conversations",
        "get",
        "/conversations/{user_id}",
        "A user's conversations (signed as conversations).",
        None,
        {"user_id": STRING, "conversations": many(CONVERSATION)},
        query=tuple(SIGNING),
    ),
    Operation(
        "makeConversation",
        "post",
        "/conversations",
        "Begin a conversation (signed as MakeConversation).",
        SIGNING | CHAT | {"title": STRING},
        CONVERSATION | {"ok": TRUTH},
    ),
    Operation(
        "renameConversation",
        "patch",
        "/conversations/{conv_id}",
        "Give a conversation another title (signed as RenameConversation).",
        SIGNING | CHAT | {"title": STRING},
        {"ok": TRUTH, "conv_id": STRING, "title": STRING},
    ),
    Operation(
        "deleteConversation",
        "delete",
        "/conversations/{conv_id}",
        "Forget a conversation (signed as DeleteConversation).",
        SIGNING | CHAT,
        _DELETED | {"conv_id": STRING},
    ),
    Operation(
        "openapi",
        "get",
        "/openapi.json",
        "This document.",
        None,
        {"openapi": STRING},
        may={"info": OBJECT, "paths": OBJECT, "components": OBJECT},
    ),
)


@lru_cache(maxsize=1)
def openapi_document() -> bytes:
    """Returns the document as JSON; it never changes within a process."""
    paths: dict[str, Schema] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    error = one({"error": STRING}, ERROR | PADDED)
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
            "200": _content(one(operation.gives, operation.may), "Done.", operation.media),
            "default": _content({"$ref": "#/components/schemas/Error"}, "Refused (4xx), or not now (503)."),
        },
    }
    if operation.takes is not None:
        body = {**OBJECT, "properties": operation.takes}
        told["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return told


def _content(schema: Schema, description: str, media: str = "application/json") -> Schema:
    return {"description": description, "content": {media: {"schema": schema}}}
