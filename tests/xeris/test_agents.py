"""What the receiver shows to agents: tools and resources over MCP on a real server, tokens, live events."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from config.model import HttpSettings
from engram.clock import ManualClock, SeededIds
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.ledger import LedgerUnavailable, open_inline
from engram.mcp import ToolFailed, tokens
from engram.mcp.access import Policy
from engram.mcp.connect import Bridge
from engram.mcp.model import LOCAL, Scope
from engram.mcp.revocation import RevocationFile
from engram.mcp.rules import read
from engram.mcp.tokens import Claims
from engram.xeris.agent_handlers import Agents
from engram.xeris.agents import catalog
from engram.xeris.app import xeris_app
from tests.http.asgi_client import AsgiClient
from tests.http.harness import Running, serving
from tests.mcp.toys import NEW, call, request
from tests.xeris.test_judging import NOW, ONE, STRANGER, memory, scores
from tests.xeris.test_pages import keep
from tests.xeris.test_receiver import Bench

READ: frozenset[Scope] = frozenset({"read"})
JSON = {"content-type": "application/json"}


async def test_who_names_no_subnet_means_the_first_that_the_receiver_serves() -> None:
    ledger = open_inline()
    offered, caller = catalog(ledger, (7, 450)), LOCAL
    latest = next(tool for tool in offered.tools if tool.name == "latest")
    with pytest.raises(ToolFailed, match="of subnet 7"):
        await latest.run(latest.takes(), caller)
    with pytest.raises(ToolFailed, match="of subnet 450"):
        await latest.run(latest.takes(netuid=450), caller)
    ledger.write_now(lambda c: keep(c, 1, 10))
    for served, items in (((450, 7), 1), ((7, 450), 0)):
        search = next(tool for tool in catalog(ledger, served).tools if tool.name == "search")
        assert len((await search.run(search.takes(), caller)).items) == items
    ledger.close()


class Receiver(Bench):
    """A receiver with agents, on a real socket."""

    def __init__(self, folder: Path, policy: Policy) -> None:
        super().__init__()
        self.revoked = folder / "revoked.json"
        self.app = xeris_app(
            self.receiver,
            self.ledger,
            settings=HttpSettings(requests_per_minute_per_ip=0),
            clock=self.clock,
            ids=SeededIds(1),
            metrics=self.metrics,
            agents=Agents(catalog(self.ledger, (450,)), policy, RevocationFile(self.revoked)),
        )
        self.client = AsgiClient(self.app)
        self.http = HttpClient()
        self.running: Running

    async def mcp(
        self, line: bytes, *, method: str = "POST", path: str = "/mcp", **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        sent = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://127.0.0.1:{self.running.port}{path}"
        found = await self.http.request(method, url, content=line, headers=sent, max_bytes=10_000_000)
        return found.status, found.headers, msgspec.json.decode(found.content) if found.content else None

    async def tool(self, name: str, **arguments: Any) -> Any:
        _, _, answer = await self.mcp(call(name, arguments))
        return answer["result"]

    def token(self, keypair: Keypair = STRANGER, body: bytes | None = None, **changed: Any) -> str:
        now = int(self.clock.now())
        fields: dict[str, Any] = {
            "key": keypair.ss58,
            "aud": f"127.0.0.1:{self.running.port}",
            "scope": ("read",),
            "iat": now,
            "exp": now + 60,
            "id": "a" * 32,
        }
        if body is not None:
            fields["body"] = hashlib.sha256(body).hexdigest()
        return tokens.mint(keypair, Claims(**(fields | changed)))


@asynccontextmanager
async def receiver(folder: Path, policy: Policy | None = None) -> AsyncIterator[Receiver]:
    made = Receiver(folder, policy or Policy(loopback=READ, signed=READ, permitted=lambda _: True))
    async with serving(made.app) as running:
        made.running = running
        yield made
        await made.http.aclose()
    made.ledger.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Receiver]:
    async with receiver(tmp_path) as made:
        await made.permit(1000, ONE)
        yield made


async def test_agents_search_and_get_what_was_accepted(bench: Receiver) -> None:
    _, accepted = await bench.post(scores())
    await bench.post(memory())
    found = (await bench.tool("search", limit=1))["structuredContent"]
    assert [item["kind"] for item in found["items"]] == ["memory"]
    assert "document" not in found["items"][0]
    after = (await bench.tool("search", before=found["next"]))["structuredContent"]
    assert [(item["kind"], after["next"]) for item in after["items"]] == [("scores", None)]
    for narrowed, kinds in (
        ({"kind": "scores"}, ["scores"]),
        ({"signer": ONE.ss58, "to_block": 1000}, ["memory", "scores"]),
        ({"from_block": 5_000_000}, []),
        ({"anchored": True}, []),
        ({"anchored": False, "kind": "memory"}, ["memory"]),
        ({"netuid": 1}, []),
    ):
        items = (await bench.tool("search", **narrowed))["structuredContent"]["items"]
        assert [item["kind"] for item in items] == kinds, narrowed
    one = (await bench.tool("get", signed_hash=accepted["signed_hash"]))["structuredContent"]
    assert (one["state"], one["anchor"], one["document"]["kind" if "kind" in one["document"] else "netuid"]) == (
        "accepted",
        None,
        450,
    )
    latest = (await bench.tool("latest", kind="scores"))["structuredContent"]
    assert latest == one


async def test_what_is_not_there_is_for_the_agent_to_read(bench: Receiver) -> None:
    for result in (
        await bench.tool("get", signed_hash="0" * 64),
        await bench.tool("get", signed_hash="short"),
        await bench.tool("latest", kind="memory"),
        await bench.tool("search", signer="nobody"),
        await bench.tool("search", limit=1_000),
    ):
        assert result["isError"] is True


async def test_outputs_are_resources_by_subnet(bench: Receiver) -> None:
    await bench.post(scores())
    _, _, listed = await bench.mcp(request("resources/list"))
    [uri] = [each["uri"] for each in listed["result"]["resources"]]
    _, _, found = await bench.mcp(request("resources/read", {"uri": uri}))
    assert msgspec.json.decode(found["result"]["contents"][0]["text"])["items"][0]["kind"] == "scores"
    _, _, found = await bench.mcp(request("resources/read", {"uri": f"{uri}/scores"}))
    assert msgspec.json.decode(found["result"]["contents"][0]["text"])["netuid"] == 450
    for unknown in (f"{uri}/memory", "engram://intelligence/7", "engram://intelligence/x", "file:///etc/passwd"):
        _, _, answer = await bench.mcp(request("resources/read", {"uri": unknown}))
        assert answer["error"]["code"] == -32002


async def test_a_ledger_that_does_not_answer_is_never_told_as_a_resource_that_is_not_there(
    bench: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.post(scores())

    async def away(query: object) -> None:
        raise LedgerUnavailable("the server is away")

    monkeypatch.setattr(bench.ledger, "read", away)
    for uri in ("engram://intelligence/450", "engram://intelligence/450/scores"):
        _, _, answer = await bench.mcp(request("resources/read", {"uri": uri}))
        assert answer["error"]["code"] == -32603
        assert "try again" in answer["error"]["message"]
    for name, arguments in (("search", {}), ("latest", {}), ("get", {"signed_hash": "0" * 64})):
        result = await bench.tool(name, **arguments)
        assert result["isError"] is True
        assert "try again" in result["content"][0]["text"]


@pytest.mark.parametrize("aud", ["\N{SNOWMAN}", "a\r\nx-evil: 1", "a\x00b", 'a"b\\', "é"])
async def test_whatever_a_token_says_of_its_server_is_refused_and_breaks_no_header(bench: Receiver, aud: str) -> None:
    status, headers, answer = await bench.mcp(request("tools/list"), authorization=f"Bearer {bench.token(aud=aud)}")
    assert (status, answer["code"]) == (401, "invalid_token")
    assert "x-evil" not in headers
    challenge = headers["www-authenticate"]
    assert challenge.isascii()
    assert challenge.count('"') == 6
    assert "\\" not in challenge


async def test_media_types_may_come_in_several_lines(bench: Receiver) -> None:
    body = request("tools/list")
    head = f"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:{bench.running.port}\r\ncontent-type: application/json\r\n"
    head += "accept: text/event-stream\r\naccept: application/json\r\nconnection: close\r\n"
    stream = await trio.open_tcp_stream("127.0.0.1", bench.running.port)
    await stream.send_all(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
    await stream.aclose()


async def test_both_wires_are_served_at_one_path(bench: Receiver) -> None:
    headers = {"mcp_protocol_version": NEW, "mcp_method": "tools/list"}
    status, _, answer = await bench.mcp(request("tools/list", new=True), **headers)
    assert (status, answer["result"]["cacheScope"]) == (200, "public")
    status, _, answer = await bench.mcp(request("nothing", new=True), **(headers | {"mcp_method": "nothing"}))
    assert (status, answer["error"]["code"]) == (404, -32601)
    status, _, answer = await bench.mcp(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
    assert (status, answer) == (202, None)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_there_is_no_stream_and_no_session(bench: Receiver, method: str) -> None:
    status, headers, _ = await bench.mcp(b"", method=method)
    assert (status, headers["allow"]) == (405, "POST")


async def test_what_is_wrong_with_a_request_has_its_own_status(bench: Receiver) -> None:
    line = request("tools/list")
    assert (await bench.mcp(line, host="evil.example"))[0] == 421
    assert (await bench.mcp(line, origin="https://evil.example"))[0] == 403
    assert (await bench.mcp(line, content_type="text/plain"))[0] == 415
    assert (await bench.mcp(line, accept="text/event-stream"))[0] == 406
    assert (await bench.mcp(b"[%s]" % line))[0] == 400
    assert (await bench.mcp(b"{"))[0] == 400
    status, headers, _ = await bench.mcp(line, x_forwarded_for="8.8.8.8")
    assert status == 401
    assert headers["www-authenticate"].startswith('Bearer realm="engram-mcp"')


async def test_a_request_of_100_mb_is_refused_by_its_length(bench: Receiver) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", bench.running.port)
    await stream.send_all(
        b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 104857600\r\n\r\n"
    )
    with trio.fail_after(5):
        answer = await stream.receive_some()
    assert answer.startswith(b"HTTP/1.1 413")
    await stream.aclose()


async def test_a_request_without_an_end_is_refused_at_the_bound(bench: Receiver) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", bench.running.port)
    await stream.send_all(
        b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    sent = 0

    async def send() -> None:
        nonlocal sent
        with suppress(trio.BrokenResourceError):
            while sent < 100_000_000:
                await stream.send_all(b"10000\r\n" + b" " * 65_536 + b"\r\n")
                sent += 65_536

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        with trio.fail_after(10):
            answer = await stream.receive_some()
        nursery.cancel_scope.cancel()
    assert answer.startswith(b"HTTP/1.1 413")
    assert sent < 50_000_000
    await stream.aclose()


async def test_a_flood_of_handshakes_leaves_nothing_behind(bench: Receiver) -> None:
    begin = request("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}})
    for _ in range(50):
        _, headers, answer = await bench.mcp(begin)
        assert answer["result"]["protocolVersion"] == "2025-11-25"
        assert "mcp-session-id" not in headers


async def test_a_token_is_taken_until_its_signer_revokes_it(bench: Receiver) -> None:
    line, token = request("tools/list"), bench.token()
    bearer = {"authorization": f"Bearer {token}"}
    assert (await bench.mcp(line, **bearer))[0] == 200
    body = msgspec.json.encode({"id": "a" * 32, "exp": int(bench.clock.now()) + 60})
    bench.clock.advance(10)
    revoke = {"path": "/mcp/revocations"}
    assert (await bench.mcp(body, **revoke, **bearer))[0] == 403, "the token itself revokes nothing"
    for_request = bench.token(body=body, scope=("revoke",), id="b" * 32)
    status, _, answer = await bench.mcp(body, **revoke, authorization=f"Bearer {for_request}")
    assert (status, answer) == (200, {"revoked": "a" * 32})
    assert (await bench.mcp(line, **bearer))[0] == 401
    other = bench.token(ONE, id="a" * 32)
    assert (await bench.mcp(line, authorization=f"Bearer {other}"))[0] == 200, "another key's token of that id"
    assert (await bench.mcp(b"{}", **revoke, authorization=f"Bearer {bench.token(body=b'{}', scope=('revoke',))}"))[
        0
    ] in (401, 422)


async def test_a_revocation_lasts_as_long_as_a_token_of_a_clock_that_is_ahead(bench: Receiver) -> None:
    """Revocations that are over are dropped when their file is written anew; the first after a start does that."""
    now = int(bench.clock.now())
    ahead: dict[str, Any] = {"iat": now + tokens.SKEW_S, "exp": now + tokens.SKEW_S + tokens.MAX_S}
    token, line = bench.token(**ahead), request("tools/list")
    bench.clock.advance(10)
    body = msgspec.json.encode({"id": "a" * 32, "exp": ahead["exp"]})
    for_request = bench.token(body=body, scope=("revoke",), id="b" * 32)
    assert (await bench.mcp(body, path="/mcp/revocations", authorization=f"Bearer {for_request}"))[0] == 200
    bench.clock.advance(tokens.MAX_S + 10)
    again = RevocationFile(bench.revoked)
    await again.revoke(ONE.public_key, "c" * 32, bench.clock.now() + 60, bench.clock.now())
    assert (await bench.mcp(line, authorization=f"Bearer {token}"))[0] == 401


async def test_revocations_are_limited_by_address_and_a_repeated_one_is_answered_as_the_first(bench: Receiver) -> None:
    bench.clock.advance(10)

    async def revoke(number: int) -> int:
        body = msgspec.json.encode({"id": f"{number % 20:032x}", "exp": int(bench.clock.now()) + 60})
        token = bench.token(Keypair.generate() if number > 20 else ONE, body, scope=("revoke",), id=f"{number:032x}")
        return (await bench.mcp(body, path="/mcp/revocations", authorization=f"Bearer {token}"))[0]

    assert {await revoke(number) for number in range(20)} == {200}
    assert await revoke(20) == 200, "kept already"
    assert await revoke(21) == 429, "another key, the same address"


async def test_only_permitted_keys_may_call_where_they_are_named(tmp_path: Path) -> None:
    policy = Policy(loopback=frozenset(), signed=READ, permitted=lambda key: key == ONE.public_key)
    async with receiver(tmp_path, policy) as bench:
        line = request("tools/list")
        assert (await bench.mcp(line))[0] == 401
        assert (await bench.mcp(line, authorization=f"Bearer {bench.token(STRANGER)}"))[0] == 403
        assert (await bench.mcp(line, authorization=f"Bearer {bench.token(ONE)}"))[0] == 200


async def test_the_bridge_signs_each_message(tmp_path: Path) -> None:
    policy = Policy(loopback=frozenset(), signed=READ, permitted=lambda key: key == ONE.public_key)
    async with receiver(tmp_path, policy) as bench:
        bench.clock.advance(10)
        url = f"http://127.0.0.1:{bench.running.port}/mcp"
        bridge = Bridge(url, ONE, bench.http, bench.clock, SeededIds(2))
        for line in (
            request("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}),
            request("tools/list"),
            request("tools/list", new=True),
            call("search", {"netuid": 450}, new=True),
        ):
            answer = await bridge.respond(line, read(line))
            assert answer is not None
            assert "result" in msgspec.json.decode(answer)
        notification = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
        assert await bridge.respond(notification, read(notification)) is None
        refused = msgspec.json.decode(await bridge.respond(b"{", None) or b"")
        assert refused["error"]["code"] == -32700
        stranger = Bridge(url, STRANGER, bench.http, bench.clock, SeededIds(3))
        line = request("tools/list")
        refused = msgspec.json.decode(await stranger.respond(line, read(line)) or b"")
        assert refused["id"] == 7
        assert "may not call" in refused["error"]["message"]


async def test_a_bridge_says_what_kind_of_url_it_needs() -> None:
    with pytest.raises(ValueError, match="http"):
        Bridge("agents.example/mcp", ONE, HttpClient(), ManualClock(NOW), SeededIds(1))


async def test_requests_are_measured_by_method_and_refusals_by_code(bench: Receiver) -> None:
    await bench.tool("search")
    await bench.mcp(request("tools/list"), host="evil.example")
    value = bench.metrics.registry.get_sample_value
    about = {"server": "external_intelligence", "method": "tools/call", "outcome": "ok"}
    assert value("engram_mcp_requests_total", about) == 1
    assert value("engram_mcp_requests_total", about | {"outcome": "failed"}) == 0
    assert value("engram_auth_refused_total", {"surface": "mcp", "code": "host"}) == 1


async def test_accepted_payloads_are_events_from_where_the_reader_left_off(bench: Receiver) -> None:
    await bench.post(scores())
    received: list[str] = []
    got = trio.Event()

    async def listen(last: str) -> None:
        headers = {"last-event-id": last} if last else {}
        url = f"http://127.0.0.1:{bench.running.port}/intelligence/events"
        async with bench.http.stream("GET", url, headers=headers) as answer:
            async for part in answer:
                received.append(part.decode())
                if "id: " in part.decode():
                    got.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, "")
        with trio.fail_after(5):
            await got.wait()
        got = trio.Event()
        await bench.post(memory())
        with trio.fail_after(5):
            await got.wait()
        nursery.cancel_scope.cancel()
    assert '"kind":"memory"' in "".join(received)
    assert '"kind":"scores"' not in "".join(received)
    received.clear()
    async with trio.open_nursery() as nursery:
        got = trio.Event()
        nursery.start_soon(listen, "0")
        with trio.fail_after(5):
            await got.wait()
        nursery.cancel_scope.cancel()
    assert '"kind":"scores"' in "".join(received)
