"""A real container engine for tests: ENGRAM_ENGINE is its address (`scripts/with-engine docker make test-heavy`)."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from config.engines import engine_at
from config.model import DockerSettings
from engram.http.client import HttpClient
from engram.provisioning.docker.factory import engine as engine_of

ADDRESS = os.environ.get("ENGRAM_ENGINE", "")
IMAGE = "engram-node:latest"
ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "build" / "image" / "engram-node.tar"
API = "http://engine/v1.41"

needs_engine = pytest.mark.skipif(not ADDRESS, reason="no container engine; run it by scripts/with-engine docker")
on_an_engine = [needs_engine, pytest.mark.heavy, pytest.mark.xdist_group("engine")]


class RealEngine:
    """The engine as somebody else at its socket sees it."""

    def __init__(self) -> None:
        self.address = ADDRESS
        self.http = HttpClient(unix_socket=engine_at(ADDRESS).path)

    async def ask(self, method: str, path: str, json: object = None) -> tuple[int, Any]:
        answer = await self.http.request(
            method, API + path, json=json, read_s=60.0, total_s=60.0, max_bytes=10_000_000, fresh=True
        )
        return answer.status, answer.json() if answer.content.lstrip()[:1] in (b"{", b"[") else answer.content

    async def inspect(self, token: str) -> dict[str, Any]:
        status, found = await self.ask("GET", f"/containers/engram-{token}/json")
        assert status == 200, found
        return dict(found)

    async def remove_all(self) -> None:
        """Remove every container of ours, then every volume."""
        _, found = await self.ask("GET", '/containers/json?all=1&filters={"label":["engram.ledger"]}')
        for each in found:
            await self.ask("POST", f"/containers/{each['Id']}/kill")
            await self.ask("DELETE", f"/containers/{each['Id']}?force=1&v=1")
        _, found = await self.ask("GET", '/volumes?filters={"label":["engram.ledger"]}')
        for each in found["Volumes"] or ():
            await self.ask("DELETE", f"/volumes/{each['Name']}")


def provide_image() -> None:
    """Build the image and load it into the engine, unless both is done. Call it outside of trio."""
    if not BUNDLE.exists():
        subprocess.run([sys.executable, "-m", "shipping", str(BUNDLE.parent)], cwd=ROOT, check=True)
    trio.run(_load)


async def _load() -> None:
    engine = engine_of(DockerSettings(host=ADDRESS))
    if not await engine.has_image(IMAGE):
        await engine.load(BUNDLE)
