"""The Docker backend, made from the settings."""

import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from config import pricing
from config.engines import engine_at, is_local
from config.model import DockerSettings, Settings
from engram.http.client import HttpClient
from engram.provisioning.backend_ports import BackendPorts
from engram.provisioning.docker.backend import DockerBackend, DockerSetup
from engram.provisioning.docker.container import Place
from engram.provisioning.docker.engine import Engine
from engram.provisioning.errors import UnusableBackend
from engram.provisioning.node_backend import NodeBackend
from engram.sessions import TierName, rules

CONNECTIONS: Final = 32


def docker_backend(ports: BackendPorts) -> NodeBackend:
    """Return the backend whose nodes are containers. Raises UnusableBackend; an engine that is down is waited for."""
    settings = ports.settings
    docker = settings.docker
    lite = rules.tiers(settings.pricing.lite_usd_per_hour)[TierName.LITE]
    setup = DockerSetup(
        settings=settings,
        ledger_id=ports.ledger_id,
        ids=ports.ids,
        place=place(settings),
        with_hotkey=gives_hotkeys(docker),
        lite_memory_bytes=lite.memory_bytes,
        hourly_usd_micros={tier: pricing.hour_units(docker.lite_usd_per_hour, tier) for tier in TierName},
    )
    return DockerBackend(engine(docker), setup)


def gives_hotkeys(docker: DockerSettings) -> bool:
    """Return whether nodes get their hotkeys into their containers."""
    return docker.node_keys == "hotkey" or (docker.node_keys == "auto" and is_local(docker.host))


def engine(docker: DockerSettings) -> Engine:
    """Return the engine that the settings name. Raises UnusableBackend."""
    address = engine_at(docker.host)
    if address.path:
        return Engine(HttpClient(connections_per_origin=CONNECTIONS, unix_socket=address.path), "http://engine")
    host = f"[{address.host}]" if ":" in address.host else address.host
    if not docker.tls_ca:
        return Engine(HttpClient(connections_per_origin=CONNECTIONS), f"http://{host}:{address.port}")
    try:
        tls = ssl.create_default_context(cafile=str(Path(docker.tls_ca).expanduser()))
        if docker.tls_certificate:
            tls.load_cert_chain(Path(docker.tls_certificate).expanduser(), Path(docker.tls_key).expanduser())
    except (OSError, ssl.SSLError) as error:
        raise UnusableBackend(f"docker.tls_ca, docker.tls_certificate and docker.tls_key: {error}") from error
    return Engine(HttpClient(connections_per_origin=CONNECTIONS, tls=tls), f"https://{host}:{address.port}")


def place(settings: Settings) -> Place:
    """Return where clients reach the nodes, and the address that their ports are published on."""
    docker, here = settings.docker, settings.provisioning.node_host
    if is_local(docker.host):
        host = docker.node_host or here
        return Place(host=host, bound_to=host if _is_address(host) else "0.0.0.0", network=docker.network)  # noqa: S104
    return Place(host=docker.node_host or engine_at(docker.host).host, bound_to="0.0.0.0", network=docker.network)  # noqa: S104


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
