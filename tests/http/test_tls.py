"""TLS: the same server behind a certificate, and certificates that change while it runs."""

import contextlib
import shutil
import socket
import ssl
import subprocess
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from engram.http.asgi import Send, respond
from engram.http.client import HttpClient
from engram.http.connection import Patience
from engram.http.errors import Interrupted
from engram.http.forwarding import Failed, Upstream
from engram.http.server import Limits
from engram.http.targets import target
from engram.http.tls import Certificates
from tests.http.origin import listen
from tests.http.servers import Bare, bare, echo

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here to make certificates")


def make_certificate(folder: Path, name: str = "one", days: int = 2) -> tuple[Path, Path]:
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    subject = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1")
    made = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(days))
    command = ("openssl", "req", "-x509", *made, *subject, "-keyout", str(key), "-out", str(chain))
    subprocess.run(command, check=True, capture_output=True)
    return chain, key


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


async def shake(running: Bare, chain: Path | str) -> trio.SSLStream[trio.SocketStream]:
    context = ssl.create_default_context(cafile=str(chain))
    stream = trio.SSLStream(
        await trio.open_tcp_stream("127.0.0.1", running.port),
        context,
        server_hostname="127.0.0.1",
        https_compatible=True,
    )
    await stream.do_handshake()
    return stream


async def read_until(stream: trio.abc.ReceiveStream, marker: bytes) -> bytes:
    said = bytearray()
    with trio.fail_after(10):
        while marker not in said:
            part = await stream.receive_some(65_536)
            assert part, bytes(said)
            said += part
    return bytes(said)


async def test_requests_share_a_connection_and_large_bodies_pass_both_ways(pair: tuple[Path, Path]) -> None:
    body = bytes(range(256)) * 8_192
    async with bare(echo, certificates=Certificates(*pair)) as running:
        stream = await shake(running, pair[0])
        async with stream:
            for part in (b"hello", body, b"again"):

                async def ask(part: bytes = part) -> None:
                    await stream.send_all(
                        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%b" % (len(part), part)
                    )

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask)
                    head, _, got = (await read_until(stream, b"\r\n\r\n")).partition(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 200 ")
                    while len(got) < len(part):
                        got += await stream.receive_some(65_536)
                    assert got == part


async def test_the_application_knows_that_it_is_https(pair: tuple[Path, Path]) -> None:
    async def scheme(scope: dict[str, object], receive: object, send: object) -> None:
        await respond(send, 200, str(scope["scheme"]).encode())  # type: ignore[arg-type]  # an ASGI callable

    async with bare(scheme, certificates=Certificates(*pair)) as running, await shake(running, pair[0]) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        assert (await read_until(stream, b"https")).endswith(b"https")


async def test_plain_http_to_a_tls_port_ends_and_the_server_goes_on(pair: tuple[Path, Path]) -> None:
    async with bare(echo, certificates=Certificates(*pair)) as running:
        async with await trio.open_tcp_stream("127.0.0.1", running.port) as plain:
            await plain.send_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            with trio.fail_after(5):
                while await plain.receive_some(65_536):
                    pass
        async with await shake(running, pair[0]) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_client_that_does_not_shake_hands_is_given_up(pair: tuple[Path, Path]) -> None:
    limits = Limits(patience=Patience(head_s=0.2))
    async with (
        bare(echo, limits, certificates=Certificates(*pair)) as running,
        await trio.open_tcp_stream("127.0.0.1", running.port) as silent,
    ):
        with trio.fail_after(5):
            assert await silent.receive_some(1) == b""


async def test_old_versions_are_refused(pair: tuple[Path, Path]) -> None:
    async with bare(echo, certificates=Certificates(*pair)) as running:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        async with await trio.open_tcp_stream("127.0.0.1", running.port) as raw:
            with pytest.raises(trio.BrokenResourceError):
                await trio.SSLStream(raw, context).do_handshake()


async def test_a_certificate_that_was_replaced_is_shown_to_the_next_client(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path)
    async with bare(echo, certificates=Certificates(chain, key)) as running:
        await (await shake(running, chain)).aclose()
        other_chain, other_key = make_certificate(tmp_path, "two")
        shutil.copy(other_chain, chain)
        shutil.copy(other_key, key)
        async with await shake(running, other_chain) as stream:
            shown = stream.getpeercert()
        assert shown["subject"] == ((("commonName", "two"),),)


async def test_a_replaced_certificate_that_cannot_be_used_leaves_the_old_one_in_place(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path)
    kept = shutil.copy(chain, tmp_path / "kept.pem")
    async with bare(echo, certificates=Certificates(chain, key)) as running:
        chain.write_text("half a file")
        with capture_logs() as logged:
            await (await shake(running, kept)).aclose()
        assert [each["event"] for each in logged if each["log_level"] == "error"] == ["certificate_kept"]


def test_a_certificate_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path)
    key.write_text("no key")
    with pytest.raises(OSError, match="PEM"):
        Certificates(chain, key)
    with pytest.raises(FileNotFoundError):
        Certificates(tmp_path / "none.pem", key)


