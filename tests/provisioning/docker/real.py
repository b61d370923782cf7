"""A backend on the real engine, with the real image of a node."""

from pathlib import Path
from random import Random

import msgspec
import trio

from config.model import DockerSettings, MinerSettings, ProvisioningSettings, Settings
from engram.clock import SeededIds, SystemClock
from engram.hotkeys import Keypair, wallet
from engram.http.client import HttpClient
from engram.ledger import open_inline
from engram.provisioning import NodeBackend, NodeSpec
from engram.provisioning.backend_ports import BackendPorts
from engram.provisioning.docker import frames
from engram.provisioning.docker.factory import docker_backend
from engram.provisioning.health import health_probe
from engram.telemetry.metrics import Metrics
from shipping.interpreter import PROGRAM
from tests.engine import ADDRESS, IMAGE, RealEngine
from tests.provisioning import contract
from tests.provisioning.test_local import a_spec

UP_WITHIN_S = 60.0


def settings(**docker: object) -> Settings:
    return Settings(
        provisioning=ProvisioningSettings(backends=("docker",), miner_image=IMAGE, destroy_grace_s=5.0),
        docker=DockerSettings(host=ADDRESS, **docker),  # type: ignore[arg-type]  # of their types
        miner=MinerSettings(embedder="hash"),
    )


class DockerBench(contract.Bench):
    def __init__(self, folder: Path, chosen: Settings) -> None:
        self.folder = folder
        self.http = HttpClient()
        self.is_healthy = health_probe(self.http)
        self.seen: set[str] = set()
        self.engine = RealEngine()
        self.settings = chosen
        super().__init__(self.a_backend())

    def a_backend(self) -> NodeBackend:
        ledger = open_inline()
        ledger.close()  # this backend keeps nothing in it
        return docker_backend(
            BackendPorts(
                settings=self.settings,
                data_dir=self.folder,
                ledger_id=contract.LEDGER_ID,
                ledger=ledger,
                http=self.http,
                clock=SystemClock(),
                ids=SeededIds(),
                metrics=Metrics(),
                rng=Random(0),
            )
        )

    async def spec(self, session_id: str = "s1", word: str = "t1") -> NodeSpec:
        key = self.folder / f"key-{session_id}"
        if not key.exists():
            wallet.write_hotkey_file(key, Keypair.generate())
        hotkey = wallet.read_hotkey_file(key)
        return msgspec.structs.replace(a_spec(session_id, word), hotkey=hotkey.public_key, hotkey_file=str(key))

    async def until_healthy(self, endpoint: str, node_token: str) -> None:
        with trio.fail_after(UP_WITHIN_S):
            while not await self.is_healthy(endpoint, node_token):  # noqa: ASYNC110  # another process's state
                await trio.sleep(0.05)
        self.seen.add((await self.engine.inspect(node_token))["State"]["StartedAt"])

    async def kill(self, node_token: str) -> None:
        status, said = await self.engine.ask("POST", f"/containers/engram-{node_token}/kill")
        assert status == 204, said

    async def starts(self, endpoint: str, node_token: str) -> int:
        return len(self.seen)

    def container(self, node_token: str) -> str:
        return f"/containers/engram-{node_token}"

    async def run_inside(self, node_token: str, *program: str) -> str:
        """Run a Python program in the node's container, as its user; returns what it printed."""
        body = {"Cmd": [f"/{PROGRAM}", "-P", "-c", *program], "AttachStdout": True, "AttachStderr": True}
        status, made = await self.engine.ask("POST", f"{self.container(node_token)}/exec", body)
        assert status == 201, made
        _, printed = await self.engine.ask("POST", f"/exec/{made['Id']}/start", {"Detach": False, "Tty": False})
        return frames.text(printed).strip()

    async def post(self, endpoint: str, path: str, body: dict[str, object]) -> dict[str, object]:
        answer: dict[str, object] = (await self.http.request("POST", f"{endpoint}/{path}", json=body)).json()
        return answer
