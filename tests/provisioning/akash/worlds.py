"""The Akash backend on the double, in one process: real sockets, real transactions, a ledger in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from config.model import AkashSettings, GatewaySettings, ProvisioningSettings, Settings
from engram.clock import SystemClock
from engram.http.client import HttpClient
from engram.ledger import facts
from engram.ledger.inline import InlineLedger, open_inline
from engram.provisioning import NodeSpec
from engram.provisioning.akash import records
from engram.provisioning.akash.account import Signer
from engram.provisioning.akash.backend import AkashBackend
from engram.provisioning.akash.factory import make_parts
from engram.provisioning.akash.model import Deployment
from engram.provisioning.akash.ports import AkashParts
from engram.telemetry.metrics import Metrics
from tests.doubles.akash.double import Double, Options, running
from tests.doubles.akash.store import Params
from tests.provisioning import contract

IMAGE: Final = "registry.example/engram@sha256:" + "ab" * 32
KEY: Final = Signer(b"\7" * 32)
FAST: Final = AkashSettings(
    owner_address=KEY.address,
    bids_first_s=0.2,
    bids_enough_s=0.6,
    bids_give_up_s=6.0,
    manifest_s=6.0,
    ready_s=8.0,
    poll_s=0.1,
    watch_s=0.3,
    escrow_s=2.0,
    reconcile_s=2.0,
    allow_private_providers=True,
)
BLOCK_S: Final = 0.2
CHAIN_ID: Final = "double-1"


class World:
    """One gateway's backend on one double."""

    def __init__(self, double: Double, ledger: InlineLedger, settings: AkashSettings) -> None:
        self.double = double
        self.ledger = ledger
        self.settings = Settings(
            akash=msgspec.structs.replace(settings, endpoints=tuple(double.endpoints), chain_id=CHAIN_ID),
            provisioning=ProvisioningSettings(miner_image=IMAGE),
            gateway=GatewaySettings(public_url="http://gateway.example"),
        )
        self.ledger_id = ledger.write_now(facts.ledger_id)
        self.http = HttpClient()
        self.metrics = Metrics()
        self.parts = self.make_parts()
        self.backend = AkashBackend(self.parts)

    def make_parts(self, **changes: Any) -> AkashParts:
        """The parts of another life of the gateway, on the same ledger."""
        parts = make_parts(self.settings, KEY, self.ledger, self.ledger_id, self.http, SystemClock(), self.metrics)
        return msgspec.structs.replace(parts, **changes)

    def spec(self, session_id: str = "s1", word: str = "t1", hours: float = 1.0) -> NodeSpec:
        return NodeSpec(
            token=f"{self.ledger_id}-{word}",
            session_id=session_id,
            tier=contract.tier(),
            controller=b"\1" * 32,
            hotkey=b"\2" * 32,
            hotkey_file="",
            port=None,
            ends_at=SystemClock().now() + hours * 3600.0,
        )

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
    options: Options | None = None, settings: AkashSettings = FAST, path: Path | None = None
) -> AsyncIterator[World]:
    """A double with a funded account, and the backend."""
    options = options or Options(block_s=BLOCK_S, watch_s=0.2)
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
