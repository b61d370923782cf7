"""What the proxy answers itself, as the original's own clients parse it; and the rows that describe it."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
import requests
import trio

from engram.api import proxy as rows
from engram.hotkeys import epistula
from engram.proxy.settings.model import CapacitySettings, RouteSettings
from engram.proxy.surface import proxy_app
from tests.http.harness import Answer
from tests.proxy.backends import answer, backend
from tests.proxy.harness import AUTH, calling, change, proxying, settings_for
from tests.proxy.signing import BOB, EVE, headers_of, raw


async def asked(request: bytes, **sections: Any) -> Answer:
    async with proxying(settings_for(9, **sections)) as proxied, calling(proxied) as client:
        return await client.ask(request, request.split(b" ")[0].decode())


async def test_the_answers_that_validators_compare_byte_for_byte() -> None:
    assert (await asked(raw("GET", "/"))).body == b'{"status":"healthy","service":"bittensor-miner-reverse-proxy"}'
    got = await asked(raw("GET", f"/check/{BOB.ss58}"))
    assert (got.status, got.body) == (200, b'{"status":"ok","identifier":"%b"}' % BOB.ss58.encode())
    for other in (EVE.ss58, "x", BOB.public_key.hex(), "0x" + BOB.public_key.hex(), BOB.ss58 + "%20"):
        got = await asked(raw("GET", f"/check/{other}"))
        assert (got.status, got.body) == (404, b'{"detail":"Identifier not recognized"}')


async def test_status_has_the_originals_fields_and_readiness_without_addresses() -> None:
    got = (await asked(raw("GET", "/status"))).json()
    assert {"status", "service", "version", "epistula_ready"} <= got.keys()
    assert (got["status"], got["version"], got["epistula_ready"]) == ("running", "0.2.0", True)
    assert got["authorization"]["chain"]["metagraph_age_s"] == 0.0  # type: ignore[index]
    assert got["backends"]["servers"]["ready"] is True  # type: ignore[index]
    assert "127.0.0.1" not in json.dumps(got)


@pytest.mark.parametrize("body", [b"", b"{}"], ids=["capacity check", "orchestrator client"])
async def test_capacity_for_both_clients_of_the_original(body: bytes) -> None:
    """One signs an empty body, the other signs and sends `{}` with its GET; both in the dippy dialect."""
    headers = headers_of(body, scheme=epistula.DIPPY, method="GET") | {"Content-Type": "application/json"}
    lines = [f"{name}: {value}" for name, value in headers.items()]
    length = [f"Content-Length: {len(body)}"] if body else []
    request = "\r\n".join(["GET /capacity HTTP/1.1", "Host: m", *lines, *length, "", ""]).encode() + body
    got = await asked(request)
    assert got.body == b'{"inference":["base-h100_pcie","img-h100_pcie"],"training":["H100pcie"]}'
    booleans = await asked(request, capacity=CapacitySettings(profile="booleans", training=()))
    assert booleans.status == 200
    parsed = json.loads(booleans.body)
    assert parsed == {"base-h100_pcie": True, "img-h100_pcie": True}
    assert all(isinstance(value, bool) for value in parsed.values())


def by_requests(url: str, body: bytes, headers: dict[str, str]) -> dict[str, object]:
    """As the capacity check asks: within 10 s, and what is no success raises."""
    answer = requests.request("GET", url, data=body or None, headers=headers, timeout=10)
    answer.raise_for_status()
    document: dict[str, object] = answer.json()
    return document


def by_httpx(url: str, body: bytes, headers: dict[str, str]) -> dict[str, object]:
    """As the orchestrator's client asks."""
    with httpx.Client(timeout=10) as client:
        answer = client.request("GET", url, content=body or None, headers=headers)
    answer.raise_for_status()
    document: dict[str, object] = answer.json()
    return document


