"""A worker, an orchestrator and a backend, the first two as processes that can be killed."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from engram.hotkeys import Keypair, wallet
from engram.http.asgi import Receive, Scope, Send, respond
from engram.http.client import HttpClient
from engram.http.errors import HttpError
from tests.http.servers import bare

ROOT = Path(__file__).resolve().parents[2]


class Program:
    """A process that writes a line of JSON when it is ready."""

    def __init__(self, words: list[str], log: Path, **environ: str) -> None:
        self._words, self._log, self._environ = words, log, environ
        self._process: subprocess.Popen[bytes] | None = None
        self.ready: dict[str, Any] = {}

    def spawn(self, **environ: str) -> "Program":
        """Start it; it may not become ready."""
        reading, writing = os.pipe()
        words = [word.replace("FD", str(writing)) if word == "FD" else word for word in self._words]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *words],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=log,
                pass_fds=(writing,),
                env={**os.environ, **self._environ, **environ},
            )
        os.close(writing)
        self._pipe = reading
        return self

    async def start(self, **environ: str) -> "Program":
        """Start it, and wait until it is ready."""
        self.spawn(**environ)
        with trio.fail_after(60):
            line = await trio.to_thread.run_sync(self._line)
        assert line, self._log.read_text()
        self.ready = json.loads(line)
        return self

    def _line(self) -> bytes:
        with os.fdopen(self._pipe, "rb") as pipe:
            return pipe.readline()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    async def ended(self) -> int:
        """Wait for its end; return its exit status."""
        with trio.fail_after(60):
            return await trio.to_thread.run_sync(self.process.wait)

    def kill(self) -> None:
        """End it by SIGKILL, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


class Backend:
    """Counts the jobs that are posted to it by their Idempotency-Key."""

    def __init__(self, rng: random.Random) -> None:
        self.taken: Counter[str] = Counter()
        self.done: dict[str, Any] = {}
        self.port = 0
        self._rng = rng

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        else:
            return
        name = headers[b"idempotency-key"].decode()
        self.taken[name] += 1
        await trio.sleep(self._rng.random() / 20)  # a job takes its time
        done = self.done.setdefault(name, {"done": json.loads(body), "first": self.taken[name]})
        await respond(send, 200, json.dumps(done).encode(), [(b"content-type", b"application/json")])


class World:
    """Everything, in one folder."""

    def __init__(self, folder: Path, backend: Backend, orchestrator_port: int, settings: str = "") -> None:
        self.backend = backend
        self.folder = folder
        self.http = HttpClient()
        self.url = f"http://127.0.0.1:{orchestrator_port}"
        hotkey = folder / "hotkey"
        wallet.write_hotkey_file(hotkey, Keypair.from_uri("//Alice"))
        (folder / "worker.toml").write_text(
            f'[worker]\norchestrator_url = "{self.url}"\nhotkey_file = "{hotkey}"\nbackoff_min_s = 0.05\n'
            f"backoff_max_s = 0.2\nauth_s = 5.0\nreconcile_s = 1.0\nack_s = 1.0\n"
            f'inference_url = "http://127.0.0.1:{backend.port}/inference"\n{settings}\n[log]\nformat = "json"\n'
        )
        words = ["run.py", "worker", "--profile", "local", "--config", str(folder / "worker.toml")]
        words += ["--data-dir", str(folder / "data"), "--ops-port", "0", "--ready-fd", "FD"]
        self.worker = Program(words, folder / "worker.log")
        words = ["-m", "tests.doubles.orchestrator", "--port", str(orchestrator_port)]
        self.orchestrator = Program([*words, "--journal", str(folder / "journal")], folder / "orchestrator.log")

    async def post(self, *names: str) -> None:
        """Post jobs to the orchestrator."""
        jobs = [{"id": name, "type": "inference", "payload": {"name": name}} for name in names]
        answer = await self.http.request("POST", self.url + "/jobs", json=jobs, fresh=True)
        assert answer.status == 200

    async def state(self) -> dict[str, Any] | None:
        """What the orchestrator has; None while it does not answer."""
        try:
            found: dict[str, Any] = (await self.http.request("GET", self.url + "/state", fresh=True)).json()
        except HttpError:
            return None
        return found

    async def settled(self, count: int, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until so many jobs have a result."""
        with trio.fail_after(seconds):
            while (state := await self.state()) is None or len(state["results"]) < count:  # noqa: ASYNC110 -- it is another process
                await trio.sleep(0.05)
        return state


@asynccontextmanager
async def world(folder: Path, orchestrator_port: int, settings: str = "", seed: int = 1) -> AsyncIterator[World]:
    """A backend that runs, and programs to be started."""
    backend = Backend(random.Random(seed))
    async with bare(backend) as server:
        backend.port = server.port
        made = World(folder, backend, orchestrator_port, settings)
        try:
            yield made
        finally:
            made.worker.kill()
            made.orchestrator.kill()
            await made.http.aclose()
