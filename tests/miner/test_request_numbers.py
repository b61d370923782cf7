"""Numbers in requests: each is right where it is used, or refused, in whatever form it comes. None ends in a 500."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode

import pytest

from config.model import HttpSettings
from engram.clock import SeededIds, SystemClock
from engram.hotkeys import miner_scheme
from engram.miner import namespace_keys
from engram.miner.app import make_app
from engram.miner.service import Service
from tests.http.asgi_client import AsgiClient
from tests.memory.stores import DIMENSION
from tests.miner.nodes import CONTROLLER, STAMPS, encoded, serving, signed
from tests.miner.operations import OPERATIONS, Operation, Schema
from tests.miner.test_authority import endpoint
from tests.sampling import sample

UP = [1.0] + [0.0] * (DIMENSION - 1)
LITERALS = [
    *("0", "-0", "-0.0", "1", "-1", "1.0", "1.5", "1e0", "1E2", "0.1e1", "1e-320", "5e-324", "1e308", "-1e308"),
    *("NaN", "Infinity", "-Infinity", "1e309", "-1e999", "1e999999999", "1e-999999999"),
    *(
        str(sign * (2**bits + off))
        for bits in (31, 32, 53, 62, 63, 64, 128, 256)
        for off in (-1, 0)
        for sign in (1, -1)
    ),
    *("9" * 400, "-" + "9" * 400, "9" * 5_000, "1" + "0" * 400 + ".0", "0." + "0" * 400 + "1", "9007199254740993.0"),
    *("true", "false", "null", '"1"', '"NaN"', '"\\u0661"', '" 1"', '"1e3"', '"1_0"', "[1]", "{}", '""'),
]
SENT: dict[str, dict[str, Any]] = {
    "ingest": {"metadata": {"number": 1}, "raw_embedding": UP},
    "ingestBatch": {"items": [{"metadata": {"number": 1}, "raw_embedding": UP}]},
    "query": {"query_vector": UP, "filter": {"number": 1}},
    "list": {"filter": {"number": 1}},
    "lookupBatch": {"key": "number", "values": ["1"]},
    "challenge": {"nonce_hex": "11" * 32, "expires_at": 2**33},
    "putKeyShare": {"share_index": 1, "share_hex": "ab", "threshold": 2, "total": 3, "replace": True},
    "attest": {"namespace": "notes"},
    "saveChat": {"user_id": "u", "messages": [{"role": "user", "content": "a", "ts": 1}]},
    "makeConversation": {"user_id": "u", "conv_id": "c", "title": "t"},
    "renameConversation": {"user_id": "u", "conv_id": "c", "title": "t"},
    "deleteConversation": {"user_id": "u", "conv_id": "c"},
}
"""What a request of the operation has besides the number."""
NUMBERS_OF_SIGNING = ("nonce", "namespace_timestamp_ms", "namespace_sig_version")
HOLE = "the number goes here"


def holes(schema: Schema, sent: object) -> Iterator[object]:
    """What is sent, each time with the hole in another place where the schema or the content has a number."""
    kinds = schema.get("type")
    if kinds in ("integer", "number") or (isinstance(kinds, list) and "number" in kinds):
        yield HOLE
    elif kinds == "array":
        items: Any = schema["items"]
        known: list[Any] = sent if isinstance(sent, list) and sent else [{}]
        yield from ([inner, *known[1:]] for inner in holes(items, known[0]))
    elif kinds == "object":
        fields: dict[str, Any] = sent if isinstance(sent, dict) else {}
        properties: Any = schema.get("properties", {name: {"type": "number"} for name in fields})
        for name, inner_schema in properties.items():
            yield from ({**fields, name: inner} for inner in holes(inner_schema, fields.get(name)))


def bodies(operation: Operation, cid: str) -> Iterator[dict[str, Any]]:
    sent = {"cid": cid, **SENT.get(operation.id, {})}
    for body in holes({"type": "object", "properties": operation.takes or {}}, sent):
        assert isinstance(body, dict)
        yield body


TAKING = [operation for operation in OPERATIONS if operation.takes is not None]


def cases(operation: Operation) -> list[tuple[int, str, str]]:
    """Which hole, what is in it, and who signs."""
    places = range(len(list(bodies(operation, ""))))
    return [(at, text, way) for at in places for text in LITERALS for way in ("nobody", "controller", "namespace")]


def strictly(line: str | bytes) -> Any:
    def refuse(literal: str) -> NoReturn:
        raise AssertionError(f"{literal} is no JSON")

    return json.loads(line, parse_constant=refuse)


@pytest.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setattr(namespace_keys, "_ROUNDS", 1)
    async with serving(tmp_path, tenants="anyone") as made:
        yield made


@pytest.fixture
def client(service: Service) -> AsgiClient:
    limits = HttpSettings(requests_per_minute_per_ip=0)
    app = make_app(service, settings=limits, clock=SystemClock(), ids=SeededIds(1), metrics=service.metrics)
    return AsgiClient(app)


def raw(body: dict[str, Any], literal: str) -> bytes:
    return json.dumps(body).replace(json.dumps(HOLE), literal).encode()


def as_sent(operation: Operation, body: dict[str, Any], literal: str, way: str) -> bytes:
    """The request with the number in it, signed where there is such a number in JSON; its own signing fields stay."""
    named, content = endpoint(operation), raw(body, literal)
    if way == "nobody":
        return content
    try:
        fields: dict[str, Any] = json.loads(content)
        if way == "controller":
            made = json.loads(signed(CONTROLLER, named, fields))
        else:
            made = miner_scheme.sign_namespace_request(CONTROLLER, named, "notes", fields, STAMPS.next())
    except ValueError:  # NaN, or more digits than Python reads
        return content
    return encoded({**made, **{name: fields[name] for name in NUMBERS_OF_SIGNING if name in fields}})


@pytest.mark.parametrize("operation", TAKING, ids=lambda operation: operation.id)
async def test_a_number_in_a_request_is_right_or_refused_whatever_its_form(
    client: AsgiClient, operation: Operation
) -> None:
    first = await client.post("/IngestSynapse", data=encoded({"raw_embedding": UP, "metadata": {"number": 7}}))
    made = list(bodies(operation, strictly(await first.get_data())["cid"]))
    path = operation.path.format(cid="v1::none", user_id="u", conv_id="c", namespace="notes")
    for place, literal, way in sample(f"numbers of {operation.id}", cases(operation), 40):
        content = as_sent(operation, made[place], literal, way)
        answer = await getattr(client, operation.method)(path, data=content)
        lines = (await answer.get_data()).splitlines()
        assert answer.status_code < 500, (content, lines)
        for line in lines:
            told = strictly(line)
            assert len(told.get("results", told.get("records", []))) <= 500
    page = await client.post("/list", data=encoded({"limit": 200}))
    assert strictly(await page.get_data())["count"] >= 1


async def test_a_number_in_the_query_of_a_get_is_right_or_refused_whatever_its_form(
    client: AsgiClient,
) -> None:
    named = [(operation, name) for operation in OPERATIONS for name in operation.query]
    each = [(operation, name, literal) for operation, name in named for literal in LITERALS]
    for operation, name, literal in sample("numbers in queries", each, 150):
        path = operation.path.format(cid="v1::none", user_id="u", conv_id="c", namespace="notes")
        given = {"hotkey": CONTROLLER.ss58, "signature": "ab" * 64, "namespace": "notes"} | {name: literal.strip('"')}
        answer = await client.get(f"{path}?{urlencode(given)}")
        content = await answer.get_data()
        assert answer.status_code < 500, (operation.id, name, literal, content)
        strictly(content)
