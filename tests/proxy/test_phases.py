"""How long a request spends in each phase, as the metric has it."""

import pytest
from trio.testing import MockClock

from engram.proxy.exchange.incoming import Incoming
from engram.proxy.settings.model import LimitSettings
from tests.http.servers import bare, echo
from tests.proxy.backends import answer, backend
from tests.proxy.harness import Proxied, calling, proxying, settings_for
from tests.proxy.signing import head, headers_of, signed

PHASES = ("admission", "body", "queue", "connect", "upload", "wait", "answer")


def spent(proxied: Proxied) -> dict[str, float]:
    """Seconds by phase, of all requests."""
    sampled = proxied.state.metrics.registry.get_sample_value
    labelled = ({"route": "/inference", "phase": phase} for phase in PHASES)
    found = {labels["phase"]: sampled("engram_proxy_phase_seconds_sum", labels) for labels in labelled}
    return {phase: seconds for phase, seconds in found.items() if seconds is not None}


def whole(proxied: Proxied) -> float:
    """Seconds of all requests from their heads to their ends."""
    labels = {"route": "/inference", "phase": "answer"}
    return proxied.state.metrics.registry.get_sample_value("engram_proxy_request_seconds_sum", labels) or 0.0


async def nothing(*_: object) -> None: ...


async def test_time_is_counted_for_the_phase_in_which_it_passes(mock_clock: MockClock) -> None:
    scope = {"type": "http", "scheme": "http", "headers": [], "raw_path": b"/", "query_string": b""}
    request = Incoming(scope, nothing, nothing, "r1", "", "", 0.0)  # type: ignore[arg-type]
    mock_clock.jump(1)
    request.phase = "body"
    mock_clock.jump(2)
    request.phase = "queue"
    mock_clock.jump(4)
    request.phase = "body"
    mock_clock.jump(8)
    assert request.spent() == {"admission": 1, "body": 10, "queue": 4}
    mock_clock.jump(16)
    assert (request.phase, request.spent()["body"]) == ("body", 26)


async def test_the_phases_of_a_request_are_all_of_its_time() -> None:
    limits = LimitSettings(requests_per_minute_per_address=0, requests_per_minute_per_key=0, concurrent=1)
    async with (
        backend("wait", answer()) as servers,
        proxying(settings_for(servers.port, limits=limits)) as proxied,
        calling(proxied) as one,
        calling(proxied) as two,
    ):
        await one.send(signed("/inference"))
        await servers.began.wait()
        assert spent(proxied) == {}
        await two.send(signed("/inference"))
        servers.go_on.set()
        assert ((await one.read()).status, (await two.read()).status) == (200, 200)
        await proxied.ended(2)
        seconds = spent(proxied)
        assert set(seconds) - {"queue"} == {"admission", "body", "connect", "wait", "answer"}
        assert sum(seconds.values()) == pytest.approx(whole(proxied), abs=2e-3)


async def test_a_body_that_is_passed_on_while_it_arrives_is_the_upload() -> None:
    body = b"x" * 200_000
    async with bare(echo) as server, proxying(settings_for(server.port)) as proxied, calling(proxied) as client:
        request = head("POST", "/inference", len(body), headers_of(body, digest=True)) + body
        assert (await client.ask(request)).body == body
        await proxied.end()
        assert {"connect", "upload", "answer"} <= set(spent(proxied))
        assert sum(spent(proxied).values()) == pytest.approx(whole(proxied), abs=2e-3)
