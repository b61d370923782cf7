"""The published schemas and the receiver say the same of a payload's shape, for each kind and field."""

import copy
import json
from collections.abc import Iterator
from typing import Any, Final

import jsonschema
import msgspec
import pytest

from engram.relay import PayloadSigner
from engram.relay.model import GapPayload
from engram.relay.rules import output_hash, stable_anchor
from engram.relay.schemas import SCHEMAS, TAKEN
from engram.xeris import judging
from engram.xeris.judging import GAP_BYTES, GAPS_MOST
from tests.relay.test_roots import root
from tests.xeris.test_judging import NOW, ONE, TWO, anchor, code, cosignature, memory, ranking, resigned, rooted, scores
from tests.xeris.test_receiver import Bench, bench

pytestmark = pytest.mark.rules

__all__ = ("bench",)

TOOL: Final = {
    "server": "tools.example:443",
    "tool": "price",
    "called_at": NOW,
    "took_ms": 12,
    "status": "ok",
    "content": "{}",
    "content_sha256": "",
}
MISSING: Final = object()
VALUES: Final[tuple[Any, ...]] = (MISSING, None, "x", -1, 1.5, 2**60, True, [], {}, [{}], {"x": {}}, ["x"])
OF_SHAPE: Final = frozenset({"schema", "signature", "cosignature"})
"""Codes of what a schema can say; a signature may also be malformed."""
OF_MEANING: Final = (f"rank = {2**60}", "root_hex = missing", "root_hex = None", "root_hex = x", "root = None")
"""No faults of the shape: ranks count from 1, and `root_hex` of a node is that of its root."""
SIGNED: Final = ("validator_hotkey", "signature", "signed_hash")


def gap() -> dict[str, Any]:
    marker = GapPayload(
        netuid=450,
        block=7,
        round_ts=NOW,
        output_hash="ab" * 32,
        nonce="7:x:1:gap",
        parked="memory",
        reason="it was refused",
    )
    found: dict[str, Any] = msgspec.json.decode(PayloadSigner.of(ONE).sign(msgspec.json.encode(marker)).body)
    return found


def cosigned() -> dict[str, Any]:
    document = scores()
    return document | {"cosignatures": [cosignature(TWO, document["signed_hash"])]}


SENT: Final[dict[str, dict[str, Any]]] = {
    "scores": scores(),
    "scores that name their kind": resigned(scores(kind="scores")),
    "co-signed scores": cosigned(),
    "memory": memory(),
    "memory with a root": rooted(root()),
    "memory with null for a root": rooted(None),
    "memory with a tool": resigned(memory() | {"tool": TOOL}),
    "ranking": ranking(),
    "co-signed ranking": ranking(TWO),
    "gap": gap(),
    "anchor": anchor(),
}


def kind_of(document: dict[str, Any]) -> str:
    return str(document.get("kind", "scores"))


