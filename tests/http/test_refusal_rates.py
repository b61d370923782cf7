"""Requests that are refused before the application cost their address as much as others, and few lines of the log."""

from collections import Counter

import pytest
from structlog.testing import capture_logs

from engram.clock import ManualClock
from tests.http.harness import Running, connect, get, make_app, serving
from tests.http.test_app import routed, settings

BAD = b"BAD\r\n\r\n"


async def answers(running: Running, raw: bytes, times: int) -> Counter[int]:
    seen = Counter[int]()
    for _ in range(times):
        async with connect(running) as client:
            answer = await client.ask(raw)
            seen[answer.status] += 1
            if answer.status == 429:
                assert answer.code == "rate_limited"
                assert int(answer.headers["retry-after"]) >= 1
    return seen


async def test_refused_requests_count_toward_the_rate_of_their_address() -> None:
    given, clock = settings(requests_per_minute_per_ip=60), ManualClock()
    with capture_logs() as logged:
        async with serving(routed(make_app(given, clock)), given) as running:
            assert await answers(running, BAD, 30) == {400: 10, 429: 20}
            async with connect(running) as client:
                assert (await client.ask(get("/hello/you"))).status == 429, "what was refused was counted"
            clock.advance(60)
            assert await answers(running, BAD, 1) == {400: 1}
    assert len([event for event in logged if event["event"] == "refused"]) == 11


async def test_what_a_trusted_proxy_passes_on_is_not_counted_against_the_proxy() -> None:
    given = settings(requests_per_minute_per_ip=60, trusted_proxies=("127.0.0.0/8",))
    async with serving(routed(make_app(given)), given) as running:
        assert await answers(running, BAD, 15) == {400: 15}


@pytest.mark.parametrize("raw", [BAD, get("/hello/you", "Host: twice")], ids=["no request", "a repeated header"])
async def test_the_log_has_so_many_lines_about_refused_requests_and_no_more(raw: bytes) -> None:
    with capture_logs() as logged:
        async with serving(routed(make_app())) as running:
            assert await answers(running, raw, 130) == {400: 130}
    assert len([event for event in logged if event["event"] == "refused"]) == 100
