"""The embedder by URL: what it asks, what it takes, and what it never tells."""

import json
import struct
from typing import Any

import pytest
import trio

from engram.http.client import HttpClient
from engram.memory.embed.openai_embedder import OpenAiEmbedder
from engram.memory.errors import EmbedderUnavailable
from engram.nodes.launch import EmbedderLaunch, LaunchFile, LaunchFileError, check
from tests.fakes.responder import Answer, Asked, Responder

KEY = "sk-never-shown"


def vectors_of(texts: list[str]) -> list[dict[str, Any]]:
    """Each text's length is its direction; the last is told first, as the API may."""
    told = [{"object": "embedding", "index": i, "embedding": [3.0, 4.0 * len(text)]} for i, text in enumerate(texts)]
    return told[::-1]


async def answering(asked: Asked) -> Answer:
    texts = json.loads(asked.body)["input"]
    body = {"object": "list", "data": vectors_of(texts), "model": "m", "usage": {"total_tokens": 3}}
    return 200, {"content-type": "application/json"}, json.dumps(body).encode()


async def embedded(nursery: trio.Nursery, responder: Responder, texts: list[str], dimension: int = 2) -> list[bytes]:
    url = await nursery.start(responder.run)
    http = HttpClient()
    embedder = OpenAiEmbedder(http, f"{url}/v1/", "small", dimension, KEY)
    assert KEY not in repr(embedder)
    assert embedder.state == "ready"
    try:
        return await embedder.embed(texts)
    finally:
        await http.aclose()


async def test_vectors_come_in_the_order_of_the_texts_and_have_length_one(nursery: trio.Nursery) -> None:
    responder = Responder(answering)
    (one, two) = await embedded(nursery, responder, ["a", "bb"])
    assert struct.unpack("<2f", one) == pytest.approx((0.6, 0.8))
    assert struct.unpack("<2f", two) == pytest.approx((3 / 73**0.5, 8 / 73**0.5))
    (asked,) = responder.asked
    assert (asked.method, asked.target) == ("POST", "/v1/embeddings")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert json.loads(asked.body) == {"model": "small", "input": ["a", "bb"], "encoding_format": "float"}


async def test_many_texts_are_asked_for_in_batches(nursery: trio.Nursery) -> None:
    responder = Responder(answering)
    assert len(await embedded(nursery, responder, ["text"] * 130)) == 130
    assert [len(json.loads(asked.body)["input"]) for asked in responder.asked] == [64, 64, 2]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b'{"error": {"message": "Incorrect API key provided: sk-never-shown"}}'),
        (429, b"{}"),
        (200, b"not json"),
        (200, b'{"data": []}'),
        (200, b'{"data": [{"index": 0, "embedding": [1.0]}]}'),
        (200, b'{"data": [{"index": 0, "embedding": [0.0, 0.0]}]}'),
        (200, b'{"data": [{"index": 1, "embedding": [1.0, 0.0]}]}'),
        (200, b'{"data": [{"index": 0, "embedding": [1e999, 0.0]}]}'),
        (200, b" " * 200_000),
    ],
)
async def test_what_is_no_vector_is_told_as_unavailable_without_secrets(
    nursery: trio.Nursery, status: int, body: bytes
) -> None:
    async def answer(asked: Asked) -> Answer:
        return status, {"content-type": "application/json"}, body

    with pytest.raises(EmbedderUnavailable) as refused:
        await embedded(nursery, Responder(answer), ["a"])
    assert KEY not in str(refused.value)


async def test_a_server_that_hangs_is_given_up_after_20_seconds(autojump_clock: object) -> None:
    class Hanging:
        async def request(self, *parts: object, **named: object) -> None:
            await trio.sleep_forever()

    embedder = OpenAiEmbedder(Hanging(), "http://there", "small", 2)  # type: ignore[arg-type]  # only `request` is used
    began = trio.current_time()
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed(["a"])
    assert trio.current_time() - began == pytest.approx(20.0)


def test_a_launch_file_must_say_which_server_and_model() -> None:
    told = EmbedderLaunch(kind="openai", url="http://127.0.0.1:1/v1", model="small")
    launch = LaunchFile(
        session_id="s",
        launch_token="t",
        port=1,
        data_dir="d",
        hotkey_file="h",
        controller_public_key="00" * 32,
        embedder=told,
    )
    with pytest.raises(LaunchFileError, match="dimension"):
        check(launch)
