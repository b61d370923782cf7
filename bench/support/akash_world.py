"""A double of Akash as a process of its own, and the backend on it, for the benchmark."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from config.model import AkashSettings, GatewaySettings, ProvisioningSettings, Settings
from engram.clock import SystemClock
from engram.http.client import HttpClient
from engram.ledger import facts
from engram.ledger.inline import InlineLedger
from engram.provisioning import NodeSpec
from engram.provisioning.akash.account import Signer
from engram.provisioning.akash.factory import make_parts
from engram.provisioning.akash.ports import AkashParts
from engram.sessions import TierName, rules
from engram.telemetry.metrics import Metrics

KEY: Final = Signer(b"\7" * 32)
IMAGE: Final = "registry.example/engram@sha256:" + "ab" * 32
ROOT: Final = Path(__file__).parents[2]


class Running(msgspec.Struct, frozen=True):
    """A double that runs."""

    endpoints: tuple[str, ...]
    control: str

    def waits_s(self, dseq: int) -> float:
        """Return how long the double itself made the deployment wait: blocks, their index, bids, the provider."""
        with urllib.request.urlopen(f"{self.control}/waits", timeout=10) as answer:
            steps: dict[str, float] = json.load(answer)[str(dseq)]
        return sum(steps.values())


@contextmanager
def double(*options: str) -> Iterator[Running]:
    """Run the double with stub nodes."""
    command = [sys.executable, "-m", "tests.doubles.akash", "--stub-nodes", "--fund", KEY.address, *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            yield Running(tuple(ready["endpoints"]), ready["control"])
        finally:
            process.terminate()


def as_shipped(endpoints: tuple[str, ...]) -> AkashSettings:
    """Return the settings that the package has, for the double."""
    return AkashSettings(endpoints=endpoints, owner_address=KEY.address, allow_private_providers=True)


def without_waits(endpoints: tuple[str, ...]) -> AkashSettings:
    """Return settings by which only what the program does takes time: no cap a block, no waiting for a better bid, and
    looks as often as blocks of a second ask for."""
    return msgspec.structs.replace(
        as_shipped(endpoints),
        bids_first_s=1.0,
        bids_enough_s=1.0,
        bids_give_up_s=30.0,
        creates_per_block=1_000,
        poll_s=0.25,
    )


def parts(ledger: InlineLedger, http: HttpClient, akash: AkashSettings) -> AkashParts:
    """Return the backend's parts."""
    settings = Settings(
        akash=akash,
        provisioning=ProvisioningSettings(miner_image=IMAGE),
        gateway=GatewaySettings(public_url="http://gateway.example"),
    )
    ledger_id = ledger.write_now(facts.ledger_id)
    made = make_parts(settings, KEY, ledger, ledger_id, http, SystemClock(), Metrics())
    return msgspec.structs.replace(made, orphan_age_s=1e9)


def spec(ledger_id: str, number: int) -> NodeSpec:
    """Return the order of one session's node."""
    return NodeSpec(
        token=f"{ledger_id}-{number:06d}",
        session_id=f"s{number}",
        tier=rules.tiers(0.10)[TierName.LITE],
        controller=b"\1" * 32,
        hotkey=b"\2" * 32,
        hotkey_file="",
        port=None,
        ends_at=SystemClock().now() + 3600.0,
    )
