"""The container of a node: its name, its labels, and what it is held to. No I/O.

The port is the ledger's, inside as outside: a port that the engine chooses is another one after each start, and a dead
container shows none. So it stands in a label.
"""

from collections.abc import Mapping
from math import ceil
from typing import Final

import msgspec

from engram.provisioning.docker.engine_model import About, Container
from engram.provisioning.model import NodeSpec

LEDGER: Final = "engram.ledger"
TOKEN: Final = "engram.token"  # noqa: S105 -- the name of a label
SESSION: Final = "engram.session"
PORT: Final = "engram.port"
VOLUME: Final = "engram.volume"
"""Names what the node's volume holds, for good: an empty one in its place bears another."""

FOLDER: Final = "/data"
"""The one folder of the container that can be written; a volume of the node (volumes.py)."""
ORDERS: Final = "launch.json"
HOTKEY: Final = "hotkey"
PASSWORD: Final = "hotkey-password"  # noqa: S105 -- the name of a file
EMBEDDING_KEY: Final = "embedding-key"
STORE: Final = "node"
"""The node's own folder, under FOLDER."""

PIDS: Final = 256
LOG_BYTES: Final = 8 * 1024**2
LOG_FILES: Final = 2
TMP: Final = "rw,noexec,nosuid,size=64m"
_NANO: Final = 1_000_000_000


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where containers of one engine are reached."""

    host: str
    """In the endpoints of nodes."""
    bound_to: str
    """The address of the engine's machine that ports are published on."""
    network: str = ""
    """The network that containers join; empty: the engine's default."""


def name_of(token: str) -> str:
    """Return the name of a node's container.

    >>> name_of("0123abcd-77")
    'engram-0123abcd-77'
    """
    return f"engram-{token}"


def token_of(name: str) -> str:
    """Return the token of the node whose container bears this name; empty for a name that is none of ours.

    >>> token_of("engram-0123abcd-77"), token_of("postgres")
    ('0123abcd-77', '')
    """
    prefix, token = name_of(""), name.lstrip("/")
    return token.removeprefix(prefix) if token.startswith(prefix) else ""


def of_ledger(ledger_id: str) -> str:
    """Return the label that all containers of a ledger bear."""
    return f"{LEDGER}={ledger_id}"


def labels(spec: NodeSpec, ledger_id: str, volume: str) -> dict[str, str]:
    """Return the labels of a node's container and volume."""
    return {
        LEDGER: ledger_id,
        TOKEN: spec.token,
        SESSION: spec.session_id,
        PORT: str(spec.port),
        VOLUME: volume,
    }


def has_labels(found: Mapping[str, str], token: str, ledger_id: str) -> bool:
    """Return whether these are labels of that node."""
    return found.get(TOKEN) == token and found.get(LEDGER) == ledger_id


def is_node(container: Container, token: str, ledger_id: str) -> bool:
    """Return whether a container is that node's: it has the labels, and the node's name or its volume."""
    name = name_of(token)
    holds_volume = any((mount.name, mount.destination) == (name, FOLDER) for mount in container.mounts or ())
    return has_labels(container.labels, token, ledger_id) and (container.name == f"/{name}" or holds_volume)


def is_alive(container: Container) -> bool:
    """Return whether the container runs: one that is paused, or has no process, does not, whatever the engine says."""
    state = container.state
    return state.running and not state.paused and state.pid > 0


def owner_of(user: str) -> tuple[int, int] | None:
    """Return the user and group, as numbers, that a container runs as; None when it names them by words.

    >>> owner_of("65532:65532"), owner_of("7"), owner_of(""), owner_of("nobody")
    ((65532, 65532), (7, 7), (0, 0), None)
    """
    uid, _, gid = (user or "0").partition(":")
    gid = gid or uid
    return (int(uid), int(gid)) if uid.isdecimal() and gid.isdecimal() else None


def not_enforced(about: About, *, storage: bool) -> tuple[str, ...]:
    """Return the limits of a tier that an engine does not hold a node to; `storage`: whether it limits volumes."""
    limits = [
        ("cpu", about.cpu_quota),
        ("memory", about.memory_limit),
        ("pids", about.pids_limit),
        ("storage", storage),
    ]
    return tuple(limit for limit, there in limits if not there)


def body(
    spec: NodeSpec, *, image: str, ledger_id: str, volume: str, place: Place, about: About, grace_s: float
) -> dict[str, object]:
    """Return what the container is created with, on its volume. The node's orders are put into it before it starts."""
    if spec.port is None:
        raise ValueError("a container needs a port of the ledger")
    port = f"{spec.port}/tcp"
    host: dict[str, object] = {
        "Memory": round(spec.tier.memory_bytes),
        "MemorySwap": round(spec.tier.memory_bytes),
        "NanoCpus": round(spec.tier.cpu_vcpu * _NANO),
        "PidsLimit": PIDS,
        "ReadonlyRootfs": True,
        "Binds": [f"{name_of(spec.token)}:{FOLDER}"],
        "Tmpfs": {"/tmp": TMP},  # noqa: S108 -- inside the container
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "RestartPolicy": {"Name": "no"},
        "PortBindings": {port: [{"HostIp": place.bound_to, "HostPort": str(spec.port)}]},
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(LOG_BYTES // LOG_FILES), "max-file": str(LOG_FILES)},
        },
    }
    if about.init:
        host["Init"] = True
    if place.network:
        host["NetworkMode"] = place.network
    return {
        "Image": image,
        "Cmd": ["--config", f"{FOLDER}/{ORDERS}"],
        "Env": [f"OMP_NUM_THREADS={spec.tier.cpu_vcpu}"],
        "Labels": labels(spec, ledger_id, volume),
        "ExposedPorts": {port: {}},
        "Healthcheck": {"Test": ["NONE"]},  # the gateway asks /health; a probe of the engine's would start a Python
        "StopTimeout": ceil(grace_s),
        "HostConfig": host,
    }
