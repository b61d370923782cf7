"""The local backend, made from the settings."""

import os
from pathlib import Path

import msgspec

from config.model import MinerSettings
from engram import children
from engram.children import Program
from engram.nodes import launch
from engram.provisioning import capacity, cgroups
from engram.provisioning.backend_ports import BackendPorts
from engram.provisioning.local import PORT_COUNT, LocalBackend, LocalSettings, scrubbed
from engram.provisioning.model import Offers
from engram.provisioning.node_backend import NodeBackend
from engram.provisioning.node_folder import NodeSettings
from engram.sessions import TierName, rules

NODES_FOLDER = "nodes"
CACHE_FOLDER = "cache"


def local_backend(ports: BackendPorts) -> NodeBackend:
    """Return the backend whose nodes are processes of this machine, in the data folder."""
    settings, data_dir = ports.settings, ports.data_dir
    groups = cgroups.find(leaf=os.environ.get(cgroups.LEAF_VARIABLE, ""))
    lite = rules.tiers(settings.pricing.lite_usd_per_hour)[TierName.LITE]
    miner = settings.miner
    return LocalBackend(
        LocalSettings(
            nodes_dir=data_dir / NODES_FOLDER,
            ledger_id=ports.ledger_id,
            command=children.command(Program.NODE),
            common=NodeSettings(
                host=settings.provisioning.node_host,
                netuid=miner.netuid,
                environment=settings.environment,
                miner=_with_absolute_paths(miner),
                embedder=msgspec.structs.replace(
                    launch.embedder_of(miner), cache_dir=miner.cache_dir or str(data_dir / CACHE_FOLDER)
                ),
                chain_endpoints=settings.chain.endpoints if settings.chain.source == "rpc" else (),
                chain_reset_after_s=settings.chain.reset_after_s,
            ),
            offers=Offers(
                backend="local",
                places=capacity.places(
                    settings.provisioning.places, capacity.memory_bytes(), os.cpu_count() or 1, lite.memory_bytes
                ),
                first_port=settings.provisioning.first_port,
                port_count=PORT_COUNT,
                not_enforced=() if groups else ("cpu",),
            ),
            grace_s=settings.provisioning.destroy_grace_s,
            watch_interval_s=settings.provisioning.watch_interval_s,
            environment=children.environment(scrubbed(os.environ)) | _embedding_key(miner),
        ),
        groups,
    )


def _with_absolute_paths(miner: MinerSettings) -> MinerSettings:
    """Make paths absolute: a node runs in a folder of its own."""
    path = miner.hotkey_password_file
    return msgspec.structs.replace(miner, hotkey_password_file=str(Path(path).expanduser().absolute()) if path else "")


def _embedding_key(miner: MinerSettings) -> dict[str, str]:
    """Return the embedding server's key as an environment variable, since it is not written to launch files."""
    key = os.environ.get(launch.API_KEY_VARIABLE)
    return {launch.API_KEY_VARIABLE: key} if key and miner.embedder == "openai" else {}
