"""The part of a gateway that brings session `s` of the ledger in a folder as far as it goes; made to be killed.

`python -m tests.provisioning.killed_gateway <folder>`
"""

import os
import sys
from functools import partial
from pathlib import Path

import trio

from actors import Registry
from config.model import ProvisioningSettings
from engram.clock import SystemIds
from engram.hints import Hints
from engram.http.client import HttpClient
from engram.ledger import facts, open_inline
from engram.nodes.launch import EmbedderLaunch
from engram.provisioning import Offers, local, node_keys, saga
from engram.provisioning.backends import Backends
from engram.provisioning.fleet import Fleet
from engram.provisioning.health import health_probe
from engram.provisioning.local import LocalBackend, LocalSettings
from engram.provisioning.node_folder import NodeSettings
from engram.sessions import SystemInstants, rules
from engram.telemetry.metrics import Metrics
from tests.fakes import fake_node


async def run(folder: Path, first_port: int) -> None:
    ledger = open_inline(folder / "ledger.sqlite3")
    backend = LocalBackend(
        LocalSettings(
            nodes_dir=folder / "nodes",
            ledger_id=ledger.write_now(facts.ledger_id),
            command=(sys.executable, "-S", "-E", fake_node.__file__),
            common=NodeSettings(
                host="127.0.0.1", netuid=450, environment="local", embedder=EmbedderLaunch(kind="hash")
            ),
            offers=Offers(backend="local", places=4, first_port=first_port, port_count=10),
            grace_s=2.0,
            watch_interval_s=1.0,
            environment=local.scrubbed(os.environ),
        )
    )
    fleet = Fleet(
        registry=Registry(),
        ledger=ledger,
        backends=Backends([backend]),
        instants=SystemInstants(),
        ids=SystemIds(),
        settings=ProvisioningSettings(health_interval_s=0.02),
        tiers=rules.tiers(0.10),
        keys_folder=folder / "hotkeys",
        is_healthy=health_probe(HttpClient()),
        settle_up=lambda connection, session_id: None,
        metrics=Metrics(),
        hints=Hints(),
        expiry_interval_s=5.0,
        new_key=partial(node_keys.generate, ledger, folder / "hotkeys", 0.0),
    )
    await saga.run(fleet, "s")


if __name__ == "__main__":
    trio.run(run, Path(sys.argv[1]), int(sys.argv[2]))
