"""TLS on both sides, active health checks, and several servers behind one route."""

import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
import trio

from engram.http.asgi import Receive, Scope, Send, respond
from engram.http.tls import Certificates
from engram.proxy.health_checks import Checks, check
from engram.proxy.settings.certificates import certificate_cautions, expiry_of
from engram.proxy.settings.model import BackendSettings, ServerSettings
from tests.http.servers import bare, echo
from tests.http.test_tls import make_certificate
from tests.proxy.backends import answer, backend, closed_port
from tests.proxy.harness import Host, calling, proxying, settings_for
from tests.proxy.process import ProxyProcess, document
from tests.proxy.signing import headers_of, raw, signed

Secured: TypeAlias = "trio.SSLStream[trio.SocketStream]"

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")


@needs_openssl
async def test_an_https_backend_is_trusted_by_its_pinned_authority_alone(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path)
    other, _ = make_certificate(tmp_path, "other")
    async with bare(echo, certificates=Certificates(chain, key)) as server:
        base = settings_for(server.port)
        for pinned, status in ((chain, 200), (other, 502)):
            group = BackendSettings(urls=(f"https://127.0.0.1:{server.port}",), ca_file=str(pinned))
            settings = msgspec.structs.replace(base, backends={"servers": group})
            async with proxying(settings) as proxied, calling(proxied) as client:
                assert (await client.ask(signed("/inference", b"x"))).status == status


