"""What a node on a machine of somebody else is told: environment variables, and nothing that is a secret.

The node's hotkey stays here: the node makes a session key and the gateway certifies it (docs/node-keys.md).
"""

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from config.model import MinerSettings, Settings
from engram.hotkeys import ss58
from engram.nodes import environment
from engram.nodes.launch import EmbedderLaunch, LaunchFile, embedder_of
from engram.provisioning.model import NodeSpec
from engram.provisioning.node_folder import NodeSettings

THREADS = "OMP_NUM_THREADS"


def environment_of(
    spec: NodeSpec, common: NodeSettings, *, port: int = environment.PORT, data_dir: str = environment.DATA_DIR
) -> dict[str, str]:
    """Return all variables of a node that has no launch file; `port` and `data_dir` are inside its container.

    Raises LaunchFileError when a setting is invalid.
    """
    orders = orders_of(spec, common, port=port, data_dir=data_dir)
    return environment.variables(orders) | {THREADS: str(spec.tier.cpu_vcpu)}


def orders_of(spec: NodeSpec, common: NodeSettings, *, port: int, data_dir: str, hotkey_file: str = "") -> LaunchFile:
    """Return a node's orders. Without a `hotkey_file` of its own machine, its hotkey stays with the gateway."""
    return LaunchFile(
        session_id=spec.session_id,
        launch_token=spec.token,
        host=common.host,
        port=port,
        data_dir=data_dir,
        hotkey_file=hotkey_file,
        hotkey="" if hotkey_file else ss58.encode(spec.hotkey),
        gateway=common.gateway,
        controller_public_key=ss58.encode(spec.controller),
        ends_at=spec.ends_at,
        storage_bytes=spec.tier.storage_bytes,
        memory_bytes=spec.tier.memory_bytes,
        netuid=common.netuid,
        chain_endpoints=common.chain_endpoints,
        chain_reset_after_s=common.chain_reset_after_s,
        environment=common.environment,
        embedder=common.embedder,
        miner=common.miner,
    )


def foreign_settings(settings: Settings, *, host: str = environment.HOST) -> NodeSettings:
    """Return what the settings say for nodes on other machines: nothing names a file or an address of this one.

    Their weights are in the image. What announces their axon is the gateway, which has their hotkeys.
    """
    miner = settings.miner
    return NodeSettings(
        host=host,
        netuid=miner.netuid,
        environment=settings.environment,
        embedder=_without_files(embedder_of(miner)),
        miner=_without_own(miner),
        chain_endpoints=_elsewhere(settings.chain.endpoints) if settings.chain.source == "rpc" else (),
        chain_reset_after_s=settings.chain.reset_after_s,
        gateway=settings.gateway.public_url.rstrip("/"),
    )


def _without_files(embedder: EmbedderLaunch) -> EmbedderLaunch:
    return msgspec.structs.replace(embedder, weights_dir=None, cache_dir=None, api_key_file=None)


def _without_own(miner: MinerSettings) -> MinerSettings:
    return msgspec.structs.replace(
        miner, weights_dir="", cache_dir="", hotkey_password_file="", announce="", ops_port=0
    )


def _elsewhere(urls: Sequence[str]) -> tuple[str, ...]:
    """Leave out addresses of loopback: there they would be another machine's."""
    return tuple(url for url in urls if not _is_loopback(urlsplit(url).hostname or ""))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
