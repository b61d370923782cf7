"""The part of a gateway that brings session `s` of the ledger in a folder as far as it goes, on Akash: to be killed.

`python -m tests.provisioning.akash.killed_gateway <folder> <endpoint> <endpoint>`
"""

import sys
from functools import partial
from pathlib import Path

import msgspec
import trio

from actors import Registry
from config.model import GatewaySettings, ProvisioningSettings, Settings
from engram.clock import SystemClock, SystemIds
from engram.hints import Hints
from engram.http.client import HttpClient
from engram.ledger import facts, open_inline
from engram.provisioning import node_keys, saga
from engram.provisioning.akash.backend import AkashBackend
from engram.provisioning.akash.factory import make_parts
from engram.provisioning.backends import Backends
from engram.provisioning.fleet import Fleet
from engram.provisioning.health import health_probe
from engram.sessions import SystemInstants, rules
from engram.telemetry.metrics import Metrics
from tests.provisioning.akash.worlds import CHAIN_ID, IMAGE, KEY, QUICK


async def run(folder: Path, endpoints: tuple[str, ...]) -> None:
    ledger = open_inline(folder / "ledger.sqlite3")
    akash = msgspec.structs.replace(
        QUICK, endpoints=endpoints, chain_id=CHAIN_ID, bids_first_s=0.2, bids_enough_s=0.4, bids_give_up_s=3.0
    )
    settings = Settings(
        akash=akash,
        provisioning=ProvisioningSettings(miner_image=IMAGE, health_interval_s=0.02),
        gateway=GatewaySettings(public_url="http://gateway.example"),
    )
    http = HttpClient()
    ledger_id = ledger.write_now(facts.ledger_id)
    parts = make_parts(settings, KEY, ledger, ledger_id, http, SystemClock(), Metrics())
    parts = msgspec.structs.replace(parts, poll_s=0.02)
    backends = Backends([AkashBackend(parts)])
    await backends.look()
    fleet = Fleet(
        registry=Registry(),
        ledger=ledger,
        backends=backends,
        instants=SystemInstants(),
        ids=SystemIds(),
        settings=settings.provisioning,
        tiers=rules.tiers(0.10),
        is_healthy=health_probe(http),
        settle_up=lambda connection, session_id: None,
        metrics=Metrics(),
        hints=Hints(),
        expiry_interval_s=5.0,
        keys_folder=folder / "hotkeys",
        new_key=partial(node_keys.generate, ledger, folder / "hotkeys", 0.0),
    )
    await saga.run(fleet, "s")


if __name__ == "__main__":
    trio.run(run, Path(sys.argv[1]), tuple(sys.argv[2:]))