@needs_openssl
@pytest.mark.parametrize("way", ["passed on", "job", "websocket"])
async def test_what_keeps_a_backend_from_being_reached_is_told_to_the_operator_alone(tmp_path: Path, way: str) -> None:
    chain, key = make_certificate(tmp_path)
    after_s = 5.0 if way == "job" else 0.0
    async with bare(echo, certificates=Certificates(chain, key)) as server:
        route = {"answer_after_s": after_s, "websocket": way == "websocket", "methods": ("GET", "POST")}
        group = BackendSettings(urls=(f"https://localhost:{server.port}",), ca_file=str(chain))
        settings = msgspec.structs.replace(settings_for(server.port, route=route), backends={"servers": group})
        async with proxying(settings) as proxied, calling(proxied) as client:
            if way == "websocket":
                upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
                lines = (*upgrade, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
                got = await client.ask(raw("GET", "/inference", b"", headers_of(b"", method="GET"), *lines))
            else:
                got = await client.ask(signed("/inference"))
            assert (got.status, got.json()["code"]) == (502, "not_connected")
            assert got.json()["error"] == "no connection to the backend could be made"
            assert b"localhost" not in got.body
            if not after_s:
                assert "localhost" in (await proxied.end()).detail


@needs_openssl
async def test_the_proxy_serves_https_and_shows_a_replaced_certificate_to_new_clients_while_old_ones_go_on(
    tmp_path: Path,
) -> None:
    chain, key = make_certificate(tmp_path)
    renewed = make_certificate(tmp_path, "renewed")
    trusts_old, trusts_new = (ssl.create_default_context(cafile=str(file)) for file in (chain, renewed[0]))
    async with bare(echo) as server:
        files = {"tls_certificate": str(chain), "tls_key": str(key)}
        with ProxyProcess(tmp_path, document(server.port, server=files)) as proxy:
            await trio.to_thread.run_sync(proxy.start)
            assert proxy.url.startswith("https://")
            old = await shaken(proxy.port, trusts_old)
            await trio.sleep(0.3)  # what is not stamped two seconds after its start is refused
            assert (await asked(old, b"before")).endswith(b"before")
            for made, used in zip(renewed, (chain, key), strict=True):  # one after the other, as certbot does
                made.replace(used)
            new = await shaken(proxy.port, trusts_new)
            with pytest.raises(trio.BrokenResourceError):
                await shaken(proxy.port, trusts_old)
            for stream in (old, new):
                assert (await asked(stream, b"after")).endswith(b"after")
                await stream.aclose()


async def shaken(port: int, context: ssl.SSLContext) -> Secured:
    """A connection whose certificate the context trusts."""
    tcp = await trio.open_tcp_stream("127.0.0.1", port)
    stream = trio.SSLStream(tcp, context, server_hostname="127.0.0.1", https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def asked(stream: Secured, body: bytes) -> bytes:
    """The answer to a signed request, up to its echo of the body."""
    await stream.send_all(raw("POST", "/inference", body, headers_of(body, ago_s=-1.8)))
    received = b""
    with trio.fail_after(10):
        while not received.endswith(body):
            part = await stream.receive_some(65_536)
            assert part, received
            received += bytes(part)
    return received


@needs_openssl
def test_a_certificate_is_looked_at_as_a_validator_would(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path)
    server = ServerSettings(tls_certificate=str(chain), tls_key=str(key))
    now = datetime.now(UTC)
    said = "\n".join(certificate_cautions(server, now))
    assert "a validator will not trust it: self-signed certificate" in said
    assert "expires in 1 days" in said
    assert "has expired" in "\n".join(certificate_cautions(server, now + timedelta(days=3)))
    expires = expiry_of(chain.read_bytes())
    assert expires is not None
    assert timedelta(days=1) < expires - now < timedelta(days=3)
    assert certificate_cautions(ServerSettings(), now) == []
    absent = ServerSettings(tls_certificate="/nowhere", tls_key="/nowhere")
    assert "does not load" in certificate_cautions(absent, now)[0]


@asynccontextmanager
async def ailing() -> AsyncIterator[tuple[int, dict[str, int]]]:
    """A backend whose /health answers what the test says."""
    state = {"status": 200}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body", False):
            pass
        await respond(send, state["status"] if scope["path"] == "/health" else 200, b"%d" % scope["server"][1])

    async with bare(app) as server:
        yield server.port, state


async def test_a_server_whose_check_fails_gets_no_requests_until_it_passes() -> None:
    async with ailing() as (one, state), ailing() as (two, _):
        group = {"health_path": "/health", "health_interval_s": 0.001}
        async with proxying(settings_for(one, two, backend=group)) as proxied, calling(proxied) as client:
            servers = proxied.state.plan.groups["servers"]

            def is_out() -> bool:
                return servers.servers[0].unhealthy

            state["status"] = 503
            async with trio.open_nursery() as nursery:
                run: Any = Checks(lambda: proxied.state.plan).run
                nursery.start_soon(run, Host())
                with trio.fail_after(5):
                    while not is_out():
                        await trio.lowlevel.checkpoint()
                for _ in range(4):
                    assert (await client.ask(signed("/inference"))).body == b"%d" % two
                state["status"] = 200
                with trio.fail_after(5):
                    while is_out():
                        await trio.lowlevel.checkpoint()
                assert (await client.ask(signed("/inference"))).body == b"%d" % one
                nursery.cancel_scope.cancel()


async def test_a_check_says_why() -> None:
    async with backend(answer(b"", "500 Oops")) as servers:
        port = closed_port()
        settings = settings_for(servers.port, port, backend={"health_path": "/health"})
        async with proxying(settings) as proxied:
            group = proxied.state.plan.groups["servers"]
            assert await check(group, group.servers[0]) == "/health answers 500"
            assert "refused" in (await check(group, group.servers[1])).lower()


async def test_a_server_that_cannot_be_reached_is_followed_by_the_next() -> None:
    async with bare(echo) as server:
        settings = settings_for(closed_port(), server.port, backend={"failures": 2})
        async with proxying(settings) as proxied, calling(proxied) as client:
            for _ in range(6):
                assert (await client.ask(signed("/inference", b"x"))).status == 200
            states = {url: word for url, word, _, _ in proxied.state.plan.groups["servers"].words()}
            assert sorted(states.values()) == ["ejected", "serving"]
