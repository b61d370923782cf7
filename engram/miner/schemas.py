"""What a node's requests and answers are made of, as JSON Schema: the words of /openapi.json."""

from __future__ import annotations

from typing import Final

from engram.memory.upkeep.export_pages import KINDS

Schema = dict[str, object]
Fields = dict[str, Schema]

STRING: Final[Schema] = {"type": "string"}
WHOLE: Final[Schema] = {"type": "integer"}
NUMBER: Final[Schema] = {"type": "number"}
TRUTH: Final[Schema] = {"type": "boolean"}
OBJECT: Final[Schema] = {"type": "object"}
NUMBERS: Final[Schema] = {"type": "array", "items": NUMBER}


def one(gives: Fields, may: Fields | None = None) -> Schema:
    """An object that has all fields of `gives`, and some of `may`."""
    return {**OBJECT, "required": list(gives), "properties": gives | (may or {})}


def many(gives: Fields, may: Fields | None = None) -> Schema:
    """A list of such objects."""
    return {"type": "array", "items": one(gives, may)}


def or_null(kind: str) -> Schema:
    """A value of that type, or null."""
    return {"type": [kind, "null"]}


SIGNING: Final[Fields] = {
    "hotkey": {**STRING, "description": "SS58 of the signer."},
    "nonce": {**WHOLE, "description": "Unix milliseconds, 30 s either way."},
    "signature": {**STRING, "description": "sr25519 in hex over `{nonce}:{endpoint}:{sha256 of the canonical body}`."},
    "signed_for": {**STRING, "description": "SS58 of the one node that may take the request."},
}
NAMESPACE: Final[Fields] = {
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
PRIVATE: Final = SIGNING | NAMESPACE
PADDED: Final[Fields] = {"_p": {**STRING, "description": "Fills the answer about a private namespace up."}}

RECORD: Final[Fields] = {
    "text": STRING,
    "raw_embedding": NUMBERS,
    "raw_embedding_b64": {**STRING, "description": "The vector as base64 of f32 little-endian bytes."},
    "metadata": OBJECT,
    "model_version": STRING,
}
QUERY: Final[Fields] = {
    "query_text": STRING,
    "query_vector": NUMBERS,
    "query_vector_b64": STRING,
    "top_k": {**WHOLE, "minimum": 1, "maximum": 100, "default": 10},
    "filter": OBJECT,
}
CURSOR: Final[Schema] = {"type": ["string", "null"], "description": "`next` of the page before; null: the beginning."}
PAGE: Final[Fields] = {
    "filter": OBJECT,
    "limit": {**WHOLE, "maximum": 200},
    "offset": {**WHOLE, "description": "Skips records that move up after a deletion; `after` does not."},
    "after": CURSOR,
}
LOOKUP: Final[Fields] = {
    "key": {**STRING, "default": "_ref"},
    "values": {"type": "array", "minItems": 1, "maxItems": 256, "items": STRING},
    "whole": {**TRUTH, "default": True, "description": "false: CIDs and values, without text and metadata."},
    "limit": {**WHOLE, "maximum": 500},
    "after": CURSOR,
}
CIDS: Final[Fields] = {"cids": {"type": "array", "minItems": 1, "maxItems": 256, "items": STRING}}
CHALLENGE: Final[Fields] = {
    "cid": STRING,
    "nonce_hex": STRING,
    "expires_at": WHOLE,
    "validator_hotkey_hex": STRING,
    "version": {**WHOLE, "enum": [1, 2]},
}
SHARE: Final[Fields] = {"share_index": WHOLE, "share_hex": STRING, "threshold": WHOLE, "total": WHOLE}
EXPORT: Final[Fields] = {"after": WHOLE, "kind": {"enum": list(KINDS)}}

HEALTH: Final[Fields] = {
    "status": STRING,
    "ready": {**TRUTH, "description": "Index and embedder have each answered once."},
    "vectors": {**WHOLE, "description": "Public records."},
    "launch_token": STRING,
    "session_id": STRING,
    "boot_id": STRING,
    "started_at": NUMBER,
    "hotkey": STRING,
    "uid": {**or_null("integer"), "description": "On the subnet as last read; null where it has none."},
    "embedder": STRING,
    "index": {"enum": ["ready", "loading"]},
    "dimension": WHOLE,
    "version": STRING,
    "noise": {
        **one({"sigma": NUMBER, "epsilon": NUMBER, "delta": NUMBER}),
        "type": ["object", "null"],
        "description": "On private vectors; null: none.",
    },
}
STATS: Final[Fields] = {
    "status": STRING,
    "vectors": WHOLE,
    "peers": WHOLE,
    "uid": or_null("integer"),
    "queries_today": WHOLE,
    "p50_latency_ms": or_null("number"),
    "proof_rate": or_null("number"),
    "uptime_pct": or_null("number"),
    "block": or_null("integer"),
    "avg_score": or_null("number"),
    "hotkey": STRING,
}
STORED: Final[Fields] = {"cid": or_null("string"), "error": or_null("string")}
STORED_MAYBE: Final[Fields] = {
    "code": STRING,
    "owner": {
        **or_null("string"),
        "description": "SS58 of who may delete it besides the controller; null: it was stored unsigned.",
    },
    "owner_reason": {
        **STRING,
        "description": "Why it is not the sender's: unsigned, stored_first_unsigned, stored_first_by_other, or "
        "signature_ and what is wrong with it: stale, future, before_start, replayed, wrong, incomplete, malformed.",
    },
    "truncated": {**TRUTH, "description": "true: the vector is of the first `tokens_used` of the text's `tokens`."},
    "tokens": WHOLE,
    "tokens_used": WHOLE,
    "searchable": {**TRUTH, "description": "false: it is stored, and will be found once the index has it."},
    "text_kept": {
        **TRUTH,
        "description": "false: another text with the same vector and metadata is there already, and stays.",
    },
}
SHOWN: Final[Fields] = {"cid": STRING, "metadata": {**OBJECT, "additionalProperties": STRING}}
TEXT: Final[Fields] = {"text": {**STRING, "description": "Shown to its owner and to the node's controller."}}
HIT: Final = SHOWN | {"score": {**NUMBER, "minimum": -1, "maximum": 1}, "trust_tier": STRING}
PROOF: Final[Fields] = {"proof": {**STRING, "description": "64 hex digits."}}
PROOF_1: Final[Fields] = {"embedding_hash": STRING}
PROOF_2: Final[Fields] = {
    "version": WHOLE,
    "cid": STRING,
    "namespace": STRING,
    "root_hex": STRING,
    "count": WHOLE,
    "expires_at": WHOLE,
    "miner": STRING,
    "signature": STRING,
    "inclusion": OBJECT,
}
ROOT: Final[Fields] = {
    "root_hex": STRING,
    "count": WHOLE,
    "built_at": NUMBER,
    "hotkey": STRING,
    "form": STRING,
    "signed": {**STRING, "description": "`engram-commitment:{form}:{namespace}:{root}:{count}:{unix ms}`."},
    "signature": STRING,
}
TIER: Final[Fields] = {"namespace": STRING, "trust_tier": STRING}
ATTESTED: Final[Fields] = {"owner_hotkey": STRING, "stake_tao": NUMBER, "attested_at": NUMBER}
NEURON: Final[Fields] = {"uid": WHOLE, "hotkey": STRING, "ip": STRING, "port": WHOLE, "incentive": NUMBER}
CHAT: Final[Fields] = {"user_id": STRING, "conv_id": STRING}
MESSAGE: Final[Fields] = {"role": STRING, "content": STRING, "ts": {"type": ["number", "string", "null"]}}
CONVERSATION: Final[Fields] = {"conv_id": STRING, "title": STRING, "created_at": NUMBER, "updated_at": NUMBER}
ERROR: Final[Fields] = {
    "error": STRING,
    "code": STRING,
    "request_id": STRING,
    "field": {**STRING, "description": "With code misplaced_field: the field that is refused."},
}
