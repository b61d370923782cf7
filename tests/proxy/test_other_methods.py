"""Backends that fail a HEAD or an OPTIONS: the answer is framed as its method demands, and the connection goes on."""

import pytest

from tests.proxy.backends import answer, backend, closed_port
from tests.proxy.harness import calling, proxying, settings_for
from tests.proxy.lint import linted
from tests.proxy.signing import headers_of, raw, signed

METHODS = ("HEAD", "OPTIONS")
CUT = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart"
FAILING: list[tuple[tuple[bytes | str, ...], str, int]] = [
    (("close",), "backend_cut", 502),
    (("reset",), "backend_cut", 502),
    ((b"HTTP/1.1 200 OK\r\nx", "close"), "backend_cut", 502),
    ((b"SSH-2.0-x\r\n", "hang"), "backend_garbage", 502),
    (("hang",), "first_byte_late", 504),
    ((b"HTTP/1.1 200 OK\r\n", "drip"), "first_byte_late", 504),
]


def asking(method: str) -> bytes:
    return raw(method, "/inference", b"", headers_of(b"", method=method))


ROUTE = {"methods": ("GET", *METHODS, "POST"), "first_byte_s": 0.1, "idle_s": 0.2}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("steps", "code", "status"), FAILING, ids=lambda each: str(each)[:30])
async def test_a_backend_that_fails_is_told_in_the_form_of_the_method(
    method: str, steps: tuple[bytes | str, ...], code: str, status: int
) -> None:
    async with (
        backend(*steps) as servers,
        proxying(settings_for(servers.port, route=ROUTE)) as proxied,
        calling(proxied) as client,
    ):
        for turn in (1, 2):
            got = await client.ask(asking(method), method)
            await proxied.ended(turn)
            assert (got.status, proxied.ends[-1].code, proxied.ends[-1].status) == (status, code, status)
            assert (got.body == b"") == (method == "HEAD")
            assert method == "HEAD" or linted(got.status, got.headers, got.body) == []
        own = await client.ask(raw("GET", "/"))
        assert own.status == 200, "nothing of the answer before is left on the connection"
        assert proxied.in_progress == 0


@pytest.mark.parametrize("method", METHODS)
async def test_a_backend_that_is_not_there_fails_them_until_its_breaker_opens(method: str) -> None:
    settings = settings_for(closed_port(), route=ROUTE, backend={"breaker_failures": 1})
    async with proxying(settings) as proxied, calling(proxied) as client:
        assert (await client.ask(asking(method), method)).status == 502
        got = await client.ask(asking(method), method)
        await proxied.ended(2)
        assert (got.status, proxied.ends[-1].code, "retry-after" in got.headers) == (503, "breaker_open", True)
        assert (got.body == b"") == (method == "HEAD")
        assert (await client.ask(raw("GET", "/"))).status == 200


async def test_a_cut_answer_to_options_is_cut_and_a_head_needs_no_body() -> None:
    async with backend(CUT, "close") as servers, proxying(settings_for(servers.port, route=ROUTE)) as proxied:
        async with calling(proxied) as client:
            await client.send(asking("OPTIONS"))
            await client.read_until(b"part")
            assert await client.closed_within(5)
        assert (await proxied.end()).code == "upstream_cut"
    async with (
        backend(answer(b"", "200 OK", "x-own: 1").replace(b"ength: 0", b"ength: 100")) as servers,
        proxying(settings_for(servers.port, route=ROUTE)) as proxied,
        calling(proxied) as client,
    ):
        got = await client.ask(asking("HEAD"), "HEAD")
        assert (got.status, got.headers["content-length"], got.headers["x-own"], got.body) == (200, "100", "1", b"")
        assert (await client.ask(signed("/nowhere"))).status == 404
        assert proxied.ends[0].code == "done"
