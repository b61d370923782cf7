"""Answers that come before the request is whole: each client reads status and body, however much it meant to send."""

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import requests
import trio

from engram.proxy.settings.model import BodySettings, LimitSettings
from tests.http.origin import listen, read_head
from tests.proxy.harness import Proxied, proxying, settings_for
from tests.proxy.peers import patient
from tests.proxy.signing import ALICE, digest_of, headers_of

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here"),
]
SCRIPT = Path(__file__).with_name("node_early.mjs")
TIMES = 100
DECLARED = 100 * 1024**2
NO_ROOM = '{"detail": "no room"}'
Seen = list[tuple[int, str]]
"""Status and body of each answer."""


async def ran(*command: str) -> str:
    """What a program prints."""
    with trio.fail_after(240):
        done = await trio.run_process([*command], capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


async def by_curl(url: str, headers: list[dict[str, str]], folder: Path) -> Seen:
    """One curl, which stops sending when it has been refused."""
    body = folder / "body"
    with body.open("wb") as file:
        file.truncate(DECLARED)
    transfers = []
    for number, lines in enumerate(headers):
        options = [f'url = "{url}"', "request = POST", f'upload-file = "{body}"', f'output = "{folder / f"{number}"}"']
        options += [f'header = "{name}: {value}"' for name, value in lines.items()]
        transfers.append("\n".join([*options, 'header = "Expect:"', 'write-out = "%{http_code}\\n"', "silent"]))
    (folder / "transfers").write_text("\nnext\n".join(transfers))
    said = (await ran("curl", "-q", "-K", str(folder / "transfers"))).split()
    return [(int(status), (folder / f"{number}").read_text()) for number, status in enumerate(said)]


async def by_requests(url: str, headers: list[dict[str, str]], folder: Path) -> Seen:
    """Python's requests, which sends all before it reads."""

    def post(lines: dict[str, str]) -> tuple[int, str]:
        with (folder / "body").open("rb") as body:
            answer = requests.post(url, data=body, headers=lines, timeout=60)
        return answer.status_code, answer.text

    with (folder / "body").open("wb") as file:
        file.truncate(DECLARED)
    return [await trio.to_thread.run_sync(post, lines) for lines in headers]


async def by_fetch(url: str, headers: list[dict[str, str]], folder: Path) -> Seen:
    (folder / "headers").write_text(json.dumps(headers))
    said = await ran("node", str(SCRIPT), url, str(DECLARED), str(folder / "headers"))
    return [(status, text) for status, text in json.loads(said)]


Peer = Callable[[str, list[dict[str, str]], Path], Awaitable[Seen]]
PEERS = [
    pytest.param(by_curl, id="curl"),
    pytest.param(by_fetch, id="fetch", marks=pytest.mark.heavy),
    pytest.param(by_requests, id="requests", marks=pytest.mark.nightly),
]


def signatures(count: int = TIMES) -> list[dict[str, str]]:
    """Headers that sign the digest of a body that is not the one to come: one that is read to its end is refused."""
    return [headers_of(b"") | {"Content-Digest": digest_of(b"")} for _ in range(count)]


@asynccontextmanager
async def answering_early(*, closes: bool) -> AsyncIterator[Proxied]:
    """A proxy whose backend answers 413 after 64 KiB of a body, and closes or goes on reading nothing."""
    length = f"content-length: {len(NO_ROOM)}"

    async def conversation(stream: trio.SocketStream) -> None:
        received = len(await read_head(stream))
        while received < 65_536:
            received += len(await stream.receive_some(65_536))
        await stream.send_all(f"HTTP/1.1 413 Payload Too Large\r\n{length}\r\n\r\n{NO_ROOM}".encode())
        if not closes:
            await trio.sleep_forever()
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        port = await listen(nursery, conversation)
        settings = settings_for(port, backend={"breaker_failures": 1_000}, bodies=BodySettings(max_bytes=DECLARED))
        async with proxying(patient(settings)) as proxied:
            yield proxied
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("closes", [True, False], ids=["closes", "stays"])
@pytest.mark.parametrize("peer", PEERS)
async def test_a_hundred_of_a_hundred_read_the_answer_of_a_backend_that_refuses_after_64_kib(
    peer: Peer, closes: bool, tmp_path: Path
) -> None:
    async with answering_early(closes=closes) as proxied:
        seen = await peer(f"{proxied.url}/train", signatures(), tmp_path)
        assert seen == [(413, NO_ROOM)] * TIMES
        await proxied.ended(TIMES)
        assert {ended.code for ended in proxied.ends} == {"done"}
        assert max(ended.received_bytes for ended in proxied.ends) < DECLARED
        assert proxied.in_progress == 0


@pytest.mark.parametrize("status", [401, 413, 429])
@pytest.mark.parametrize("peer", PEERS)
async def test_a_hundred_of_a_hundred_read_the_proxys_own_refusal(peer: Peer, status: int, tmp_path: Path) -> None:
    limits = LimitSettings(requests_per_minute_per_address=0, requests_per_minute_per_key=0, concurrent_per_key=1)
    bodies = BodySettings(max_bytes=1_000_000 if status == 413 else DECLARED)
    async with proxying(patient(settings_for(9, bodies=bodies, limits=limits))) as proxied:
        if status == 429:
            proxied.state.admission.keys.enter(ALICE.public_key, trio.current_time())
        headers: list[dict[str, str]] = [{}] * TIMES if status == 401 else signatures()
        seen = await peer(f"{proxied.url}/train", headers, tmp_path)
        codes = {401: "missing_header", 413: "body_too_large", 429: "concurrency_key"}
        assert [(answered, json.loads(body)["code"]) for answered, body in seen] == [(status, codes[status])] * TIMES
        await proxied.ended(TIMES)
        assert max(ended.received_bytes for ended in proxied.ends) < DECLARED, "it was said before the whole body"
