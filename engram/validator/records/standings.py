"""Miners and their standings in the ledger. Functions run inside `ledger.write` or `ledger.read`."""

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, RowMapping, select, update

from engram import wire
from engram.ledger import Prepared
from engram.ledger.sql import upsert
from engram.validator.model import Known
from engram.validator.standing import Standing
from engram.validator.tables import miners

_NEW: Final = upsert(miners)
_KEEP: Final = Prepared(
    _NEW.on_conflict_do_update(
        index_elements=["hotkey"],
        set_={column.name: _NEW.excluded[column.name] for column in miners.c if not column.primary_key},
    )
)


def known(connection: Connection, hotkey: bytes) -> Known | None:
    """Return what is kept of a miner."""
    row = connection.execute(select(miners).where(miners.c.hotkey == hotkey)).mappings().first()
    return None if row is None else _known(row)


def all_known(connection: Connection) -> dict[bytes, Known]:
    """Return what is kept of every miner, by hotkey."""
    return {row["hotkey"]: _known(row) for row in connection.execute(select(miners)).mappings()}


def keep(connection: Connection, found: Sequence[Known], at: float) -> None:
    """Write what is kept of miners."""
    _KEEP.apply_each(
        connection,
        [
            {
                **msgspec.structs.asdict(each.standing),
                "hotkey": each.hotkey,
                "uid": each.uid,
                "registered_only": int(each.registered_only),
                "lengths": msgspec.json.encode(each.lengths).decode(),
                "updated_at": at,
            }
            for each in found
        ],
    )


def set_lengths(connection: Connection, hotkey: bytes, lengths: Sequence[int], at: float) -> None:
    """Keep the lengths of a miner's public texts."""
    text = msgspec.json.encode(list(lengths)).decode()
    connection.execute(update(miners).where(miners.c.hotkey == hotkey).values(lengths=text, updated_at=at))


def _known(row: RowMapping) -> Known:
    return Known(
        hotkey=row["hotkey"],
        uid=row["uid"],
        standing=Standing(
            ema=row["ema"],
            rounds=row["rounds"],
            reputation=row["reputation"],
            challenges=row["challenges"],
            proved=row["proved"],
            slashes=row["slashes"],
            slashed_until_block=row["slashed_until_block"],
        ),
        registered_only=bool(row["registered_only"]),
        lengths=tuple(wire.decode(row["lengths"], list[int])) if row["lengths"] else (),
    )
