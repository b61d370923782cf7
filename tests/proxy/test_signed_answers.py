"""Answers signed by the miner: in the headers where the body is known, in trailers where it streams."""

import time

import pytest
import trio

from engram.hotkeys import epistula
from engram.http.answers import END, NEED, AnswerHead, AnswerParser
from engram.proxy.settings.model import LimitSettings
from tests.proxy.backends import answer, backend
from tests.proxy.harness import calling, proxying, settings_for
from tests.proxy.signing import ALICE, BOB, headers_of, raw

STREAMED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
LARGE = answer(b"x" * 100_000)


async def answered(reply: bytes, *, whole: bool = True) -> tuple[AnswerParser, AnswerHead, bytes, dict[str, str]]:
    """The answer to a signed request: its parser, head and body, and the headers of the request."""
    body = b"{}"
    request = headers_of(body)
    async with (
        backend(reply, *(() if whole else ("close",))) as servers,
        proxying(settings_for(servers.port), signer=BOB) as proxied,
        calling(proxied) as client,
    ):
        await client.send(raw("POST", "/inference", body, request))
        parser, received, head = AnswerParser(), b"", None
        with trio.fail_after(5):
            while (event := parser.next()) is not END:
                if isinstance(event, AnswerHead):
                    head = event
                elif isinstance(event, bytes):
                    received += event
                else:
                    assert event is NEED
                    data = bytes(await client.stream.receive_some(65_536))
                    if not data:
                        break
                    parser.feed(data)
        assert head is not None
        return parser, head, received, request


@pytest.mark.parametrize(
    "reply", [answer(b"whole"), answer(b""), STREAMED, LARGE], ids=["short", "empty", "chunks", "long"]
)
async def test_an_answer_is_signed_for_its_caller_over_its_body_and_the_requests_uuid(reply: bytes) -> None:
    parser, head, body, request = await answered(reply)
    lines = [*head.headers, *parser.trailers]
    signed = epistula.verify_answer(
        lines,
        body,
        now_ms=int(time.time() * 1000),
        self_key=ALICE.public_key,
        sender=BOB.public_key,
        request_uuid=request["Epistula-Uuid"],
    )
    assert signed.public_key == BOB.public_key
    in_trailers = reply in (STREAMED, LARGE)
    assert bool(parser.trailers) == in_trailers
    assert any(name == b"trailer" for name, _ in head.headers) == in_trailers


async def test_a_cut_answer_is_not_signed() -> None:
    cut = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
    parser, head, body, _ = await answered(cut, whole=False)
    assert body == b"abc"
    assert not [name for name, _ in head.headers if name.startswith(b"epistula")]
    assert parser.trailers == []


async def test_what_the_proxy_answers_itself_is_signed_for_a_proven_caller_and_for_no_one_else() -> None:
    route = {"answer_after_s": 5.0}
    body, backends_own = b"{}", (b"epistula-uuid", b"another")
    limits = LimitSettings(requests_per_minute_per_address=0, requests_per_minute_per_key=6)
    async with (
        backend(answer(b"done", "200 OK", "epistula-uuid: another")) as servers,
        proxying(settings_for(servers.port, route=route, limits=limits), signer=BOB) as proxied,
        calling(proxied) as client,
    ):
        seen = []
        for method, path, content in (("POST", "/inference", body), ("GET", "/capacity", b""), ("GET", "/jobs/x", b"")):
            headers = headers_of(content, method=method)
            seen.append((headers, await client.ask(raw(method, path, content, headers))))
        for _ in range(10):
            proxied.state.admission.key_rates.take(ALICE.public_key, trio.current_time())
        headers = headers_of(body)
        seen.append((headers, await client.ask(raw("POST", "/inference", body, headers))))
        unsigned = await client.ask(raw("POST", "/inference", body, {}))
    assert [got.status for _, got in seen] == [200, 200, 404, 429]
    for headers, got in seen:
        lines = [(name.encode(), value.encode()) for name, value in got.headers.items()]
        assert backends_own not in lines
        signed = epistula.verify_answer(
            lines,
            got.body,
            now_ms=int(time.time() * 1000),
            self_key=ALICE.public_key,
            sender=BOB.public_key,
            request_uuid=headers["Epistula-Uuid"],
        )
        assert signed.public_key == BOB.public_key
    assert unsigned.status == 401
    assert not [name for name in unsigned.headers if name.startswith("epistula")]