async def test_an_idle_tls_connection_is_closed_by_the_drain(pair: tuple[Path, Path]) -> None:
    async with bare(echo, certificates=Certificates(*pair)) as running:
        async with await shake(running, pair[0]) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            await read_until(stream, b"\r\n\r\n")
            running.stop.set()
            with trio.fail_after(5):
                await running.stopped.wait()
        assert running.drained


def test_a_client_that_sends_its_end_inside_tls_gets_its_answer(pair: tuple[Path, Path]) -> None:
    """A blocking client of the standard library, as other people's programs use it."""

    async def main() -> None:
        async with bare(echo, certificates=Certificates(*pair)) as running:

            def ask() -> bytes:
                context = ssl.create_default_context(cafile=str(pair[0]))
                with (
                    socket.create_connection(("127.0.0.1", running.port), timeout=5) as raw,
                    context.wrap_socket(raw, server_hostname="127.0.0.1") as stream,
                ):
                    stream.sendall(b"POST / HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
                    said = b""
                    while part := stream.recv(65_536):
                        said += part
                    return said

            assert (await trio.to_thread.run_sync(ask)).endswith(b"hello")

    trio.run(main)


async def test_clients_that_never_shake_hands_are_evicted_for_one_that_does(pair: tuple[Path, Path]) -> None:
    limits = Limits(max_connections=4)
    async with bare(echo, limits, certificates=Certificates(*pair)) as running:
        silent = [await trio.open_tcp_stream("127.0.0.1", running.port) for _ in range(20)]
        await silent[-1].send_all(b"\x16\x03\x01\x02\x00\x01")  # half a greeting
        await trio.testing.wait_all_tasks_blocked(0.02)
        async with await shake(running, pair[0]) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert running.noted.drops == ["evicted"] * 17
        for each in silent:
            await each.aclose()


async def test_requests_in_one_packet_and_requests_cut_within_a_record_are_answered_in_order(
    pair: tuple[Path, Path],
) -> None:
    context = ssl.create_default_context(cafile=str(pair[0]))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    engine = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")

    async with (
        bare(echo, certificates=Certificates(*pair)) as running,
        await trio.open_tcp_stream("127.0.0.1", running.port) as raw,
    ):
        while True:
            try:
                engine.do_handshake()
            except ssl.SSLWantReadError:
                await raw.send_all(outgoing.read())
                incoming.write(bytes(await raw.receive_some(65_536)))
            else:
                break
        for number in range(5):  # a record each
            engine.write(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n%d" % number)
        sealed = outgoing.read()
        await raw.send_all(sealed[:-50])
        await trio.testing.wait_all_tasks_blocked(0.02)
        await raw.send_all(sealed[-50:])
        said = b""
        with trio.fail_after(5):
            while said.count(b"HTTP/1.1 200 ") < 5 or not said.endswith(b"4"):
                incoming.write(bytes(await raw.receive_some(65_536)))
                while True:
                    try:
                        said += engine.read(65_536)
                    except ssl.SSLWantReadError:
                        break
    assert [body[:1] for body in said.split(b"\r\n\r\n")[1:]] == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_tls_client_that_reads_nothing_holds_up_nobody_and_is_given_up(pair: tuple[Path, Path]) -> None:
    async def pour(scope: dict[str, object], receive: object, send: Send) -> None:
        await respond(send, 200, b"x" * 30_000_000)

    limits = Limits(patience=Patience(send_s=0.3, linger_s=0.1))
    async with bare(pour, limits, certificates=Certificates(*pair)) as running:
        stuck = await shake(running, pair[0])
        await stuck.send_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        async with await shake(running, pair[0]) as other:
            await other.send_all(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            size = 0
            with trio.fail_after(10):
                while size < 30_000_000:
                    size += len(await other.receive_some(1 << 20))
        running.stop.set()
        with trio.fail_after(5):
            await running.stopped.wait()
        assert running.drained
        await trio.aclose_forcefully(stuck)


def test_a_handshake_is_made_once_for_a_connection(pair: tuple[Path, Path]) -> None:
    """Renegotiation costs the server a signature each time, and the client nothing."""
    assert Certificates(*pair).context().options & ssl.OP_NO_RENEGOTIATION


async def test_a_connection_beyond_the_bound_is_closed_without_a_word_in_the_clear(pair: tuple[Path, Path]) -> None:
    async with (
        bare(echo, Limits(max_per_address=1), certificates=Certificates(*pair)) as running,
        await shake(running, pair[0]),
        await trio.open_tcp_stream("127.0.0.1", running.port) as second,
    ):
        with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
            assert await second.receive_some(4_096) == b""


@pytest.mark.parametrize(("lines", "meant"), [(b"", True), (b"", False), (b"Content-Length: 5\r\n", False)])
async def test_only_an_answer_whose_end_its_server_has_said_is_whole(
    pair: tuple[Path, Path], lines: bytes, meant: bool
) -> None:
    """Many servers close without close_notify: by its length an answer is whole all the same (RFC 9112, 9.8)."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*pair)

    async def conversation(raw: trio.SocketStream) -> None:
        stream = trio.SSLStream(raw, serving, server_side=True)
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\nhello")
        if meant:
            await stream.aclose()

    trusted = ssl.create_default_context(cafile=str(pair[0]))
    async with trio.open_nursery() as nursery:
        port = await listen(nursery, conversation)
        whole = meant or bool(lines)
        with nullcontext() if whole else pytest.raises(Interrupted, match="before the end"):
            answer = await HttpClient(tls=trusted).request("GET", f"https://127.0.0.1:{port}/")
            assert answer.content == b"hello"
        upstream = Upstream(1, 60, trusted)
        async with upstream.connection(target(f"https://127.0.0.1:{port}/"), 5, 5, bodyless=False) as forwarding:
            await forwarding.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            forwarding.sent()
            with nullcontext() if whole else pytest.raises(Failed, check=lambda failed: failed.reason == "cut"):
                await forwarding.head(5)
                assert await forwarding.part(5) == b"hello"
                assert await forwarding.part(5) is None
        nursery.cancel_scope.cancel()


async def test_clients_in_their_handshake_and_in_the_queue_are_answered_when_the_server_stops(
    pair: tuple[Path, Path],
) -> None:
    async with bare(echo, certificates=Certificates(*pair)) as running, AsyncExitStack() as stack:

        async def connect() -> trio.SocketStream:
            return await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", running.port))

        greeted = await connect()
        context = ssl.create_default_context(cafile=str(pair[0]))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        engine = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        with pytest.raises(ssl.SSLWantReadError):
            engine.do_handshake()
        await greeted.send_all(outgoing.read())
        incoming.write(bytes(await greeted.receive_some(65_536)))  # the server waits for our last word
        queued = [await connect() for _ in range(5)]
        running.stop.set()
        await trio.testing.wait_all_tasks_blocked(0.05)
        engine.do_handshake()
        engine.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        await greeted.send_all(outgoing.read())
        said = b""
        with trio.fail_after(5):
            while not said:
                incoming.write(bytes(await greeted.receive_some(65_536)))
                with contextlib.suppress(ssl.SSLWantReadError):
                    said = engine.read(65_536)
            assert said.startswith(b"HTTP/1.1 200 ")
            for raw in queued:
                stream = trio.SSLStream(raw, context, server_hostname="127.0.0.1", https_compatible=True)
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
                assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await running.stopped.wait()
    assert running.drained


async def test_a_client_that_does_not_shake_hands_holds_the_drain_up_for_seconds_only(
    pair: tuple[Path, Path], autojump_clock: MockClock
) -> None:
    async with (
        bare(echo, certificates=Certificates(*pair), drain_s=30) as running,
        await trio.open_tcp_stream("127.0.0.1", running.port) as silent,
    ):
        await trio.testing.wait_all_tasks_blocked()
        running.stop.set()
        began = trio.current_time()
        await running.stopped.wait()
        assert trio.current_time() - began < 3
        assert await silent.receive_some(1) == b""
    assert running.drained
