"""The end of the time to drain: what runs still is cut, and its client is told as far as that can be."""

import pytest
import trio

from engram.proxy.endings import in_words
from engram.proxy.settings.model import ProxySettings
from tests.proxy.backends import answer, backend
from tests.proxy.harness import calling, change, proxying, settings_for
from tests.proxy.signing import head, headers_of, signed


def hasty(port: int) -> ProxySettings:
    return change(settings_for(port), "server", drain_s=0.2)


async def test_a_request_that_outlasts_the_drain_is_told_that_its_outcome_is_unknown() -> None:
    async with backend("hang") as servers, proxying(hasty(servers.port)) as proxied, calling(proxied) as client:
        await client.send(signed("/inference"))
        await servers.began.wait()
        proxied.stop()
        got = await client.read()
        assert (got.status, got.json()["code"], got.headers["connection"]) == (503, "draining", "close")
        assert "may have been done, or not" in str(got.json()["error"])
        assert got.headers["retry-after"] == "5"
        assert await client.closed_within(5)
        ended = await proxied.end()
        assert (ended.code, ended.status, ended.sent_bytes) == ("draining", 503, len(got.body))
        assert ": the answer was 503, after" in in_words(ended)
        with trio.fail_after(5):
            await servers.closed.wait()


async def test_a_request_whose_body_outlasts_the_drain_was_not_begun() -> None:
    async with backend(answer()) as servers, proxying(hasty(servers.port)) as proxied, calling(proxied) as client:
        await client.send(head("POST", "/inference", 10, headers_of(b"x" * 10)) + b"x")
        with trio.fail_after(5):
            while not len(proxied.state.admission.addresses):
                await trio.lowlevel.checkpoint()
        proxied.stop()
        got = await client.read()
        assert (got.status, got.json()["code"], got.json()["error"]) == (503, "draining", "The miner is stopping")
        assert (await proxied.end()).code == "draining"
        assert servers.requests == 0


async def test_an_answer_that_outlasts_the_drain_is_cut_where_it_is() -> None:
    begun = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart"
    async with backend(begun, "hang") as servers, proxying(hasty(servers.port)) as proxied, calling(proxied) as client:
        await client.send(signed("/inference"))
        await client.read_until(b"part")
        proxied.stop()
        assert await client.closed_within(5)
        ended = await proxied.end()
        assert (ended.code, ended.status, ended.sent_bytes) == ("draining", 200, 4)


async def test_a_client_that_can_be_told_nothing_at_the_end_of_the_drain_was_sent_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> None:
        raise OSError("the client is gone")

    monkeypatch.setattr("engram.proxy.app.refuse", broken)
    async with backend("hang") as servers, proxying(hasty(servers.port)) as proxied, calling(proxied) as client:
        await client.send(signed("/inference"))
        await servers.began.wait()
        proxied.stop()
        ended = await proxied.end()
        assert (ended.code, ended.status, ended.sent_bytes) == ("draining", 499, 0)
        assert ": no answer was sent, after" in in_words(ended)
