"""The folder of a local node: its launch file (launch.json), its process (node.json), its store, its log.

nodes/<session_id>/launch.json   the node's orders, mode 0600 (engram.nodes.launch.LaunchFile)
nodes/<session_id>/node.json     token, port, and the process that was started: boot id, pid, start time
nodes/<session_id>/data/         what the node stores
nodes/<session_id>/output.log    its output; a pipe would end it with the gateway
"""

import os
import shutil
from pathlib import Path

import msgspec

from config.model import Environment, MinerSettings
from engram import wire
from engram.nodes import launch
from engram.provisioning.model import NodeSpec
from engram.provisioning.processes import ProcessId

LAUNCH_FILE = "launch.json"
NODE_FILE = "node.json"
OUTPUT_FILE = "output.log"
DATA = "data"


class NodeFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway needs to find the node again."""

    token: str
    session_id: str
    host: str
    port: int
    memory_bytes: int
    storage_bytes: int
    cpu_vcpu: int = 0
    """0 in the files of older versions, which did not keep it."""
    process: ProcessId | None = None
    """None from the decision to start until the process is known."""


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that all nodes of a backend share."""

    host: str
    netuid: int
    environment: Environment
    embedder: launch.EmbedderLaunch
    miner: MinerSettings = MinerSettings()
    chain_endpoints: tuple[str, ...] = ()
    chain_reset_after_s: float = 0.0
    gateway: str = ""
    """Base URL at which nodes reach the gateway; empty: they do not."""


def prepare(folder: Path, spec: NodeSpec, node: NodeFile, common: NodeSettings) -> None:
    """Write the orders and the node file; what the node stored before is kept. Blocks. Raises OSError."""
    (folder / DATA).mkdir(mode=0o700, parents=True, exist_ok=True)
    orders = launch.LaunchFile(
        session_id=spec.session_id,
        launch_token=spec.token,
        host=node.host,
        port=node.port,
        data_dir=str(folder / DATA),
        hotkey_file=spec.hotkey_file,
        controller_public_key=spec.controller.hex(),
        ends_at=spec.ends_at,
        storage_bytes=node.storage_bytes,
        memory_bytes=node.memory_bytes,
        netuid=common.netuid,
        chain_endpoints=common.chain_endpoints,
        chain_reset_after_s=common.chain_reset_after_s,
        environment=common.environment,
        embedder=common.embedder,
        miner=common.miner,
    )
    write_node(folder, node)
    launch.write(folder / LAUNCH_FILE, orders)


def write_node(folder: Path, node: NodeFile) -> None:
    """Replace the node file, durably. Blocks. Raises OSError."""
    _write(folder / NODE_FILE, msgspec.json.encode(node))


def read_node(folder: Path) -> NodeFile | None:
    """Read the node file; None when it is missing or damaged. Blocks."""
    try:
        return wire.decode((folder / NODE_FILE).read_bytes(), NodeFile)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def move_end(folder: Path, ends_at: float) -> None:
    """Tell the node another end time: it reads its orders again before it ends. Blocks.

    Raises OSError, LaunchFileError."""
    path = folder / LAUNCH_FILE
    if path.exists():
        launch.write(path, msgspec.structs.replace(launch.read(path), ends_at=ends_at))


def remove(folder: Path) -> None:
    """Remove the folder and all in it; the node file last, so that an interrupted removal is found and finished.

    Blocks. Raises OSError.
    """
    if not folder.exists():
        return
    for path in folder.iterdir():
        if path.name == NODE_FILE:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (folder / NODE_FILE).unlink(missing_ok=True)
    folder.rmdir()


def size_bytes(folder: Path) -> int:
    """Return the bytes on disk under `folder`. Walks all of it; blocks."""
    total = 0
    for path, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.stat(os.path.join(path, name), follow_symlinks=False).st_blocks * 512
            except OSError:
                continue
    return total


def bound_output(folder: Path, limit: int) -> None:
    """Cut the output file when it has grown above `limit` bytes; the node appends and goes on. Blocks."""
    path = folder / OUTPUT_FILE
    try:
        if path.stat().st_size > limit:
            os.truncate(path, 0)
    except FileNotFoundError:
        return


def _write(path: Path, content: bytes) -> None:
    staged = path.with_name(f".{path.name}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, path)
