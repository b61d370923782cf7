"""What every surface gives every request: ids, errors, limits, CORS, metrics, logs."""

import json
from collections.abc import AsyncIterator

import msgspec
import pytest
import structlog
import trio
from quart import Response, request
from structlog.testing import capture_logs

from config.model import HttpSettings
from engram.clock import ManualClock
from engram.http import exchange
from engram.http.asgi import HeaderLines
from engram.http.cors import EXPOSED
from engram.http.errors import ApiError
from engram.http.quart_app import QuartApp
from tests.http.harness import SETTINGS, connect, get, make_app, serving


def settings(**changes: object) -> HttpSettings:
    return msgspec.structs.replace(SETTINGS, **changes)


def routed(app: QuartApp) -> QuartApp:
    @app.get("/hello/<name>")
    async def hello(name: str) -> dict[str, str]:
        return {"hello": name, "request_id": exchange.request_id(), "client": exchange.current().client}

    @app.post("/json")
    async def take_json() -> dict[str, object]:
        return {"got": await request.get_json(), "raw": exchange.current().body.decode()}

    @app.get("/refuse")
    async def refuse() -> Response:
        raise ApiError(402, "payment_required", "pay first", [("X-Payment-Network", "base")], {"amount_usd": 2.4})

    @app.get("/grouped")
    async def grouped() -> Response:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
        raise AssertionError

    @app.get("/broken")
    async def broken() -> Response:
        raise KeyError("hush")

    @app.get("/broken-group")
    async def broken_group() -> Response:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broken)
        raise AssertionError

    async def health() -> tuple[int, bytes, HeaderLines]:
        return 200, b'{"status":"ok"}', [(b"content-type", b"application/json")]

    app.fast("/health", health)
    return app


@pytest.fixture
def app() -> QuartApp:
    return routed(make_app())


async def test_every_answer_bears_a_request_id_that_the_handler_knows(app: QuartApp) -> None:
    client = app.test_client()
    answer = await client.get("/hello/you")
    assert (await answer.get_json())["request_id"] == answer.headers["X-Request-Id"]
    assert answer.headers["X-Request-Id"] != (await client.get("/hello/you")).headers["X-Request-Id"]
    assert (await client.get("/health")).headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("sent", "kept"), [("abcd-1234.x_Y", True), ("short", False), ("a b c d e f g h", False), ("x" * 65, False)]
)
async def test_a_callers_own_request_id_is_kept_when_it_is_harmless(app: QuartApp, sent: str, kept: bool) -> None:
    answer = await app.test_client().get("/hello/you", headers={"X-Request-Id": sent})
    assert (answer.headers["X-Request-Id"] == sent) is kept


@pytest.mark.parametrize("path", ["/refuse", "/grouped"])
async def test_a_refusal_is_json_with_its_code_headers_and_extras(app: QuartApp, path: str) -> None:
    answer = await app.test_client().get(path)
    assert (answer.status_code, answer.headers["X-Payment-Network"]) == (402, "base")
    assert await answer.get_json() == {
        "error": "pay first",
        "code": "payment_required",
        "request_id": answer.headers["X-Request-Id"],
        "amount_usd": 2.4,
    }


@pytest.mark.parametrize("path", ["/broken", "/broken-group"])
async def test_what_nobody_expected_is_a_500_that_tells_its_id_and_nothing_else(app: QuartApp, path: str) -> None:
    with capture_logs() as events:
        answer = await app.test_client().get(path)
    body = await answer.get_json()
    assert (answer.status_code, body["code"]) == (500, "internal")
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert "hush" not in json.dumps(body)
    assert [event for event in events if event["event"] == "request_failed" and event["exc_info"]]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nothing", b"", 404, "not_found"),
        ("DELETE", "/json", b"", 405, "method_not_allowed"),
        ("OPTIONS", "/json", b"", 405, "method_not_allowed"),
        ("POST", "/json", b"{not json", 400, "bad_request"),
        ("POST", "/json", b"\xff\xfe", 400, "bad_request"),
        ("POST", "/json", b"[" * 100_000, 400, "bad_request"),
        ("POST", "/json", b"x" * 300_000, 413, "body_too_large"),
        ("GET", "/hello/" + "x" * 5_000, b"", 200, None),
        ("GET", "/%00%ff%2e%2e/", b"", 404, "not_found"),
        ("GET", "//hello/you", b"", 404, "not_found"),
        ("GET", "/hello//you", b"", 404, "not_found"),
        ("GET", "/%2fhello/you", b"", 404, "not_found"),
        ("GET", "/hello/you%00me", b"", 404, "not_found"),
        ("GET", "/hello/you/", b"", 404, "not_found"),
    ],
)
async def test_what_a_client_gets_wrong_is_json_and_never_a_500(
    app: QuartApp, method: str, path: str, body: bytes, status: int, code: str | None
) -> None:
    call = getattr(app.test_client(), method.lower())
    answer = await call(path, data=body or None, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    if code is not None:
        decoded = await answer.get_json()
        assert (decoded["code"], set(decoded)) == (code, {"error", "code", "request_id"})


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("//hello/you", 404),
        ("/hello//you", 404),
        ("/hello%2Fyou", 404),
        ("/hello/you%2f", 404),
        ("/%68ello/you?a=//%2f", 200),
        ("/hello/%252f", 200),
    ],
)
async def test_a_path_has_one_reading(app: QuartApp, path: str, status: int) -> None:
    async with serving(app) as running, connect(running) as client:
        answer = await client.ask(get(path))
        assert answer.status == status
        assert "location" not in answer.headers


