"""What runs under a lease: a real node as a child process, or a stub that answers /health with its launch token.

A container has a network and a volume of its own. Here the node is told another port and another folder by its
environment instead, and whoever asks for the container's port gets the one it really listens on.
"""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
from collections import deque
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from tests.doubles.akash.serving import Answer, Request, as_json, serve

TOKEN_VARIABLE: Final = "ENGRAM_NODE_LAUNCH_TOKEN"
SESSION_VARIABLE: Final = "ENGRAM_NODE_SESSION_ID"
_TERM_S: Final = 5.0
_LOG_LINES: Final = 200


async def _listening(port: int) -> trio.SocketListener:
    """Listen on loopback; a port that a connection of someone else's holds for the moment is waited for."""
    with trio.fail_after(10.0):
        while True:
            try:
                (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
            except OSError as error:
                if not port or error.errno != errno.EADDRINUSE:
                    raise
                await trio.sleep(0.05)
            else:
                return listener


def free_port() -> int:
    """Return a port of the loopback interface that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Workload(Protocol):
    """Something that runs, and listens on `port`."""

    port: int
    starts: int

    @property
    def has_ended(self) -> bool: ...

    async def start(self, nursery: trio.Nursery) -> None: ...

    async def is_ready(self) -> bool: ...

    async def stop(self) -> None: ...

    def log(self) -> list[str]: ...


class Stub:
    """Answers /health as a node does, in this process."""

    def __init__(self, environment: dict[str, str], port: int = 0) -> None:
        self.port = port
        self.starts = 0
        self._environment = environment
        self._scope = trio.CancelScope()
        self._ready = False

    async def start(self, nursery: trio.Nursery) -> None:
        listener = await _listening(self.port)
        self.port = int(listener.socket.getsockname()[1])
        self.starts += 1
        self._scope = trio.CancelScope()
        nursery.start_soon(self._run, listener)
        self._ready = True

    async def _run(self, listener: trio.SocketListener) -> None:
        with self._scope:
            await serve(self._handle, listener)
        await listener.aclose()

    async def _handle(self, request: Request) -> Answer:
        answer: dict[str, Any] = {"status": "ok", "launch_token": self._environment.get(TOKEN_VARIABLE, "")}
        if request.path == "/stats":
            answer |= {"vectors": 0, "queries_today": 0}
        return as_json(answer)

    @property
    def has_ended(self) -> bool:
        return not self._ready

    async def is_ready(self) -> bool:
        return self._ready

    async def stop(self) -> None:
        self._ready = False
        self._scope.cancel()

    def log(self) -> list[str]:
        return ["stub: listening"]


class ChildProcess:
    """A node as a process of its own, with nothing of this process' environment but what runs Python."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self.port = free_port()
        self.starts = 0
        self._command = command
        self.folder = folder
        """What whoever runs the machine can read."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        own = {"ENGRAM_NODE_HOST": "127.0.0.1", "ENGRAM_NODE_PORT": str(self.port)}
        self._environment = kept | environment | own | {"ENGRAM_NODE_DATA_DIR": str(folder / "data")}
        self._process: trio.Process | None = None

    async def start(self, nursery: trio.Nursery) -> None:
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        self.starts += 1
        with (self.folder / "log").open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                self._command,
                env=self._environment,
                cwd=Path(__file__).parents[3],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    async def is_ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            return False
        try:
            with trio.fail_after(2):
                stream = await trio.open_tcp_stream("127.0.0.1", self.port)
                async with stream:
                    await stream.send_all(b"GET /health HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
                    return b" 200 " in bytes(await stream.receive_some(4096)).partition(b"\r\n")[0]
        except (OSError, trio.BrokenResourceError, trio.TooSlowError):
            return False

    async def stop(self) -> None:
        process = self._process
        if process is None:
            return
        with trio.CancelScope(shield=True):
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with trio.move_on_after(_TERM_S):
                    await process.wait()
                    return

    def log(self) -> list[str]:
        try:
            with (self.folder / "log").open(encoding="utf-8", errors="replace") as file:
                return list(deque((line.rstrip("\n") for line in file), _LOG_LINES))
        except OSError:
            return []


def environment_of(service: dict[str, Any]) -> dict[str, str]:
    """Return the variables that a service of a manifest sets."""
    return dict(variable.partition("=")[::2] for variable in service["env"] or ())


def frames(lines: list[str], name: str, tail: int) -> tuple[str, ...]:
    """Return log lines as a provider's WebSocket sends them."""
    return tuple(json.dumps({"name": name, "message": line}) for line in lines[-tail:])