@pytest.mark.parametrize(("ask", "body"), [(by_requests, b""), (by_httpx, b"{}")], ids=["requests", "httpx"])
async def test_the_originals_clients_by_the_libraries_that_they_use(
    ask: Callable[[str, bytes, dict[str, str]], dict[str, object]], body: bytes
) -> None:
    settings = settings_for(9, capacity=CapacitySettings(profile="booleans", training=()))
    async with proxying(settings) as proxied:

        async def asked_of(path: str, headers: dict[str, str], body: bytes = b"") -> dict[str, object]:
            return await trio.to_thread.run_sync(ask, proxied.url + path, body, headers)

        assert await asked_of(f"/check/{BOB.ss58}", {}) == {"status": "ok", "identifier": BOB.ss58}
        headers = headers_of(body, scheme=epistula.DIPPY, method="GET") | {"Content-Type": "application/json"}
        capacity = await asked_of("/capacity", headers, body)
        assert capacity == {"base-h100_pcie": True, "img-h100_pcie": True}


async def test_the_internal_secret_guards_updates_with_the_originals_texts() -> None:
    def update(**headers: str) -> bytes:
        return raw("POST", "/capacity", b'{"a": true}', headers)

    unset = change(settings_for(9), "auth", self_debug_key="")
    async with proxying(unset) as proxied, calling(proxied) as client:
        got = await client.ask(update(**{"X-Internal-Secret": "x"}))
        assert (got.status, got.body) == (500, b'{"detail":"Internal guard not configured"}')
    async with proxying(settings_for(9)) as proxied, calling(proxied) as client:
        got = await client.ask(update())
        assert (got.status, got.body) == (401, b'{"detail":"Missing X-Internal-Secret header"}')
        got = await client.ask(update(**{"X-Internal-Secret": "wrong"}))
        assert (got.status, got.body) == (403, b'{"detail":"Invalid internal secret"}')
        got = await client.ask(update(**{"X-Internal-Secret": AUTH.self_debug_key}))
        assert (got.status, got.body) == (200, b'{"a":true}')
        got = await client.ask(raw("GET", "/capacity", b"", headers_of(b"", method="GET")))
        assert got.body == b'{"a":true}'
        bad = raw("POST", "/capacity", b"[1]", {"X-Internal-Secret": AUTH.self_debug_key})
        assert (await client.ask(bad)).status == 400


DETAILS: dict[str, dict[str, str | None]] = {
    "Authorization header required": {},
    "Missing Epistula authentication headers": {"Epistula-Timestamp": None},
    "Invalid authorization scheme": {"Authorization": "Bearer x"},
    "Invalid signed_for address": {"Epistula-Signed-For": EVE.ss58},
    "Invalid Timestamp": {"Epistula-Timestamp": "soon"},
    "Invalid Keypair": {"Epistula-Signed-By": "5abc"},
    "Invalid Signature Format": {"Authorization": "Epistula 0xab"},
    "Signature Mismatch": {"Authorization": "Epistula 0x" + "ab" * 64, "Epistula-Signature": None},
    "Authorization signature mismatch": {"Epistula-Signature": "0x" + "ab" * 64},
}


@pytest.mark.parametrize("detail", DETAILS)
async def test_refusals_have_the_originals_texts(detail: str) -> None:
    body = b"{}"
    headers: dict[str, Any] = {**headers_of(body, scheme=epistula.DIPPY), **DETAILS[detail]}
    if not DETAILS[detail]:
        headers = {}
    present = {name: value for name, value in headers.items() if value is not None}
    got = await asked(raw("POST", "/inference", body, present))
    assert (got.status, got.json()["detail"]) == (401, detail)
    assert got.headers["www-authenticate"].startswith("Epistula ")


PAGE = "https://a.example"