def changed(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The document with one field at a time missing or of another shape, also within its output."""
    for path in _paths(document):
        for value in VALUES:
            found = copy.deepcopy(document)
            holder: Any = found
            for step in path[:-1]:
                holder = holder[step]
            if value is MISSING:
                del holder[path[-1]]
            else:
                holder[path[-1]] = value
            what = f"{'.'.join(map(str, path))} = {'missing' if value is MISSING else value}"
            if not what.endswith(OF_MEANING):
                yield str(path[0]), what, found


def _paths(document: dict[str, Any]) -> Iterator[tuple[str | int, ...]]:
    yield ("schema_version",)
    yield ("kind",) if "kind" in document else ("nonce",)
    for name, value in document.items():
        yield (name,)
        if name in ("scores", "nodes"):
            first = next(iter(value))
            yield (name, first)
            yield from ((name, first, inner) for inner in value[first])
        elif name in ("ranking", "cosignatures") and value:
            yield from ((name, 0, inner) for inner in value[0])
        elif name == "tool":
            yield from ((name, inner) for inner in value)


def as_sent(document: dict[str, Any], field: str) -> dict[str, Any]:
    """The document after a change of the field, with hashes and a signature that hold: only its shape is wrong."""
    fields = ("anchored", "epoch", "root", "leaves", "first", "count")
    if field in fields and all(name in document for name in fields):
        try:
            stable = stable_anchor(**{name: document[name] for name in fields})
        except (TypeError, ValueError, AttributeError):
            return document
        document = document | {"output_hash": output_hash(stable)}
    return document if field in (*SIGNED, "cosignatures") else resigned(document)


@pytest.mark.parametrize("name", SENT)
def test_what_is_sent_is_of_its_published_schema_and_accepted(name: str) -> None:
    document = SENT[name]
    jsonschema.Draft202012Validator(SCHEMAS[kind_of(document)]).validate(document)
    assert code(document, permits={ONE.public_key, TWO.public_key}) == "accepted"


@pytest.mark.parametrize("name", SENT)
def test_the_schema_and_the_receiver_refuse_the_same_shapes(name: str) -> None:
    kind = kind_of(SENT[name])
    checks = jsonschema.Draft202012Validator(SCHEMAS[kind])
    wrong, refused = list[str](), 0
    for field, what, document in changed(SENT[name]):
        is_of_schema, found = checks.is_valid(document), code(as_sent(document, field))
        refused += not is_of_schema
        if (found == "schema") if is_of_schema else (found not in OF_SHAPE):
            wrong.append(f"{what}: the schema {'takes' if is_of_schema else 'refuses'} it, the receiver says {found}")
    assert wrong == []
    assert refused > len(VALUES), "the schema refuses something at all"


@pytest.mark.parametrize("field", ["scores", "nodes", "ranking", "leaves", "tool", "anything"])
def test_a_gap_marker_with_a_field_of_another_kind_is_none(field: str) -> None:
    values = {"scores": scores()["scores"], "nodes": memory()["nodes"], "ranking": ranking()["ranking"], "tool": TOOL}
    document = resigned(gap() | {field: values.get(field, [])})
    assert not jsonschema.Draft202012Validator(SCHEMAS["gap"]).is_valid(document)
    assert code(document) == "schema"


@pytest.mark.parametrize("output_hash", ["ab", "AB" * 32, "zz" * 32, "ab" * 32 + "\n"])
def test_a_gap_marker_names_a_hash(output_hash: str) -> None:
    assert code(resigned(gap() | {"output_hash": output_hash})) == "schema"


def test_a_gap_marker_is_small_and_one_of_few_of_its_block() -> None:
    spare = GAP_BYTES - len(json.dumps(gap()))
    longest = gap()["reason"] + "x" * spare
    assert code(resigned(gap() | {"reason": longest})) == "accepted"
    assert code(resigned(gap() | {"reason": longest + "x"})) == "schema"
    assert code(gap(), gaps=GAPS_MOST - 1) == "accepted"
    assert code(gap(), gaps=GAPS_MOST) == "gaps"


async def test_the_gap_markers_of_a_signer_and_block_are_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "GAPS_MOST", 2)
    for number in range(2):
        assert (await bench.post(resigned(gap() | {"nonce": f"7:x{number}:1:gap"})))[0] == 200
    status, refused = await bench.post(resigned(gap() | {"nonce": "7:y:1:gap"}))
    assert (status, refused["code"]) == (422, "gaps")
    assert (await bench.post(resigned(gap() | {"block": 8, "nonce": "8:y:1:gap"})))[0] == 200, "of another block"


@pytest.mark.parametrize("kind", TAKEN)
def test_a_schema_names_the_versions_that_are_taken_and_requires_them(kind: str) -> None:
    schema = SCHEMAS[kind]
    assert tuple(schema["properties"]["schema_version"]["enum"]) == TAKEN[kind]
    needed = {"schema_version", *SIGNED} | ({"kind"} if kind != "scores" else set())
    assert needed <= set(schema["required"])


@pytest.mark.parametrize("kind", SCHEMAS)
async def test_the_receiver_publishes_each_schema_as_a_valid_one(bench: Bench, kind: str) -> None:
    status, schema = await bench.get(f"/schemas/{kind}")
    assert (status, schema) == (200, SCHEMAS[kind])
    jsonschema.Draft202012Validator.check_schema(schema)
    assert not jsonschema.Draft202012Validator(schema).is_valid({})
