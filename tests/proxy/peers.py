"""Clients that others wrote, each in a process that may be killed: curl, Python's requests, node's fetch and http."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, final

import msgspec
import trio

from engram.proxy.settings.model import ProxySettings
from tests.proxy.harness import change
from tests.proxy.signing import digest_of, headers_of

HERE: Final = Path(__file__).parent
NAMES: Final = ("curl", "requests", "fetch", "node:http")


def patient(settings: ProxySettings) -> ProxySettings:
    """The settings for clients that may take their time to start, on a busy machine."""
    return change(change(settings, "auth", allowed_delta_ms=600_000), "services", request_timeout_s=60.0)


class Said(msgspec.Struct, frozen=True):
    """How a client saw its request end."""

    status: int
    error: str
    """In the client's own words; empty when the answer was whole."""


@final
class Peer:
    """A client that has one request under way."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    async def receive_until(self, marker: bytes) -> bytes:
        """What it has received of the answer's body, once the marker is in it."""
        assert self._process.stdout is not None
        received = b""
        with trio.fail_after(60):
            while marker not in received:
                part = await self._process.stdout.receive_some(65_536)
                assert part, received
                received += part
        return received

    async def killed(self) -> None:
        """End it by SIGKILL; afterwards its sockets are closed."""
        self._process.kill()
        await self._process.wait()

    async def ended(self) -> tuple[bytes, Said]:
        """What it received, and how it saw the end."""
        received, said = bytearray(), bytearray()

        async def read(stream: trio.abc.ReceiveStream | None, into: bytearray) -> None:
            assert stream is not None
            async for part in stream:
                into += part

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, self._process.stdout, received)
                nursery.start_soon(read, self._process.stderr, said)
            status = await self._process.wait()
        if status and not said:
            return bytes(received), Said(0, f"exit status {status}")
        return bytes(received), msgspec.json.decode(said, type=Said)


@asynccontextmanager
async def posting(name: str, url: str, folder: Path, body: bytes | None = b"{}") -> AsyncIterator[Peer]:
    """Post a signed body; None: the first part of one that does not end, with its digest."""
    headers = headers_of(body or b"") | ({"Content-Digest": digest_of(b"")} if body is None else {})
    (folder / "headers").write_text(json.dumps(headers))
    (folder / "body").write_bytes(body or b"")
    files = [str(folder / "headers"), "half" if body is None else str(folder / "body")]
    match name:
        case "curl":
            lines = [part for line in headers.items() for part in ("-H", ": ".join(line))]
            report = '%{stderr}{"status":%{http_code},"error":"%{errormsg}"}'
            sending = ["-X", "POST", "-T", "-"] if body is None else ["--data-binary", f"@{folder / 'body'}"]
            command = ["curl", "-sN", "--compressed", "-w", report, *lines, *sending, url]
        case "requests":
            command = [sys.executable, str(HERE / "data" / "requests_caller.py"), url, *files]
        case _:
            how = name.rpartition(":")[2]
            command = ["node", str(HERE / "node_caller.mjs"), how, url, *files]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdin is not None
        if body is None and name == "curl":  # which goes on reading what it sends
            await process.stdin.send_all(b"x" * 100_000)
        yield Peer(process)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    await stream.aclose()
