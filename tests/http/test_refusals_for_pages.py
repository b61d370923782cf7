"""What a page of another origin may read of answers that are given before the application."""

import pytest

from tests.http.harness import SETTINGS, connect, get, make_app, post, serving
from tests.http.test_app import routed, settings

ORIGIN = "https://app.example"
PADDING = "X-Padding: " + "x" * 200_000
REFUSED = {
    "headers_too_large": get("/hello/you", f"Origin: {ORIGIN}", PADDING),
    "too_many_headers": get("/hello/you", f"Origin: {ORIGIN}", *(f"X-{number}: x" for number in range(200))),
    "duplicate_header": get("/hello/you", f"Origin: {ORIGIN}", "Content-Type: a/b", "Content-Type: a/b"),
    "bad_host": get("/hello/you", f"Origin: {ORIGIN}").replace(b"Host: test", b"Host: te st"),
    "no_upgrade": get("/hello/you", f"Origin: {ORIGIN}", "Upgrade: h2c"),
    "body_too_large": post(b"x" * 3_000_000, "/echo", f"Origin: {ORIGIN}", "Expect: 100-continue"),
}


@pytest.mark.parametrize("code", REFUSED)
async def test_a_page_of_an_allowed_origin_may_read_why_its_request_was_refused(code: str) -> None:
    app = routed(make_app(settings(cors_origins=(ORIGIN,))))
    async with serving(app) as running, connect(running) as client:
        answer = await client.ask(REFUSED[code])
        assert answer.code == code
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "Retry-After" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"TRACE / HTTP/1.1\r\nHost: t\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (REFUSED["bad_host"], 400),
    ],
)
async def test_no_cache_keeps_what_a_connection_was_refused_for(raw: bytes, status: int) -> None:
    async with serving(make_app()) as running, connect(running) as client:
        refused = await client.ask(raw)
        assert (refused.status, refused.headers["cache-control"]) == (status, "no-store")


async def test_no_cache_keeps_that_there_was_no_room() -> None:
    one = settings(max_connections_per_ip=1)
    async with serving(make_app(), one) as running, connect(running) as held, connect(running) as second:
        refused = await second.read()
        assert (refused.status, refused.headers["cache-control"]) == (503, "no-store")
        assert (await held.ask(get())).status == 404


@pytest.mark.parametrize("code", REFUSED)
async def test_a_page_of_another_origin_may_not(code: str) -> None:
    app = routed(make_app(settings(cors_origins=("https://another.example",))))
    async with serving(app, SETTINGS) as running, connect(running) as client:
        answer = await client.ask(REFUSED[code])
        assert answer.code == code
        assert "access-control-allow-origin" not in answer.headers
