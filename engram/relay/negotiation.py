"""Which schema a payload leaves in: what its receiver says that it takes (GET /schemas), never a guess.

| the receiver answers GET /schemas with | it takes |
|---|---|
| 200 and a list of kinds and versions | what the list says |
| 404, 405, 410 or 501, with `relay.original_receiver` | `scores` of engram-v1, and `memory` of it is tried |
| anything else, an empty list, or nothing | not known: nothing is sent before it is |

Without that setting a 404 says nothing: a proxy, a portal or a wrong address may have given it.

| the payload | its receiver takes | it leaves |
|---|---|---|
| of any kind | its kind and version | as it is |
| `memory` of engram-v2 | `memory` of engram-v1 | as engram-v1: without roots and tool, with a hash of its own |
| `gap` | no such kind | not at all: discarded |
| anything else | another kind or version | not at all: parked |
"""

from collections.abc import Collection, Mapping
from typing import Final

import msgspec
from msgspec import UNSET

from engram import wire
from engram.relay.model import SCHEMA_VERSION, SCHEMA_VERSION_2, MemoryPayload, Outcome
from engram.relay.rules import output_hash, shortened, stable_nodes

NO_NEGOTIATION: Final = frozenset({404, 405, 410, 501})
"""Answers of a receiver that has no GET /schemas."""


class Terms(msgspec.Struct, frozen=True):
    """What a receiver takes: versions by kind."""

    takes: Mapping[str, Collection[str]]
    negotiated: bool = True
    """Whether the receiver has said so itself."""


ORIGINAL: Final = Terms({"scores": (SCHEMA_VERSION,), "memory": (SCHEMA_VERSION,)}, negotiated=False)
"""Of a receiver that does not negotiate."""


class NotKnown(msgspec.Struct, frozen=True):
    """The receiver could not be asked what it takes."""

    outcome: Outcome


class Fitted(msgspec.Struct, frozen=True):
    """A payload in the form in which its receiver takes it."""

    payload: bytes
    output_hash: str


class _Versioned(msgspec.Struct, frozen=True):
    schema_version: str
    output_hash: str


def fitted(kind: str, payload: bytes, terms: Terms) -> Fitted | None:
    """Return the payload as it leaves; None when the receiver takes no form of it.

    Raises msgspec.DecodeError for what is no payload of ours.
    """
    versions = terms.takes.get(kind, ())
    head = wire.decode(payload, _Versioned)
    if head.schema_version in versions:
        return Fitted(payload, head.output_hash)
    if kind != "memory" or (head.schema_version, SCHEMA_VERSION in versions) != (SCHEMA_VERSION_2, True):
        return None
    full = wire.decode(payload, MemoryPayload)
    nodes = {name: msgspec.structs.replace(node, root=UNSET) for name, node in full.nodes.items()}
    digest = output_hash(stable_nodes(nodes))
    plain = msgspec.structs.replace(full, schema_version=SCHEMA_VERSION, nodes=nodes, output_hash=digest, tool=UNSET)
    return Fitted(msgspec.json.encode(plain), digest)


def not_taken(kind: str, terms: Terms) -> str:
    """Say why no form of the payload is sent."""
    taken = ", ".join(f"{name} ({', '.join(versions)})" for name, versions in sorted(terms.takes.items()))
    return shortened(f"the receiver takes no {kind} payload of this version, only {taken}")
