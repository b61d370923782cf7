"""What is put into a node's container before it starts: its orders, and its hotkey where that does not stay here.

On an engine of this machine a node has its hotkey, as a local one has: root of this machine reads both. On any other
machine the hotkey stays with the gateway, and the node gets nothing that is a secret.
"""

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from config.model import Settings
from engram import wire
from engram.nodes import launch
from engram.nodes.launch import LaunchFile
from engram.provisioning.docker import container
from engram.provisioning.model import NodeSpec
from engram.provisioning.node_environment import foreign_settings, orders_of

MOST_BYTES = 65_536
"""Of one file."""


def files(spec: NodeSpec, settings: Settings, *, with_hotkey: bool) -> dict[str, bytes]:
    """Return the files by name. Blocks. Raises OSError, LaunchFileError."""
    common = foreign_settings(settings)
    port = spec.port or 0
    store = f"{container.FOLDER}/{container.STORE}"
    if not with_hotkey:
        return {container.ORDERS: _encoded(orders_of(spec, common, port=port, data_dir=store))}
    found = {container.HOTKEY: _read(Path(spec.hotkey_file))}
    miner, embedder = msgspec.structs.replace(common.miner, announce=settings.miner.announce), common.embedder
    if settings.miner.hotkey_password_file:
        found[container.PASSWORD] = _read(Path(settings.miner.hotkey_password_file).expanduser())
        miner = msgspec.structs.replace(miner, hotkey_password_file=f"{container.FOLDER}/{container.PASSWORD}")
    key = os.environ.get(launch.API_KEY_VARIABLE)
    if key and embedder.kind == "openai":
        found[container.EMBEDDING_KEY] = key.encode()
        embedder = msgspec.structs.replace(embedder, api_key_file=f"{container.FOLDER}/{container.EMBEDDING_KEY}")
    orders = orders_of(
        spec,
        msgspec.structs.replace(common, miner=miner, embedder=embedder),
        port=port,
        data_dir=store,
        hotkey_file=f"{container.FOLDER}/{container.HOTKEY}",
    )
    return {**found, container.ORDERS: _encoded(orders)}


def packed(found: Mapping[str, bytes], owner: tuple[int, int]) -> bytes:
    """Return a tar archive of files of mode 0600 that belong to `owner`."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in found.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            entry.uid, entry.gid = owner
            archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def with_end(archive: bytes, ends_at: float) -> dict[str, bytes] | None:
    """Return the orders of an archive with another end; None when it holds none that can be read."""
    try:
        # Not compressed, and no link is followed: what runs in the container may have put anything there.
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as opened:
            entry = opened.getmember(container.ORDERS)
            file = opened.extractfile(entry) if entry.isreg() else None
            content = b"" if file is None else file.read(MOST_BYTES)
        orders = wire.decode(content, LaunchFile)
    except (tarfile.TarError, KeyError, ValueError, OverflowError, UnicodeDecodeError):  # DecodeError is a ValueError
        return None
    return {container.ORDERS: _encoded(msgspec.structs.replace(orders, ends_at=ends_at))}


def _encoded(orders: LaunchFile) -> bytes:
    return msgspec.json.format(msgspec.json.encode(orders))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES)
