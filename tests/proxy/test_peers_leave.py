"""Clients that others wrote, ended by kill -9 in each phase of a request, or served by a backend that breaks off."""

import shutil
import zlib
from pathlib import Path

import pytest
import trio

from tests.proxy.backends import backend
from tests.proxy.harness import calling, change, proxying, settings_for
from tests.proxy.peers import NAMES, patient, posting
from tests.proxy.signing import signed
from tests.proxy.soon import within
from tests.sampling import sample

SOON_S = 0.1
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
PHASES: dict[str, tuple[tuple[bytes | str, ...], bytes | None, str]] = {
    "queued": (("wait",), b"{}", "client_gone_queue"),
    "before the head": (("hang",), b"{}", "client_gone"),
    "mid stream": ((HEAD + b"4\r\npart\r\n", "hang"), b"{}", "client_gone_answer"),
    "mid upload": (("hang",), None, "client_gone_body"),
    "waiting for a whole answer": (("hang",), b"x" * 300_000, "client_gone"),
}
"""By phase: what the backend does, the body (None: one that does not end), and how the request ends."""
KILLED = [(peer, phase) for peer in NAMES for phase in PHASES]

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here"),
]


@pytest.mark.parametrize(("peer", "phase"), sample("peers that are killed", KILLED, 5))
async def test_the_backend_of_a_client_that_is_killed_is_let_go_at_once(peer: str, phase: str, tmp_path: Path) -> None:
    steps, body, code = PHASES[phase]
    async with (
        backend(*steps) as servers,
        proxying(change(patient(settings_for(servers.port)), "limits", concurrent=1, queue_s=90.0)) as proxied,
        calling(proxied) as other,
    ):
        places = proxied.state.admission.places
        if phase == "queued":
            await other.send(signed("/inference"))
            await servers.began.wait()
        async with posting(peer, f"{proxied.url}/inference", tmp_path, body) as client:
            with trio.fail_after(60):
                await servers.began.wait()
                while phase == "queued" and not places.waiting:
                    await trio.lowlevel.checkpoint()
            if phase == "mid stream":
                await client.receive_until(b"part")
            await client.killed()
            async with within(SOON_S):
                while places.waiting:
                    await trio.lowlevel.checkpoint()
                if phase != "queued":
                    await servers.closed.wait()
        ended = await proxied.end()
        assert (ended.code, ended.status) == (code, 499)
        assert places.taken == (phase == "queued"), "its place is free"


TEXT = b"all that the backend sent before it broke off"
_packer = zlib.compressobj(wbits=31)
PACKED = _packer.compress(TEXT) + _packer.flush(zlib.Z_SYNC_FLUSH)
GZIP = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
ANSWERS = {
    "chunks": HEAD + b"%x\r\n%b\r\n" % (len(TEXT), TEXT),
    "half a chunk": HEAD + b"100\r\n" + TEXT,
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + TEXT,
    "gzip": GZIP + b"%x\r\n%b\r\n" % (len(PACKED), PACKED),
}
CUT = [(peer, how) for peer in NAMES for how in ANSWERS]


@pytest.mark.parametrize(("peer", "how"), sample("answers that are cut", CUT, 4))
async def test_a_client_gets_all_that_came_of_a_cut_answer_and_knows_that_it_is_cut(
    peer: str, how: str, tmp_path: Path
) -> None:
    async with backend(ANSWERS[how], "close") as servers, proxying(patient(settings_for(servers.port))) as proxied:
        async with posting(peer, f"{proxied.url}/inference", tmp_path) as client:
            received, said = await client.ended()
        expected = PACKED if (peer, how) == ("node:http", "gzip") else TEXT  # which decodes nothing itself
        assert (received, said.status) == (expected, 200)
        assert said.error, "it takes the answer for a whole one"
        assert (await proxied.end()).code == "upstream_cut"
        counted = {"route": "/inference", "end": "upstream_cut"}
        assert proxied.state.metrics.registry.get_sample_value("engram_proxy_ends_total", counted) == 1.0
        assert proxied.in_progress == 0


@pytest.mark.parametrize("peer", sample("answers that are whole", NAMES, 1))
async def test_a_client_takes_a_whole_answer_for_whole(peer: str, tmp_path: Path) -> None:
    async with (
        backend(ANSWERS["chunks"], b"0\r\n\r\n") as servers,
        proxying(patient(settings_for(servers.port))) as proxied,
    ):
        async with posting(peer, f"{proxied.url}/inference", tmp_path) as client:
            received, said = await client.ended()
        assert (received, said.status, said.error) == (TEXT, 200, "")
        assert (await proxied.end()).code == "done"