async def test_cors_is_off_unless_an_exact_origin_is_named() -> None:
    def preflight(origin: str) -> bytes:
        return raw("OPTIONS", "/inference", b"", {"Origin": origin, "Access-Control-Request-Method": "POST"})

    off = await asked(preflight(PAGE))
    assert (off.status, [name for name in off.headers if name.startswith("access-control")]) == (405, [])
    async with (
        proxying(change(settings_for(9), "server", cors_origins=(PAGE,))) as proxied,
        calling(proxied) as client,
    ):
        own = await client.ask(preflight(PAGE))
        assert (own.status, own.headers["access-control-allow-origin"]) == (204, PAGE)
        assert "POST" in own.headers["access-control-allow-methods"].split(", ")
        assert "access-control-allow-credentials" not in own.headers
        other = await client.ask(preflight("https://b.example"))
        assert not [name for name in other.headers if name.startswith("access-control")]
        answered = await client.ask(raw("GET", "/", b"", {"Origin": "https://b.example"}))
        assert not [name for name in answered.headers if name.startswith("access-control")]


async def test_a_page_may_send_all_that_signs_a_call() -> None:
    for scheme in (epistula.V2, epistula.DIPPY):
        auth = msgspec.structs.replace(AUTH, schemes=(scheme.name,))
        settings = change(settings_for(9, auth=auth), "server", cors_origins=(PAGE,))
        sent = {*headers_of(b"{}", scheme=scheme, digest=True), "Idempotency-Key", "Content-Type"}
        async with proxying(settings) as proxied, calling(proxied) as client:
            for path in ("/inference", "/capacity", "/jobs/x", "/nowhere"):
                asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
                got = await client.ask(raw("OPTIONS", path, b"", asked))
                allowed = got.headers["access-control-allow-headers"].lower().split(", ")
                assert {name.lower() for name in sent} <= set(allowed)


READ_BY_PAGES = {"x-request-id", "x-job-id", "x-job-status", "retry-after", "location"}


async def test_a_page_may_read_every_answer() -> None:
    job = RouteSettings(path="/edit", backend="servers", answer_after_s=0.05)
    async with backend("wait", answer()) as servers:
        settings = change(settings_for(servers.port, routes=(job,)), "server", cors_origins=(PAGE,))
        async with proxying(settings) as proxied, calling(proxied) as client:

            async def read(method: str, path: str, *, sign: bool = True, key: str = "") -> Answer:
                body = b"{}" if method == "POST" else b""
                headers = headers_of(body, method=method) if sign else {}
                more = (f"Origin: {PAGE}", *([f"Idempotency-Key: {key}"] if key else []))
                got = await client.ask(raw(method, path, body, headers, *more))
                assert got.headers["access-control-allow-origin"] == PAGE, (method, path, got.status)
                exposed = got.headers["access-control-expose-headers"].lower().split(", ")
                assert set(exposed) >= READ_BY_PAGES
                return got

            for path in ("/", "/status", f"/check/{BOB.ss58}", "/check/x", "/capacity", "/jobs/none", "/nowhere"):
                await read("GET", path)
            assert (await read("POST", "/capacity", sign=False)).status == 401
            assert (await read("POST", "/inference", sign=False)).status == 401
            queued = await read("POST", "/edit", key="one")
            assert queued.status == 202
            assert (await read("GET", queued.headers["location"])).status == 202
            assert (await read("POST", "/edit", key="one")).status == 202
            servers.go_on.set()
            with trio.fail_after(5):
                while (fetched := await read("GET", queued.headers["location"])).status == 202:
                    pass
            assert (fetched.status, fetched.headers["x-job-status"]) == (200, "done")
            assert (await read("POST", "/inference")).status == 200


async def test_the_rows_are_what_the_application_answers() -> None:
    async with backend(answer()) as servers, proxying(settings_for(servers.port)) as proxied:
        own = proxy_app(proxied.state)._own
        described = {(row.method, row.path.partition("{")[0] + "*" * ("{" in row.path)) for row in rows.OWN}
        assert {(method, path) for path, methods in own.items() for method in methods} == described
        assert {row.path for row in rows.ROUTES if row not in rows.OWN} == {"/train", "/inference"}
