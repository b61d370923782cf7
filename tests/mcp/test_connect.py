"""The bridge between standard input and a server: one line an answer, and tokens that the server's clock takes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from engram.clock import ManualClock, SeededIds
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.mcp import tokens
from engram.mcp.connect import Bridge
from engram.mcp.rules import read
from tests.mcp.test_client import Serve, Server, http, result
from tests.mcp.toys import request

NOW = 1_900_000_000.0
KEY = Keypair.from_seed(bytes([1]) * 32)
LINE = request("tools/list")
REFUSED = b'{"error":"no","code":"busy"}'


@asynccontextmanager
async def bridge(serve: Serve) -> AsyncIterator[tuple[Bridge, Server]]:
    server, outbound = Server(serve), HttpClient()
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, server.handle, [listener])
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/mcp"
        with trio.fail_after(20):
            yield Bridge(url, KEY, outbound, ManualClock(NOW), SeededIds(1)), server
        await outbound.aclose()
        nursery.cancel_scope.cancel()


async def test_an_answer_is_one_line_however_the_server_spaced_it() -> None:
    async def serve(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
        await stream.send_all(http("200 OK", msgspec.json.format(result(message), indent=2)))

    async with bridge(serve) as (one, _):
        answer = await one.respond(LINE, read(LINE))
    assert answer is not None
    assert b"\n" not in answer
    assert msgspec.json.decode(answer)["result"]["structuredContent"] == {"n": 41}


async def test_a_server_that_has_just_started_is_asked_again_with_another_token() -> None:
    async def serve(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
        refused = len(server.received) < 3
        await stream.send_all(http("503 Service Unavailable", REFUSED) if refused else http("200 OK", result(message)))

    async with bridge(serve) as (one, server):
        answer = await one.respond(LINE, read(LINE))
    assert answer is not None
    assert "result" in msgspec.json.decode(answer)
    assert len({headers["authorization"] for _, headers in server.received}) == 3


async def test_a_server_that_stays_busy_is_an_error_of_the_request() -> None:
    async def serve(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
        await stream.send_all(http("503 Service Unavailable", REFUSED))

    async with bridge(serve) as (one, server):
        answer = await one.respond(LINE, read(LINE))
    assert answer is not None
    assert "status 503" in msgspec.json.decode(answer)["error"]["message"]
    assert len(server.received) == 4


@pytest.mark.parametrize("ahead_s", [-40, 40])
async def test_tokens_are_signed_by_the_server_s_clock_once_it_has_refused_one(
    ahead_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[int] = []
    mint = tokens.mint

    def minted(keypair: Keypair, claims: tokens.Claims) -> str:
        signed.append(claims.iat)
        return mint(keypair, claims)

    monkeypatch.setattr(tokens, "mint", minted)

    async def serve(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
        date = f"date: {formatdate(NOW + ahead_s, usegmt=True)}\r\n"
        refused = len(server.received) == 1
        answer = http("401 Unauthorized", REFUSED, more=date) if refused else http("200 OK", result(message))
        await stream.send_all(answer)

    async with bridge(serve) as (one, server):
        for _ in range(2):
            answer = await one.respond(LINE, read(LINE))
            assert answer is not None
            assert "result" in msgspec.json.decode(answer)
    assert signed == [int(NOW), int(NOW) + ahead_s, int(NOW) + ahead_s]


async def test_a_token_that_is_refused_for_another_reason_is_not_sent_again() -> None:
    async def serve(stream: trio.SocketStream, message: dict[str, Any], headers: dict[str, str]) -> None:
        date = f"date: {formatdate(NOW, usegmt=True)}\r\n"
        await stream.send_all(http("401 Unauthorized", REFUSED, more=date))

    async with bridge(serve) as (one, server):
        answer = await one.respond(LINE, read(LINE))
    assert answer is not None
    assert "status 401" in msgspec.json.decode(answer)["error"]["message"]
    assert len(server.received) == 1
