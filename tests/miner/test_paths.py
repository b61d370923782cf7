"""A node's paths have one reading, and no body that it does not take holds up its loop."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engram.clock import SeededIds, SystemClock
from engram.http.authority import MOST_BYTES, MOST_NAMES
from engram.miner.app import make_app
from tests.http.harness import SETTINGS, Raw, connect, get, post
from tests.http.harness import serving as listening
from tests.miner.nodes import serving
from tests.miner.operations import POSTED


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Raw]:
    async with serving(tmp_path) as service:
        app = make_app(service, settings=SETTINGS, clock=SystemClock(), ids=SeededIds(5), metrics=service.metrics)
        async with listening(app) as running, connect(running) as client:
            yield client


@pytest.mark.parametrize(
    "path", ["//health", "//stats", "//metagraph", "/retrieve%2Fx", "//retrieve/x", "/metagraph//"]
)
async def test_a_path_is_not_read_as_another_one(node: Raw, path: str) -> None:
    answer = await node.ask(get(path))
    assert (answer.status, answer.code) == (404, "not_found")
    assert "location" not in answer.headers


async def test_no_endpoint_that_is_posted_to_has_a_second_spelling(node: Raw) -> None:
    for path in POSTED:
        for spelled in (f"/{path}", f"{path}//", f"{path}%2f", f"/%2f{path[1:]}"):
            assert (await node.ask(post(b"{}", spelled))).status == 404, spelled


async def test_names_of_clients_have_whatever_slashes(node: Raw) -> None:
    answer = await node.ask(get("/attestation/a%2F%2Fb"))
    assert (answer.status, answer.json()["namespace"]) == (200, "a//b")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{" + b" " * MOST_BYTES + b"}", 413, "body_too_large"),
        (b"{" + b",".join(b'"k%d":1' % number for number in range(MOST_NAMES + 1)) + b"}", 400, "too_many_fields"),
    ],
)
async def test_a_large_body_that_is_not_taken_is_not_read(node: Raw, body: bytes, status: int, code: str) -> None:
    answer = await node.ask(post(body, "/metagraph").replace(b"POST", b"GET", 1))
    assert (answer.status, answer.code) == (status, code)
