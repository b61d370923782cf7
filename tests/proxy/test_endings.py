"""How requests end: one code each, with the status that the documentation's table has for it."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from engram.hotkeys import epistula
from engram.proxy.authorization import Caller
from engram.proxy.endings import TABLE, Ended, in_words
from engram.proxy.health_checks import check
from engram.proxy.settings.model import AuthSettings, BodySettings, LimitSettings, ServerSettings
from tests.http.harness import Answer
from tests.http.origin import listen, read_head
from tests.proxy.backends import answer, backend, closed_port
from tests.proxy.harness import Chain, calling, proxying, settings_for
from tests.proxy.lint import linted
from tests.proxy.signing import ALICE, BOB, EVE, digest_of, head, headers_of, raw, signed


async def ending(
    request: bytes, *steps: bytes | str | None, chain: Chain | None = None, **sections: Any
) -> tuple[Answer, Ended]:
    """The answer to one request, and how it ended; the backend goes by these steps."""
    async with backend(*(steps or (answer(),))) as servers:
        sections = {"route": {}} | sections
        async with proxying(settings_for(servers.port, **sections), chain=chain) as proxied, calling(proxied) as client:
            got = await client.ask(request)
            ended = await proxied.end()
            if ended.code != "done":  # the answer is the proxy's own
                assert linted(got.status, got.headers, got.body) == []
                assert ("retry-after" in got.headers) == (got.status in (429, 503))
            return got, ended


async def code_of(request: bytes, *steps: bytes | str | None, **more: Any) -> tuple[str, int]:
    got, ended = await ending(request, *steps, **more)
    assert ended.status == got.status
    assert TABLE[ended.code].status in (got.status, 0)
    return ended.code, got.status


async def test_an_answer_is_done() -> None:
    assert await code_of(signed("/inference")) == ("done", 200)


async def test_the_proxys_own_answers() -> None:
    assert await code_of(raw("GET", "/")) == ("own", 200)
    assert await code_of(raw("GET", "/check/nobody")) == ("own_refused", 404)


async def test_unknown_paths_and_methods() -> None:
    assert await code_of(signed("/elsewhere")) == ("no_route", 404)
    got, ended = await ending(raw("GET", "/inference"))
    assert (ended.code, got.status, got.headers["allow"]) == ("wrong_method", 405, "POST")


@pytest.mark.parametrize(
    "path", ["//inference", "/x/../inference", "/%2e%2e/inference", "/inference%2f", "/inference;a"]
)
async def test_a_path_that_two_routers_could_read_differently_has_no_route(path: str) -> None:
    assert await code_of(signed(path)) == ("no_route", 404)


async def test_requests_that_are_not_signed_as_they_should_be() -> None:
    body = b"{}"
    assert await code_of(raw("POST", "/inference", body)) == ("unsigned", 401)
    for_eve = raw("POST", "/inference", body, headers_of(body, to=EVE.public_key))
    assert await code_of(for_eve) == ("wrong_receiver", 401)
    assert await code_of(raw("POST", "/inference", body, headers_of(body, ago_s=9))) == ("clock_skew", 401)
    assert await code_of(raw("POST", "/inference", b"[]", headers_of(body))) == ("bad_signature", 401)


async def test_a_replay_is_refused_on_the_same_and_on_another_path() -> None:
    async with (
        backend(answer()) as servers,
        proxying(settings_for(servers.port)) as proxied,
        calling(proxied) as client,
    ):
        body = b"{}"
        headers = headers_of(body)
        assert (await client.ask(raw("POST", "/inference", body, headers))).status == 200
        for path in ("/inference", "/train"):
            again = await client.ask(raw("POST", path, body, headers))
            assert (again.status, again.json()["code"]) == (401, "replay")
        assert servers.requests == 1
        assert (await proxied.end()).code == "replay"


async def test_a_caller_that_may_not_call_is_told_what_is_required() -> None:
    body = b"{}"
    request = raw("POST", "/inference", body, headers_of(body, by=EVE))
    assert await code_of(request) == ("refused", 403)
    poor = Chain((EVE.public_key, Caller(True, 999 * 10**9, 0, 5_000 * 10**9)))
    auth = AuthSettings(miner_hotkey=BOB.ss58, chain_endpoint="https://chain.invalid")
    got, ended = await ending(raw("POST", "/inference", body, headers_of(body, by=EVE)), chain=poor, auth=auth)
    assert (ended.code, got.status) == ("refused", 403)
    assert got.json() | {"request_id": ""} == {
        "detail": "Sender not allowed",
        "error": "Sender not allowed: a stake of more than 1000 alpha (auth.min_stake, from the default) is required, "
        "yours is 999",
        "code": "stake_too_low",
        "request_id": "",
        "stake": 999.0,
        "min_stake": 1000.0,
        "stake_unit": "alpha",
        "min_stake_source": "the default",
    }


@pytest.mark.parametrize(
    ("chain", "code"),
    [
        (None, "no_authority"),
        (Chain(), "not_registered"),
        (Chain((EVE.public_key, Caller(False, 0, 0, 0))), "no_permit"),
        (Chain((EVE.public_key, Caller(True, 0, 0, 0))), "stake_too_low"),
    ],
)
async def test_a_stranger_reads_the_text_of_its_scheme(chain: Chain | None, code: str) -> None:
    body = b"{}"
    endpoint = "https://chain.invalid" if chain else ""
    auth = AuthSettings(miner_hotkey=BOB.ss58, chain_endpoint=endpoint, schemes=("epistula-v2", "x-epistula"))
    for scheme, detail in ((epistula.V2, "Sender not allowed"), (epistula.X_EPISTULA, "Not a validator")):
        request = raw("POST", "/inference", body, headers_of(body, by=EVE, scheme=scheme))
        got, _ = await ending(request, chain=chain, auth=auth)
        assert (got.status, got.json()["detail"], got.json()["code"]) == (403, detail, code)


async def test_an_old_metagraph_authorizes_no_one_but_the_allow_list() -> None:
    old = Chain((EVE.public_key, Caller(True, 9_999 * 10**9, 0, 0)), age_s=3_601)
    auth = AuthSettings(miner_hotkey=BOB.ss58, chain_endpoint="https://x.invalid", allowed_senders=(ALICE.ss58,))
    body = b"{}"
    got, ended = await ending(raw("POST", "/inference", body, headers_of(body, by=EVE)), chain=old, auth=auth)
    assert (ended.code, got.status) == ("chain_stale", 503)
    assert got.headers["retry-after"] == "5"
    assert await code_of(signed("/inference"), chain=old, auth=auth) == ("done", 200)


async def two_endings(limits: LimitSettings, *, first: bytes, second: bytes) -> tuple[Answer, Ended]:
    """The second of two requests, while the first one is in progress."""
    async with (
        backend("wait", answer()) as servers,
        proxying(settings_for(servers.port, limits=limits)) as proxied,
        calling(proxied) as one,
        calling(proxied) as two,
    ):
        await one.send(first)
        await servers.began.wait()
        got = await two.ask(second)
        ended = proxied.ends[0]
        servers.go_on.set()
        assert (await one.read()).status == 200
        return got, ended


OFF: dict[str, Any] = {"requests_per_minute_per_address": 0, "requests_per_minute_per_key": 0}


async def test_a_caller_that_is_too_fast() -> None:
    limits = LimitSettings(requests_per_minute_per_address=0, requests_per_minute_per_key=6)
    async with (
        backend(answer()) as servers,
        proxying(settings_for(servers.port, limits=limits)) as proxied,
        calling(proxied) as client,
    ):
        for _ in range(10):
            assert (await client.ask(signed("/inference"))).status == 200
        got = await client.ask(signed("/inference"))
        ended = await proxied.end()
        assert (ended.code, got.status, got.json()["code"]) == ("rate", 429, "rate_key")
        assert 0 < int(got.headers["retry-after"]) <= 10


async def test_a_caller_with_too_many_in_progress_is_told_the_limit_how_many_and_since_when() -> None:
    got, ended = await two_endings(
        LimitSettings(concurrent_per_key=1, **OFF), first=signed("/inference"), second=signed("/inference")
    )
    assert (ended.code, got.status, got.json()["code"]) == ("concurrency", 429, "concurrency_key")
    assert (got.json()["limit"], got.json()["in_progress"]) == (1, 1)
    assert "oldest_s" in got.json()
    assert "retry-after" in got.headers


async def test_an_address_that_is_too_fast_uses_up_no_limit_of_the_key_that_it_claims() -> None:
    limits = LimitSettings(requests_per_minute_per_address=6, requests_per_minute_per_key=6)
    body = b"{}"
    async with (
        backend(answer()) as servers,
        proxying(settings_for(servers.port, limits=limits)) as proxied,
        calling(proxied) as client,
        calling(proxied, "127.0.0.2") as validator,
    ):
        for _ in range(10):
            assert (await client.ask(raw("POST", "/inference", b"[]", headers_of(body)))).status == 401
        for request in (raw("POST", "/inference", b"[]", headers_of(body)), signed("/inference")):
            got = await client.ask(request)
            assert (got.status, got.json()["code"]) == (429, "rate_address")
            assert 0 < int(got.headers["retry-after"]) <= 10
        assert proxied.ends[-1].code == "rate"
        for _ in range(10):
            assert (await validator.ask(signed("/inference"))).status == 200


async def test_an_address_with_too_many_unproven_requests_takes_no_place_of_others() -> None:
    limits = LimitSettings(concurrent_per_address=1, **OFF)
    body = b"x" * 100
    async with (
        backend(answer()) as servers,
        proxying(settings_for(servers.port, limits=limits)) as proxied,
        calling(proxied) as slow,
        calling(proxied) as client,
        calling(proxied, "127.0.0.2") as validator,
    ):
        await slow.send(head("POST", "/inference", 100, headers_of(body)) + body[:10])
        with trio.fail_after(5):
            while not len(proxied.state.admission.addresses):
                await trio.lowlevel.checkpoint()
        got = await client.ask(signed("/inference"))
        assert (got.status, got.json()["code"]) == (429, "concurrency_address")
        assert (got.json()["limit"], got.json()["in_progress"]) == (1, 1)
        assert "retry-after" in got.headers
        assert (await validator.ask(signed("/inference"))).status == 200
        await slow.send(body[10:])
        assert (await slow.read()).status == 200
        assert (await client.ask(signed("/inference"))).status == 200, "its place is free again"
        assert proxied.in_progress == 0


async def test_a_full_queue_and_one_that_takes_too_long() -> None:
    full = LimitSettings(concurrent=1, queue=0, **OFF)
    got, ended = await two_endings(full, first=signed("/inference"), second=signed("/inference"))
    assert (ended.code, got.status) == ("queue_full", 503)
    assert got.headers["retry-after"] == "10", "no place was ever given back: by then no one waits who waits now"
    late = LimitSettings(concurrent=1, queue=5, queue_s=0.05, **OFF)
    got, ended = await two_endings(late, first=signed("/inference"), second=signed("/inference"))
    assert (ended.code, got.status) == ("queue_late", 503)
    assert "retry-after" in got.headers


async def test_a_full_table_of_callers_refuses_and_forgets_no_one() -> None:
    limits = LimitSettings(requests_per_minute_per_address=0, requests_per_minute_per_key=6, callers=16)
    async with backend(answer()) as servers, proxying(settings_for(servers.port, limits=limits)) as proxied:
        now = trio.current_time()
        for number in range(16):
            assert proxied.state.admission.key_rates.take(number, now) == 0.0
        async with calling(proxied) as client:
            got = await client.ask(signed("/inference"))
            ended = await proxied.end()
            assert (ended.code, got.status) == ("callers_full", 503)


async def test_a_full_memory_for_replays() -> None:
    async with backend(answer()) as servers, proxying(settings_for(servers.port)) as proxied:
        proxied.planner._replays._bound = 1
        async with calling(proxied) as client:
            assert (await client.ask(signed("/inference"))).status == 200
            got = await client.ask(signed("/inference"))
            ended = await proxied.end()
            assert (ended.code, got.status) == ("replays_full", 503)


async def test_heads_that_are_bad_too_large_or_too_slow() -> None:
    server = ServerSettings(host="127.0.0.1", port=0, header_timeout_s=0.3, idle_timeout_s=0.3, max_header_bytes=2_048)
    bad = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert await code_of(bad, server=server) == ("bad_request", 400)
    assert await code_of(raw("GET", "/", b"", {"X": "y" * 3_000}), server=server) == ("head_too_large", 431)
    assert await code_of(b"GET / HTTP/1.1\r\nHo", server=server) == ("head_late", 408)


async def test_bodies_that_are_too_slow_or_too_large() -> None:
    server = ServerSettings(host="127.0.0.1", port=0, body_timeout_s=0.3)
    body = b"x" * 100
    slow = head("POST", "/inference", 100, headers_of(body)) + body[:10]
    assert await code_of(slow, server=server) == ("body_late", 408)
    large = head("POST", "/inference", 101, headers_of(b"x" * 101))
    assert await code_of(large, bodies=BodySettings(max_bytes=100)) == ("body_too_large", 413)
    chunked = ["POST /inference HTTP/1.1", "Host: m", "Transfer-Encoding: chunked"]
    chunked += [f"{name}: {value}" for name, value in headers_of(b"x" * 101).items()]
    grown = "\r\n".join([*chunked, "", ""]).encode() + b"65\r\n" + b"x" * 101 + b"\r\n0\r\n\r\n"
    assert await code_of(grown, bodies=BodySettings(max_bytes=100)) == ("body_too_large", 413)


async def test_a_body_that_ends_before_its_length_is_the_clients_leaving() -> None:
    async with backend(answer()) as servers, proxying(settings_for(servers.port)) as proxied:
        async with calling(proxied) as client:
            body = b"x" * 100
            await client.send(head("POST", "/inference", 100, headers_of(body)) + body[:10])
            await client.stream.send_eof()
            assert (await client.read()).status == 400
        ended = await proxied.end()
        assert (ended.code, ended.status) == ("client_gone_body", 499)
        assert servers.requests == 0


@pytest.mark.parametrize("size", [100, 300_000])
async def test_a_body_that_is_not_the_one_its_digest_names(size: int) -> None:
    body, other = b"x" * size, b"y" * size
    headers = headers_of(body) | {"Content-Digest": digest_of(body)}
    code, status = await code_of(raw("POST", "/inference", other, headers), "hang")
    assert (code, status) == ("digest_mismatch", 400)


async def test_a_digest_that_is_none_is_a_bad_request() -> None:
    body = b"{}"
    request = raw("POST", "/inference", body, headers_of(body) | {"Content-Digest": "sha-256=?"})
    assert await code_of(request) == ("bad_request", 400)


async def test_no_room_for_a_body() -> None:
    body = b"x" * 2_000
    small = BodySettings(memory_bytes=1_000, spool_bytes=3_000)
    assert await code_of(raw("POST", "/inference", body, headers_of(body)), bodies=small) == ("spool_full", 503)


async def test_backends_that_cannot_be_reached_or_do_not_answer() -> None:
    port = closed_port()
    async with proxying(settings_for(port)) as proxied, calling(proxied) as client:
        got = await client.ask(signed("/inference"))
        assert got.json()["detail"] == "Error connecting to backend service"
        assert ((await proxied.end()).code, got.status) == ("not_connected", 502)
    assert await code_of(signed("/inference"), "close") == ("backend_cut", 502)
    assert await code_of(signed("/inference"), "reset") == ("backend_cut", 502)
    assert await code_of(signed("/inference"), b"SSH-2.0-x\r\n", "hang") == ("backend_garbage", 502)
    oversized = b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000
    assert await code_of(signed("/inference"), oversized, "hang") == ("backend_garbage", 502)
    assert await code_of(signed("/inference"), "hang", route={"first_byte_s": 0.1}) == ("first_byte_late", 504)
    late = {"first_byte_s": 5.0, "total_s": 0.1}
    assert await code_of(signed("/inference"), "hang", route=late) == ("total_late", 504)


async def test_a_backend_whose_connections_are_all_in_use_is_busy_and_not_at_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engram.proxy.health_checks._WAIT_S", 0.05)
    only = {"connections": 1, "breaker_failures": 1, "failures": 1, "max_ejected": 1.0}
    async with (
        backend("wait", answer()) as servers,
        proxying(settings_for(servers.port, backend=only, route={"connect_s": 0.05})) as proxied,
        calling(proxied) as one,
        calling(proxied) as two,
    ):
        await one.send(signed("/inference"))
        await servers.began.wait()
        got = await two.ask(signed("/inference"))
        assert ((await proxied.end()).code, got.status) == ("backend_full", 503)
        assert got.headers["retry-after"] == "1"
        named = f"127.0.0.1:{servers.port}"
        assert named not in got.body.decode()
        assert named in proxied.ends[-1].detail, "the operator learns which"
        group = proxied.state.plan.groups["servers"]
        assert (group.breaker_word, group.words()[0][1]) == ("closed", "serving")
        assert await check(group, group.servers[0]) == "", "a check that finds no place says nothing"
        servers.go_on.set()
        assert (await one.read()).status == 200


async def test_a_backend_that_fails_too_often_is_left_alone() -> None:
    port = closed_port()
    async with proxying(settings_for(port, backend={"breaker_failures": 2})) as proxied, calling(proxied) as client:
        for _ in range(2):
            assert (await client.ask(signed("/inference"))).status == 502
        got = await client.ask(signed("/inference"))
        assert ((await proxied.end()).code, got.status) == ("breaker_open", 503)
        assert "retry-after" in got.headers


async def test_a_backend_that_takes_no_more_of_a_body() -> None:
    body = b"x" * 20_000_000

    async def never_reads(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, never_reads, listeners)
        port = listeners[0].socket.getsockname()[1]
        stuck = settings_for(port, route={"idle_s": 0.3}, backend={"breaker_failures": 1})
        async with proxying(stuck) as proxied, calling(proxied) as client:
            got = await client.ask(raw("POST", "/inference", body, headers_of(body, digest=True)))
            assert ((await proxied.end()).code, got.status) == ("upload_stuck", 504)
            assert proxied.state.plan.groups["servers"].breaker_word == "open", "it is the server's failure"
        nursery.cancel_scope.cancel()


CUT = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n8\r\npart",
]


@pytest.mark.parametrize(("last", "code"), [("close", "upstream_cut"), ("hang", "idle_late")])
@pytest.mark.parametrize("reply", CUT, ids=["length", "chunks", "half a chunk"])
async def test_a_cut_stream_does_not_look_whole(reply: bytes, last: str, code: str) -> None:
    async with (
        backend(reply, last) as servers,
        proxying(settings_for(servers.port, route={"idle_s": 0.2})) as proxied,
        calling(proxied) as client,
    ):
        await client.send(signed("/inference"))
        received = b""
        with trio.fail_after(5):
            while chunk := await client.stream.receive_some(65_536):
                received += chunk
        assert b"part" in received
        assert not received.endswith(b"0\r\n\r\n")
        ended = await proxied.end()
        assert (ended.code, ended.status) == (code, 200)


CLOSED = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("reply", "code", "status"),
    [
        (b"", "backend_cut", 502),
        (b"HTTP/1.1 200 OK\r\nx", "backend_cut", 502),
        (answer(b"whole"), "done", 200),
        (CLOSED + b"whole", "done", 200),
        (CUT[0], "upstream_cut", 200),
        (CUT[1], "upstream_cut", 200),
    ],
    ids=["nothing", "half a head", "whole", "until its end", "length", "chunks"],
)
async def test_a_backend_that_closes_its_half_gives_what_is_whole_and_its_connection_is_not_used_again(
    reply: bytes, code: str, status: int
) -> None:
    async with backend(reply, "eof", "hang") as servers, proxying(settings_for(servers.port)) as proxied:
        for turn in (1, 2):
            async with calling(proxied) as client:
                await client.send(signed("/inference"))
                if code == "upstream_cut":
                    assert await client.closed_within(5)
                else:
                    got = await client.read()
                    assert (got.status, got.body == b"whole") == (status, code == "done")
                await proxied.ended(turn)
                assert proxied.ends[-1].code == code
            assert servers.connections == turn
        with trio.fail_after(5):
            await servers.closed.wait()
        assert proxied.in_progress == 0


async def test_a_backend_that_drips_is_cut_when_the_whole_time_is_over() -> None:
    dripping = (b"HTTP/1.1 200 OK\r\n", "drip")
    assert await code_of(signed("/inference"), *dripping, route={"first_byte_s": 5.0, "total_s": 0.1}) == (
        "total_late",
        504,
    )
    assert await code_of(signed("/inference"), *dripping, route={"first_byte_s": 0.1}) == ("first_byte_late", 504)
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    async with (
        backend(chunked, "trickle") as servers,
        proxying(settings_for(servers.port, route={"idle_s": 5.0, "total_s": 0.2})) as proxied,
        calling(proxied) as client,
    ):
        await client.send(signed("/inference"))
        await client.read_until(b"x" * 32)
        assert await client.closed_within(2)
        ended = await proxied.end()
        assert (ended.code, ended.status) == ("total_late", 200)
        assert proxied.state.plan.groups["servers"].words()[0][3], "it is the server's failure"
        with trio.fail_after(2):
            await servers.closed.wait()
        assert proxied.in_progress == 0


async def test_a_client_that_reads_too_slowly_for_the_whole_time_is_no_failure_of_its_backend() -> None:
    part, closed = b"x" * 65_536, trio.Event()

    async def pour(stream: trio.SocketStream) -> None:
        await read_head(stream)
        with suppress(trio.BrokenResourceError):
            await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            while True:
                await stream.send_all(b"10000\r\n" + part + b"\r\n")
        closed.set()

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, pour)
        timed = settings_for(port, route={"total_s": 0.3}, backend={"breaker_failures": 1, "failures": 1})
        async with proxying(timed) as proxied, calling(proxied) as client:
            await client.send(signed("/inference"))
            await client.read_until(b"xxx")
            ended = await proxied.end()
            assert (ended.code, ended.status) == ("client_gone_answer", 499)
            assert "0.3 s were over" in ended.detail
            group = proxied.state.plan.groups["servers"]
            assert (group.breaker_word, group.words()[0][1:]) == ("closed", ("serving", 0, ""))
            with trio.fail_after(5):
                await closed.wait()
            assert proxied.in_progress == 0
        nursery.cancel_scope.cancel()


async def test_a_fault_of_the_proxy_is_a_500_that_names_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async with backend(answer()) as servers, proxying(settings_for(servers.port)) as proxied:
        monkeypatch.setattr(type(proxied.state.plan.routes), "find", lambda *_: 1 / 0)
        async with calling(proxied) as client:
            got = await client.ask(signed("/inference"))
            ended = await proxied.end()
            assert (ended.code, got.status) == ("internal", 500)
            assert got.json()["request_id"] == ended.request_id == got.headers["x-request-id"]


def test_every_row_of_the_table_has_a_test() -> None:
    texts = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert {code for code in TABLE if f'"{code}"' not in texts} == set()


def test_an_ending_is_told_in_words() -> None:
    ended = Ended(
        "ab12",
        "first_byte_late",
        504,
        "POST",
        "/inference",
        "/inference",
        "192.0.2.1",
        ALICE.ss58,
        "http://b:1",
        30.25,
        0.0,
        10,
        0,
        "nothing for 30 s",
    )
    words = in_words(ended)
    assert words.startswith(f"POST /inference from {ALICE.ss58} at 192.0.2.1: the answer was 504, after 30.250 s.")
    assert "did not begin in time" in words
    assert "nothing for 30 s" in words
    left = msgspec.structs.replace(ended, code="client_gone_answer", status=499)
    assert ": no answer was sent, after" in in_words(left)
    assert ": the client left within the answer, after" in in_words(msgspec.structs.replace(left, sent_bytes=7))


def test_codes_are_words_and_statuses_are_those_of_http() -> None:
    for row in TABLE.values():
        assert re.fullmatch(r"[a-z0-9_]+", row.code)
        assert row.status == 0 or 200 <= row.status < 600


def test_the_documentation_has_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "proxy.md").read_text(encoding="utf-8")
    for row in TABLE.values():
        status = {0: "the backend's" if row.who == "backend" else "varies", 499: "499, in the log only"}
        shown = status.get(row.status, str(row.status))
        assert f"| `{row.code}` | {shown} | {row.who} | {row.phase} | {row.words} |" in page