async def test_a_method_that_is_not_taken_names_those_that_are(app: QuartApp) -> None:
    answer = await app.test_client().delete("/json")
    assert answer.headers["Allow"] == "POST"


async def test_the_raw_body_is_at_hand(app: QuartApp) -> None:
    answer = await app.test_client().post("/json", data=b'{"a": 1}', headers={"Content-Type": "application/json"})
    assert await answer.get_json() == {"got": {"a": 1}, "raw": '{"a": 1}'}


async def test_an_address_that_calls_too_often_is_told_when_to_come_back() -> None:
    clock = ManualClock()
    app = routed(make_app(settings(requests_per_minute_per_ip=60), clock))
    client = app.test_client()
    statuses = [(await client.get("/hello/you")).status_code for _ in range(11)]
    assert statuses == [200] * 10 + [429]
    refused = await client.get("/hello/you")
    assert (refused.headers["Retry-After"], (await refused.get_json())["code"]) == ("1", "rate_limited")
    assert (await client.get("/health")).status_code == 200
    clock.advance(1)
    assert (await client.get("/hello/you")).status_code == 200


async def test_a_hotkey_that_calls_too_often_is_told_so() -> None:
    app = make_app(settings(requests_per_minute_per_hotkey=60))

    @app.get("/signed")
    async def signed() -> str:
        app.limit_hotkey(b"k" * 32)
        return "ok"

    client = app.test_client()
    assert [(await client.get("/signed")).status_code for _ in range(11)] == [200] * 10 + [429]


async def test_the_client_behind_a_trusted_proxy_is_the_one_that_is_limited() -> None:
    app = routed(make_app(settings(trusted_proxies=("127.0.0.0/8",), requests_per_minute_per_ip=60)))
    async with serving(app) as running, connect(running) as client:
        answer = await client.ask(get("/hello/you", "X-Forwarded-For: 6.6.6.6, 1.2.3.4"))
        assert answer.json()["client"] == "1.2.3.4"
        for _ in range(9):
            await client.ask(get("/hello/you", "X-Forwarded-For: 1.2.3.4"))
        assert (await client.ask(get("/hello/you", "X-Forwarded-For: 1.2.3.4"))).status == 429
        assert (await client.ask(get("/hello/you", "X-Forwarded-For: 1.2.3.5"))).status == 200


async def test_a_page_of_an_allowed_origin_may_call_and_read_our_headers() -> None:
    client = routed(make_app(settings(cors_origins=("https://app.example",)))).test_client()
    origin = {"Origin": "https://app.example"}
    for path in ("/hello/you", "/nothing", "/health", "/refuse"):
        answer = await client.get(path, headers=origin)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert answer.headers["Vary"] == "Origin"
        assert set(EXPOSED) == set(answer.headers["Access-Control-Expose-Headers"].split(", "))
    preflight = await client.options("/json", headers=origin | {"Access-Control-Request-Method": "POST"})
    assert preflight.status_code == 204
    assert "X-Hotkey" in preflight.headers["Access-Control-Allow-Headers"]


@pytest.mark.parametrize("payment", ["PAYMENT-SIGNATURE", "X-PAYMENT"])
async def test_a_preflight_allows_what_clients_of_x402_send_with_a_payment(payment: str) -> None:
    """Access-Control-Expose-Headers, a response header, among them (x402-foundation/x402#3478)."""
    client = routed(make_app(settings(cors_origins=("https://app.example",)))).test_client()
    sent = f"access-control-expose-headers,content-type,{payment.lower()},x-hotkey,x-sig,x-sig-version,x-timestamp"
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": sent}
    preflight = await client.options("/json", headers={"Origin": "https://app.example"} | asks)
    allowed = {name.lower() for name in preflight.headers["Access-Control-Allow-Headers"].split(", ")}
    assert preflight.status_code == 204
    assert set(sent.split(",")) <= allowed


