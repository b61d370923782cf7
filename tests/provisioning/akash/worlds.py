"""The Akash backend on the double, in one process: real sockets, real transactions, a ledger in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import delete

from config.model import AkashSettings, GatewaySettings, MinerSettings, ProvisioningSettings, Settings
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.ledger import facts
from engram.ledger.inline import InlineLedger, open_inline
from engram.provisioning import NodeRecord, NodeSpec, NodeState
from engram.provisioning import records as node_records
from engram.provisioning.akash import records
from engram.provisioning.akash.account import Signer
from engram.provisioning.akash.backend import AkashBackend
from engram.provisioning.akash.factory import make_parts
from engram.provisioning.akash.model import Deployment
from engram.provisioning.akash.ports import AkashParts
from engram.provisioning.akash.tables import deployments
from engram.sessions import Session, SessionState
from engram.sessions import records as session_records
from engram.telemetry.metrics import Metrics
from tests.doubles.akash import bank
from tests.doubles.akash.double import Double, Options, running
from tests.doubles.akash.store import UACT, Params
from tests.provisioning import contract

IMAGE: Final = "registry.example/engram@sha256:" + "ab" * 32
KEY: Final = Signer(b"\7" * 32)
BUYER: Final = Keypair.from_uri("//Dave")
KEY_TEXT: Final = "07" * 32
QUICK: Final = AkashSettings(
    owner_address=KEY.address,
    bids_enough_s=20.0,
    ready_s=150.0,
    timeout_s=0.5,
    poll_s=0.05,
    watch_s=0.2,
    escrow_s=0.5,
    reconcile_s=0.5,
    allow_private_providers=True,
)
"""What the program does on real seconds is quick; its budgets are in seconds of the chain's clock."""
BLOCK_S: Final = 0.1
STEP_S: Final = 6.0
CHAIN_ID: Final = "double-1"
QUICKLY: Final = Options(block_s=BLOCK_S, step_s=STEP_S, watch_s=0.2)
"""A block of six seconds every tenth of a second."""


class ChainClock:
    """The clock of the chain and of its providers, which the gateway's agrees with."""

    def __init__(self, double: Double) -> None:
        self._double = double

    def now(self) -> float:
        return self._double.now()

    def monotonic(self) -> float:
        return self._double.now()


class World:
    """One gateway's backend on one double."""

    def __init__(self, double: Double, ledger: InlineLedger, settings: AkashSettings) -> None:
        self.double = double
        self.ledger = ledger
        self.settings = Settings(
            akash=msgspec.structs.replace(settings, endpoints=tuple(double.endpoints), chain_id=CHAIN_ID),
            provisioning=ProvisioningSettings(miner_image=IMAGE),
            gateway=GatewaySettings(public_url="http://gateway.example"),
            miner=MinerSettings(embedder="hash"),
        )
        self.ledger_id = ledger.write_now(facts.ledger_id)
        self.http = HttpClient()
        self.clock = ChainClock(double)
        self.metrics = Metrics()
        self.parts = self.make_parts()
        self.backend = AkashBackend(self.parts)

    def make_parts(self, **changes: Any) -> AkashParts:
        """The parts of another life of the gateway, on the same ledger."""
        parts = make_parts(self.settings, KEY, self.ledger, self.ledger_id, self.http, self.clock, self.metrics)
        return msgspec.structs.replace(parts, **changes)

    def spec(self, session_id: str = "s1", word: str = "t1", hours: float = 1.0) -> NodeSpec:
        return NodeSpec(
            token=f"{self.ledger_id}-{word}",
            session_id=session_id,
            tier=contract.tier(),
            controller=BUYER.public_key,
            hotkey=b"\2" * 32,
            hotkey_file="",
            port=None,
            ends_at=self.clock.now() + hours * 3600.0,
        )

    def sell(self, spec: NodeSpec) -> None:
        """Write down the session and the node of the order, as the gateway that sold it did."""
        now = self.clock.now()
        session = Session(
            id=spec.session_id,
            controller=spec.controller,
            state=SessionState.ACTIVE,
            tier=spec.tier.name,
            paid_s=spec.ends_at - now,
            amount_usd_micros=100_000,
            network="eip155:31337",
            payment_id="p",
            created_at=now,
        )
        node = NodeRecord(
            token=spec.token,
            session_id=spec.session_id,
            backend="akash",
            state=NodeState.RUNNING,
            port=None,
            reference=None,
            hotkey=spec.hotkey,
            created_at=now,
        )
        self.ledger.write_now(lambda c: session_records.insert_session(c, session))
        self.ledger.write_now(lambda c: node_records.insert_launching(c, node))

    def balance(self) -> int:
        """What the owner has, uact."""
        return bank.balance(self.double.chain.state, KEY.address, UACT)

    def forget(self, dseq: int) -> None:
        """Take the deployment out of the ledger, as one that was restored from a backup never had it."""
        self.ledger.write_now(lambda c: c.execute(delete(deployments).where(deployments.c.dseq == dseq)).rowcount)

    def rows(self) -> list[Deployment]:
        """All deployments of the ledger, oldest first."""
        return self.ledger.write_now(records.all_of)

    def active(self) -> list[int]:
        """The numbers of the owner's deployments that are active on chain."""
        return [
            each.dseq
            for each in self.double.chain.state.deployments.values()
            if each.owner == KEY.address and each.state == "active"
        ]

    def faults(self, name: str, **values: Any) -> None:
        """Set faults of a provider."""
        for field, value in values.items():
            setattr(self.double.faults.providers[name], field, value)


@asynccontextmanager
async def world(
    options: Options | None = None, settings: AkashSettings = QUICK, path: Path | None = None
) -> AsyncIterator[World]:
    """A double with a funded account, and the backend."""
    options = options or QUICKLY
    ledger = open_inline(path)
    try:
        async with running(
            msgspec.structs.replace(options, funded=(KEY.address,), params=Params(chain_id=CHAIN_ID))
        ) as double:
            made = World(double, ledger, settings)
            try:
                yield made
            finally:
                await made.http.aclose()
    finally:
        ledger.close()
