"""What a look at a proxy finds: whether it stands for the hotkey, and what it offers."""

import msgspec
import pytest

from engram.hotkeys import PublicKey
from engram.http.client import HttpClient, Response
from engram.kit.inspection import Finding, Inspection, Question, capacity_shape
from tests.proxy.backends import answer, backend, closed_port
from tests.proxy.harness import Proxied, proxying, settings_for
from tests.proxy.signing import ALICE, BOB, EVE


async def found(proxied: Proxied, hotkey: PublicKey) -> dict[str, Finding]:
    http = HttpClient()
    seen = await Inspection(proxied.url, hotkey, ALICE, http).run(Question())
    await http.aclose()
    return {each.what: each for each in [*seen.reach, *seen.work, *seen.signatures]}


async def test_a_proxy_of_another_hotkey_is_found_out() -> None:
    async with backend(answer()) as servers, proxying(settings_for(servers.port)) as proxied:
        own, other = await found(proxied, BOB.public_key), await found(proxied, EVE.public_key)
    assert (own["answers"].good, own["/check"].good, own["/capacity"].good) == (True, True, True)
    assert not other["/check"].good
    assert "(404): set auth.miner_hotkey, or MINER_HOTKEY" in other["/check"].words
    assert not other["/capacity"].good


async def test_a_backend_that_answers_past_the_proxy_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.kit.inspection.is_public_host", lambda host: True)
    async with backend(answer()) as servers, proxying(settings_for(servers.port)) as proxied:
        for port, good in ((servers.port, False), (closed_port(), True)):
            monkeypatch.setattr("engram.kit.inspection.BACKEND_PORT", port)
            seen = (await found(proxied, BOB.public_key))["backends"]
            assert (seen.good, f"127.0.0.1:{port}" in seen.words) == (good, True)


@pytest.mark.parametrize(
    ("content", "shape"),
    [
        ({"inference": ["a"], "training": []}, "lists"),
        ({"a": True, "b": False}, "booleans"),
        ({"a": 1}, ""),
        ({"a": True, "b": []}, ""),
        ([], ""),
    ],
)
def test_a_capacity_has_one_of_two_shapes(content: object, shape: str) -> None:
    assert capacity_shape(Response(200, {}, msgspec.json.encode(content))) == shape
    assert capacity_shape(Response(200, {}, b"<html>")) == ""
