"""A sold session whose node runs on a machine of somebody else: the ledger's side, and the node itself as a process."""

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import trio

from engram.clock import SystemClock
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.http.errors import HttpError
from engram.ledger.inline import InlineLedger, open_inline
from engram.nodes.agreement import NodeSecrets
from engram.nodes.launch import EmbedderLaunch
from engram.provisioning import NodeSpec, NodeState, node_keys, records, session_keys
from engram.provisioning.certifier import CertifierPorts
from engram.provisioning.enrollment import Enrollment, EnrollmentPorts
from engram.provisioning.hotkey_ring import HotkeyRing
from engram.provisioning.model import NodeRecord
from engram.provisioning.node_environment import environment_of
from engram.provisioning.node_folder import NodeSettings
from engram.sessions import ClockInstants, EndReason, SessionEvent, TierName
from engram.sessions import records as session_records
from engram.sessions import rules as session_rules
from tests.provisioning.fleets import World

ROOT = Path(__file__).resolve().parents[2]
BUYER = Keypair.from_uri("//Dave")
TOKEN = "ledger-t1"
NO_SECRETS = NodeSecrets()


class Sold:
    """One session, its launch and its hotkey in a ledger, and an Enrollment over real HTTP."""

    def __init__(self, folder: Path, ledger: InlineLedger, secrets: NodeSecrets, backend: str) -> None:
        self.folder = folder
        self.world = World(ledger, clock=SystemClock())
        self.http = HttpClient()
        self.hotkey = Keypair.generate()
        path = node_keys.write_key(folder / "hotkeys", self.hotkey)
        self.world.sell("s")
        add = partial(node_keys.add, public_key=self.hotkey.public_key, path=path, source="generated", at=0.0)
        ledger.write_now(lambda c: add(c))
        ledger.write_now(lambda c: node_keys.lease(c, "s", BUYER.public_key, 0.0))
        self.instants = ClockInstants(SystemClock())
        self.launch(TOKEN, backend)
        self.enrollment = self.new_enrollment(secrets)
        self.certifier = CertifierPorts(
            ledger=ledger, enrollment=self.enrollment, instants=self.instants, hints=self.world.hints
        )

    def new_enrollment(
        self, secrets: NodeSecrets = NO_SECRETS, given: frozenset[str] = session_keys.GIVEN
    ) -> Enrollment:
        return Enrollment(
            EnrollmentPorts(
                http=self.http,
                ledger=self.world.ledger,
                instants=self.instants,
                ring=HotkeyRing(self.folder / "hotkeys", lambda _: None),
                metrics=self.world.metrics,
                launch_timeout_s=30.0,
                secrets=secrets,
                given=given,
            )
        )

    def launch(self, token: str, backend: str) -> None:
        node = NodeRecord(
            token=token,
            session_id="s",
            backend=backend,
            state=NodeState.LAUNCHING,
            port=None,
            reference=None,
            hotkey=self.hotkey.public_key,
            created_at=0.0,
        )
        self.world.ledger.write_now(lambda c: records.insert_launching(c, node))

    def serve(self, endpoint: str, token: str = TOKEN) -> None:
        """What a saga commits when its node is healthy."""
        key = self.hotkey.public_key
        self.world.ledger.write_now(lambda c: session_records.set_node(c, "s", token, endpoint, key))
        self.world.happens(SessionEvent.NODE_READY)

    def end(self) -> None:
        """What a buyer's DELETE commits."""
        now = self.instants.now()
        self.world.ledger.write_now(
            lambda c: session_records.transition(c, "s", SessionEvent.END, now, reason=EndReason.USER)
        )

    def spec(self, token: str = TOKEN) -> NodeSpec:
        return NodeSpec(
            token=token,
            session_id="s",
            tier=session_rules.tiers(0.10)[TierName.LITE],
            controller=BUYER.public_key,
            hotkey=self.hotkey.public_key,
            hotkey_file="",
            port=None,
            ends_at=4e9,
        )

    @contextmanager
    def node(self, data: Path, token: str = TOKEN, gateway: str = "") -> Iterator[str]:
        """The real node as a process that has nothing but its environment; its endpoint."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        common = NodeSettings(
            host="127.0.0.1", netuid=450, environment="local", embedder=EmbedderLaunch(kind="hash"), gateway=gateway
        )
        told = environment_of(self.spec(token), common, port=port, data_dir=str(data))
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | told
        with open(self.folder / "output.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "engram.miner"], env=environ, stdout=log, stderr=log
            )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()

    async def until_answering(self, endpoint: str) -> None:
        with trio.fail_after(30.0):
            while True:
                try:
                    await self.http.request("GET", endpoint + "/health", fresh=True)
                    return
                except HttpError:
                    await trio.sleep(0.05)

    async def until_healthy(self, endpoint: str, token: str = TOKEN) -> None:
        with trio.fail_after(30.0):
            while not await self.enrollment.is_healthy(endpoint, token):  # noqa: ASYNC110  # another process's state
                await trio.sleep(0.05)


@asynccontextmanager
async def sold(
    folder: Path, secrets: NodeSecrets = NO_SECRETS, backend: str = "akash", ledger_file: Path | None = None
) -> AsyncIterator[Sold]:
    ledger = open_inline(ledger_file)
    made = Sold(folder, ledger, secrets, backend)
    yield made
    await made.http.aclose()
    ledger.close()
