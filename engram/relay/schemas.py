"""The JSON Schema of each payload, from the code's own types. A receiver takes a `ranking`; `inference` is described
alone.

Published by a receiver at GET /schemas/{name}.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from engram.relay.model import (
    SCHEMA_VERSION,
    SCHEMA_VERSION_2,
    AnchorPayload,
    GapPayload,
    MemoryPayload,
    RankingPayload,
    ScoresPayload,
)

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


def _schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return a payload's schema with the three fields that signing adds."""
    found = msgspec.json.schema(kind)
    name = found["$ref"].rpartition("/")[2]
    described = found["$defs"].pop(name)
    described["properties"] |= {
        "validator_hotkey": {"type": "string", "description": "ss58 of the signer"},
        "signature": {"type": "string", "description": "0x and sr25519 over the ASCII of signed_hash"},
        "signed_hash": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    }
    described["required"] = [*described.get("required", []), "validator_hotkey", "signature", "signed_hash"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described, "$defs": found["$defs"]}


SCHEMAS: Final[Mapping[str, dict[str, Any]]] = MappingProxyType(
    {
        "scores": _schema(ScoresPayload),
        "memory": _schema(MemoryPayload),
        "ranking": _schema(RankingPayload),
        "inference": _schema(InferencePayload),
        "gap": _schema(GapPayload),
        "anchor": _schema(AnchorPayload),
    }
)
