"""What is planted comes over the wire in the form in which customers' records come from the SDK."""

import json
import re
import struct
from typing import Any

import trio

from engram.clock import SystemClock
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.memory.embed.hash_embedder import hash_vector
from engram.sdk import NodeClient
from engram.validator.miner_client import MinerClient, cid_of
from tests.fakes.responder import Answer, Asked, Responder
from tests.validator.test_disguise_in_rounds import SDK_FORM

TEXT = "The roof of the archive leaks: Änne can come on Friday."
VECTOR = struct.pack("<4f", 0.1, 1e-6, -1e-5, 3.0) + hash_vector(TEXT, 64)
OWN, CUSTOMER = Keypair.from_seed(bytes(32)), Keypair.from_seed(bytes([1]) * 32)
OF_TRANSPORT = ("host", "connection", "content-length")


async def answer(asked: Asked) -> Answer:
    if asked.method == "DELETE":
        return 200, {}, json.dumps({"deleted": True, "cid": cid_of(TEXT, VECTOR)}).encode()
    if "query_vector" in json.loads(asked.body):
        return 200, {}, b'{"results": [], "error": null}'
    return 200, {}, json.dumps({"cid": cid_of(TEXT, VECTOR), "error": None}).encode()


def form(asked: Asked) -> tuple[str, str, list[tuple[str, str]], str]:
    """The request without what differs from one customer to the next."""
    headers = [each for each in asked.headers.items() if each[0] not in OF_TRANSPORT]
    named = [(name, "" if name == "content-digest" else _encodings(name, value)) for name, value in headers]
    body = asked.body.decode()
    for name in ("hotkey", "signature"):
        body = re.sub(f'"{name}":"[^"]*"', f'"{name}":""', body)
    return asked.method, asked.target, named, re.sub(r'"nonce":\d+', '"nonce":0', body)


def _encodings(name: str, value: str) -> str:
    """Where more decoders are installed the SDK asks for more."""
    return ", ".join(value.split(", ")[:2]) if name == "accept-encoding" else value


async def test_a_planted_record_its_question_and_its_deletion_look_as_the_sdks_do() -> None:
    responder = Responder(answer)
    async with trio.open_nursery() as nursery:
        url = await nursery.start(responder.run)
        http = HttpClient()
        client = MinerClient(http, SystemClock(), 5.0)
        await client.ingest(url, OWN, TEXT, VECTOR)
        await client.query(url, OWN, VECTOR)
        await client.delete(url, OWN, cid_of(TEXT, VECTOR))
        await trio.to_thread.run_sync(as_a_customer, url)
        await http.aclose()
        nursery.cancel_scope.cancel()
    ours, theirs = responder.asked[:3], responder.asked[3:]
    assert [form(each) for each in ours] == [form(each) for each in theirs]
    for each in (*ours, *theirs):
        assert each.headers["content-digest"].startswith("sha-256=:")
    _, _, headers, body = form(theirs[0])
    lines = [f"{name}: {value}" for name, value in headers if name != "content-digest"]
    assert (*json.loads(body), *lines) == SDK_FORM


def as_a_customer(url: str) -> None:
    vector = list(struct.unpack(f"<{len(VECTOR) // 4}f", VECTOR))

    def embed(text: str) -> Any:
        return vector

    with NodeClient(url, CUSTOMER, embed=embed, strict=False) as node:
        node.ingest(TEXT, {"text": TEXT})
        node.query(TEXT, top_k=10)
        node.delete(cid_of(TEXT, VECTOR))
