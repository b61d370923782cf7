"""The JSON Schema of each payload, from the code's own types. A receiver takes a `ranking`; `inference` is described
alone.

Published by a receiver at GET /schemas/{name}.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from engram.relay.anchoring.rules import LEAVES_MOST
from engram.relay.model import (
    SCHEMA_VERSION,
    SCHEMA_VERSION_2,
    AnchorPayload,
    GapPayload,
    MemoryPayload,
    RankingPayload,
    ScoresPayload,
)
from engram.relay.quorum.model import COSIGNATURES_MOST, Cosignature
from engram.relay.rules import ANCHORED_KINDS

TAKEN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "scores": (SCHEMA_VERSION,),
        "memory": (SCHEMA_VERSION, SCHEMA_VERSION_2),
        "ranking": (SCHEMA_VERSION_2,),
        "gap": (SCHEMA_VERSION_2,),
        "anchor": (SCHEMA_VERSION_2,),
    }
)
"""The versions of each kind that a receiver of ours takes; the newest last."""
Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class InferencePayload(msgspec.Struct, frozen=True, kw_only=True):
    """What a miner inferred. A schema only: nothing here makes such a payload."""

    schema_version: Literal["engram-v2"] = "engram-v2"
    kind: Literal["inference"] = "inference"
    netuid: int
    block: int
    round_ts: float
    output_hash: Hash
    nonce: str
    model: str
    input_hash: Hash
    output: str


_NATURAL: Final = {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**53}
_BOUNDS: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "netuid": {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**16},
        "block": _NATURAL,
        "epoch": _NATURAL,
        "first": _NATURAL,
        "count": {"type": "integer", "minimum": 1, "maximum": LEAVES_MOST},
        "anchored": {"enum": list(ANCHORED_KINDS)},
        "leaves": {
            "type": "array",
            "items": {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"},
            "minItems": 1,
            "maxItems": LEAVES_MOST,
        },
    }
)
"""What a receiver requires of fields beyond their types."""
_SIGNED: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "validator_hotkey": {"type": "string", "description": "ss58 of the signer"},
        "signature": {"type": "string", "description": "0x and sr25519 over the ASCII of signed_hash"},
        "signed_hash": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    }
)
_ROOTS: Final = {
    "if": {"properties": {"schema_version": {"const": SCHEMA_VERSION}}},
    "then": {"properties": {"nodes": {"additionalProperties": {"properties": {"root": False}}}}},
    "else": {"properties": {"nodes": {"additionalProperties": {"required": ["root"]}}}},
}
"""Nodes have a root, or null for one, in engram-v2 alone."""
_OF_KIND: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {"memory": _ROOTS, "gap": {"additionalProperties": False}}
)
"""A gap marker is signed by one key and costs nothing: it carries nothing that others learn from."""


def _schema(kind: str, payload: type[msgspec.Struct]) -> dict[str, Any]:
    """Return a payload's schema as it is sent: with the fields that signing adds, and the versions that are taken.

    The original's payload of `scores` does not name its kind; every other does.
    """
    found = msgspec.json.schema(payload)
    described = found["$defs"].pop(found["$ref"].rpartition("/")[2])
    signed = msgspec.json.schema(list[Cosignature])
    fields = described["properties"]
    for name in fields.keys() & _BOUNDS.keys():
        fields[name] = dict(_BOUNDS[name])
    fields |= {name: dict(each) for name, each in _SIGNED.items()}
    fields["schema_version"] = {"enum": list(TAKEN.get(kind, (SCHEMA_VERSION_2,)))}
    fields["kind"] = {"enum": [kind]}
    fields["cosignatures"] = {
        "type": "array",
        "items": signed["items"],
        "maxItems": COSIGNATURES_MOST,
        "description": "Of other validators, over the same signed_hash; not covered by it.",
    }
    named = ["schema_version"] if kind == "scores" else ["schema_version", "kind"]
    described["required"] = [*named, *described.get("required", []), *_SIGNED]
    definitions = found["$defs"] | signed["$defs"]
    of_kind = _OF_KIND.get(kind, {})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described, **of_kind, "$defs": definitions}


SCHEMAS: Final[Mapping[str, dict[str, Any]]] = MappingProxyType(
    {
        kind: _schema(kind, payload)
        for kind, payload in (
            ("scores", ScoresPayload),
            ("memory", MemoryPayload),
            ("ranking", RankingPayload),
            ("inference", InferencePayload),
            ("gap", GapPayload),
            ("anchor", AnchorPayload),
        )
    }
)