async def test_a_page_that_calls_too_often_may_read_when_to_call_again() -> None:
    """The preflight passes; of one that is refused a page learns nothing."""
    client = routed(
        make_app(settings(cors_origins=("https://app.example",), requests_per_minute_per_ip=60))
    ).test_client()
    origin = {"Origin": "https://app.example"}
    statuses = [(await client.get("/hello/you", headers=origin)).status_code for _ in range(11)]
    assert statuses == [200] * 10 + [429]
    preflight = await client.options("/hello/you", headers=origin | {"Access-Control-Request-Method": "GET"})
    refused = await client.get("/hello/you", headers=origin)
    assert (preflight.status_code, refused.status_code) == (204, 429)
    assert refused.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert "Retry-After" in refused.headers["Access-Control-Expose-Headers"].split(", ")


@pytest.mark.parametrize("origins", [(), ("https://app.example",)])
async def test_a_page_of_another_origin_is_not_let_in(origins: tuple[str, ...]) -> None:
    client = routed(make_app(settings(cors_origins=origins))).test_client()
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    assert "Access-Control-Allow-Origin" not in (await client.get("/hello/you", headers=headers)).headers
    preflight = await client.options("/json", headers=headers)
    assert (preflight.status_code, "Access-Control-Allow-Methods" in preflight.headers) == (405, False)


async def test_any_origin_may_be_allowed_without_credentials() -> None:
    client = routed(make_app(settings(cors_origins=("*",)))).test_client()
    answer = await client.get("/hello/you", headers={"Origin": "https://any.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_requests_are_counted_by_route_and_never_by_path(app: QuartApp) -> None:
    client = app.test_client()
    for path in ("/hello/a", "/hello/b", "/secret-path", "/health"):
        await client.get(path)
    async with serving(app) as running, connect(running) as raw:
        assert (await raw.ask(get("/hello/c").replace(b"GET", b"BREW"), "BREW")).status == 405
    text = app.metrics.render().decode()
    assert 'engram_http_requests_total{method="GET",route="/hello/<name>",status="200",surface="test"} 2.0' in text
    assert 'engram_http_requests_total{method="GET",route="other",status="404",surface="test"} 1.0' in text
    assert 'engram_http_requests_total{method="GET",route="/health",status="200",surface="test"} 1.0' in text
    assert 'method="other"' in text
    assert "secret-path" not in text


async def test_each_request_is_one_log_line_and_health_checks_are_none(app: QuartApp) -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as events:
        answer = await app.test_client().get("/hello/you")
        await app.test_client().get("/health")
    (event,) = [event for event in events if event["event"] == "request"]
    assert (event["method"], event["path"], event["status"], event["surface"]) == ("GET", "/hello/you", 200, "test")
    assert event["request_id"] == answer.headers["X-Request-Id"]


async def test_a_surface_may_take_larger_bodies_than_the_others() -> None:
    from engram.clock import SeededIds
    from engram.http.quart_app import new_quart_app
    from engram.telemetry.metrics import Metrics

    app = new_quart_app(
        "miner", settings=SETTINGS, clock=ManualClock(), ids=SeededIds(), metrics=Metrics(), max_body_bytes=1_000_000
    )

    @app.post("/echo")
    async def echo() -> dict[str, int]:
        return {"bytes": len(exchange.current().body)}

    assert await (await app.test_client().post("/echo", data=b"x" * 500_000)).get_json() == {"bytes": 500_000}
    assert (await app.test_client().post("/echo", data=b"x" * 1_000_001)).status_code == 413


async def test_streamed_and_file_answers_pass_unchanged(app: QuartApp) -> None:
    @app.get("/streamed")
    async def streamed() -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one"
            yield b"two"

        return Response(parts(), content_type="text/plain")

    async with serving(app) as running, connect(running) as client:
        answer = await client.ask(get("/streamed"))
        assert (answer.body, answer.headers["transfer-encoding"]) == (b"onetwo", "chunked")
        assert (await client.ask(get("/hello/you", "Connection: close"))).status == 200
        assert await client.closed_within(2)


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, GZIP", "x" * 500])
async def test_a_compressed_body_is_refused_and_never_read_as_what_it_is_not(app: QuartApp, coding: str) -> None:
    answer = await app.test_client().post("/json", data=b"{}", headers={"Content-Encoding": coding})
    body = await answer.get_json()
    assert (answer.status_code, body["code"]) == (415, "unsupported_encoding")
    assert answer.headers["Accept-Encoding"] == "identity"
    assert len(body["error"]) < 200


@pytest.mark.parametrize("coding", ["identity", "Identity", "", " , identity"])
async def test_a_body_that_is_as_it_is_is_taken(app: QuartApp, coding: str) -> None:
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    assert (await app.test_client().post("/json", data=b"{}", headers=headers)).status_code == 200
    assert (await app.test_client().get("/hello/you", headers={"Content-Encoding": "gzip"})).status_code == 200
