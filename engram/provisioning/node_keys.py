"""The pool of miner hotkeys: a node bears one of these, never the phone's key.

The ledger holds who leases which; the keys themselves are wallet files of mode 0600 in `<data_dir>/hotkeys`. Leasing
is part of the transaction that commits a launch; only making and reading files happens outside of it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio
from sqlalchemy import Connection, RowMapping, func, insert, or_, select, update

from engram.hotkeys import Keypair, ss58, wallet
from engram.ledger import Ledger
from engram.provisioning.errors import NodeKeyError
from engram.provisioning.model import NodeKey
from engram.provisioning.tables import node_keys
from engram.sessions import records as session_records

FOLDER = "hotkeys"
_FREE: Final = select(node_keys).where(node_keys.c.session_id.is_(None), node_keys.c.retired_at.is_(None))


def write_key(folder: Path, keypair: Keypair) -> Path:
    """Write the key's wallet file (mode 0600) into the pool's folder, named by its address; returns its path."""
    path = folder / ss58.encode(keypair.public_key)
    wallet.write_hotkey_file(path, keypair)
    return path


def file_of(key: NodeKey, folder: Path) -> Path:
    """Return the key's wallet file. A generated key is in the pool's folder, wherever the data folder has moved to."""
    path = Path(key.path)
    return folder / path.name if key.source == "generated" else path


def has_file(key: NodeKey, folder: Path) -> bool:
    """Return whether the key's wallet file is on this machine."""
    return file_of(key, folder).is_file()


def add(connection: Connection, public_key: bytes, path: Path, source: str, at: float) -> None:
    """Add a key to the pool; a retired one comes back. `source`: added | generated.

    Raises NodeKeyError when it is in the pool already or is the key of a phone that bought a session.
    """
    if session_records.has_bought(connection, public_key):
        raise NodeKeyError(f"{ss58.encode(public_key)} is the key of a client; a node needs one of its own")
    known = _get(connection, public_key)
    if known is None:
        connection.execute(insert(node_keys).values(public_key=public_key, path=str(path), source=source, added_at=at))
    elif known.retired_at is None:
        raise NodeKeyError(f"{ss58.encode(public_key)} is in the pool already")
    else:
        connection.execute(
            update(node_keys)
            .where(node_keys.c.public_key == public_key)
            .values(path=str(path), source=source, added_at=at, retired_at=None)
        )


def retire(connection: Connection, public_key: bytes, at: float) -> NodeKey:
    """Take a key out of the pool; a session that leases it keeps it to its end.

    Raises NodeKeyError when there is no such key.
    """
    known = _get(connection, public_key)
    if known is None:
        raise NodeKeyError(f"{ss58.encode(public_key)} is not in the pool")
    connection.execute(
        update(node_keys)
        .where(node_keys.c.public_key == public_key, node_keys.c.retired_at.is_(None))
        .values(retired_at=at)
    )
    return _get(connection, public_key) or known


def list_keys(connection: Connection) -> list[NodeKey]:
    """Return the whole pool, retired keys included, oldest first."""
    query = select(node_keys).order_by(node_keys.c.added_at, node_keys.c.public_key)
    return [_key(row) for row in connection.execute(query).mappings()]


def lease(
    connection: Connection,
    session_id: str,
    controller: bytes,
    at: float,
    is_here: Callable[[NodeKey], bool] = lambda key: True,
) -> NodeKey | None:
    """Lease a free key to the session, or return the one it has; None when no key is free.

    `is_here` says whether this machine has the key's file: of several gateways one may have keys that others have not.
    """
    held = leased(connection, session_id)
    if held is not None:
        if is_here(held):
            return held
        release(connection, session_id)
    free = _FREE.where(node_keys.c.public_key != controller).order_by(
        node_keys.c.leased_at.is_not(None), node_keys.c.leased_at, node_keys.c.added_at
    )
    key = next((key for row in connection.execute(free).mappings() if is_here(key := _key(row))), None)
    if key is None:
        return None
    connection.execute(
        update(node_keys)
        .where(node_keys.c.public_key == key.public_key, node_keys.c.session_id.is_(None))
        .values(session_id=session_id, leased_at=at)
    )
    return _get(connection, key.public_key)


def leased(connection: Connection, session_id: str) -> NodeKey | None:
    """Return the key that the session leases."""
    row = connection.execute(select(node_keys).where(node_keys.c.session_id == session_id)).mappings().first()
    return None if row is None else _key(row)


def release(connection: Connection, session_id: str) -> None:
    """End the session's lease; the key is free for another."""
    connection.execute(update(node_keys).where(node_keys.c.session_id == session_id).values(session_id=None))


def is_free(connection: Connection, is_here: Callable[[NodeKey], bool] = lambda key: True) -> bool:
    """Return whether a key can be leased; `is_here` as in `lease`."""
    return any(is_here(_key(row)) for row in connection.execute(_FREE).mappings())


def count_usable(connection: Connection) -> int:
    """Count the keys that serve nodes or may: leased ones, and those that are free and not retired."""
    usable = or_(node_keys.c.session_id.is_not(None), node_keys.c.retired_at.is_(None))
    return connection.execute(select(func.count()).select_from(node_keys).where(usable)).scalar_one()


async def generate(ledger: Ledger, folder: Path, at: float) -> None:
    """Make a key, its file first, and add it to the pool."""
    keypair = Keypair.generate()
    path = await trio.to_thread.run_sync(write_key, folder, keypair)
    await ledger.write(lambda connection: add(connection, keypair.public_key, path, "generated", at))


def _get(connection: Connection, public_key: bytes) -> NodeKey | None:
    row = connection.execute(select(node_keys).where(node_keys.c.public_key == public_key)).mappings().first()
    return None if row is None else _key(row)


def _key(row: RowMapping) -> NodeKey:
    return NodeKey(**row)
