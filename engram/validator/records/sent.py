"""Weights that were sent, and the last look, in the ledger. Functions run inside `ledger.write` or `ledger.read`."""

from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from engram import wire
from engram.ledger.sql import one_of, upsert
from engram.validator.model import (
    Look,
    Sent,
    SentState,
)
from engram.validator.tables import (
    looks,
    weights_sent,
)

MAY_HAVE_ARRIVED: Final = (SentState.INTENT, SentState.SET, SentState.UNKNOWN)
"""States of weights that are on the chain, or may be."""
_OPEN: Final = (SentState.INTENT, SentState.UNKNOWN)
LOOKED_FOR: Final = 20
"""Weights of an open outcome that are looked for at most: the newest."""


def last_sent_block(connection: Connection, netuid: int, hotkey: bytes) -> int | None:
    """Return the newest block at which weights were included, or were sent and may have been."""
    query = select(func.max(weights_sent.c.block)).where(
        weights_sent.c.netuid == netuid,
        weights_sent.c.hotkey == hotkey,
        one_of(weights_sent.c.state, MAY_HAVE_ARRIVED),
    )
    newest: int | None = connection.scalar(query)
    return newest


def intend_weights(connection: Connection, sent: Sent, hotkey: bytes, first_block: int) -> int | None:
    """Commit to sending weights; None when the epoch from `first_block` on has had its weights already.

    `id` of `sent` is ignored. Of what the chain has refused before in this epoch the newest is kept.
    """
    last = last_sent_block(connection, sent.netuid, hotkey)
    if sent.state in MAY_HAVE_ARRIVED and last is not None and last >= first_block:
        return None
    refused = (
        _of(sent.netuid, hotkey)
        & (weights_sent.c.epoch == sent.epoch)
        & (weights_sent.c.state == str(SentState.REFUSED))
    )
    newest = select(func.max(weights_sent.c.id)).where(refused).scalar_subquery()
    connection.execute(delete(weights_sent).where(refused, weights_sent.c.id < newest))
    values = msgspec.structs.asdict(sent) | {
        "hotkey": hotkey,
        "weights": msgspec.json.encode({str(uid): weight for uid, weight in sent.weights.items()}).decode(),
        "state": str(sent.state),
    }
    values.pop("id")
    made = connection.execute(insert(weights_sent).values(values))
    return int(made.inserted_primary_key[0])  # type: ignore[index]


def settle_weights(
    connection: Connection, sent_id: int, state: SentState, reason: str | None, block: int | None = None
) -> bool:
    """Write what became of weights; False unless they were intended, or their outcome unknown.

    `block` is the one that holds them, which may belong to a later epoch than the one at which they were sent.
    """
    done = connection.execute(
        update(weights_sent)
        .where(weights_sent.c.id == sent_id, one_of(weights_sent.c.state, _OPEN))
        .values(state=str(state), reason=reason, **({} if block is None else {"block": block}))
    )
    return done.rowcount == 1


def sent_weights(connection: Connection, netuid: int, hotkey: bytes, limit: int = 20) -> list[Sent]:
    """Return the newest weights, newest first."""
    return _sent(connection, _of(netuid, hotkey), limit)


def unsettled(connection: Connection, netuid: int, hotkey: bytes) -> list[Sent]:
    """Return the newest LOOKED_FOR weights whose outcome is open, newest first."""
    return _sent(connection, _of(netuid, hotkey) & one_of(weights_sent.c.state, _OPEN), LOOKED_FOR)


def _of(netuid: int, hotkey: bytes) -> ColumnElement[bool]:
    return (weights_sent.c.netuid == netuid) & (weights_sent.c.hotkey == hotkey)


def _sent(connection: Connection, chosen: ColumnElement[bool], limit: int) -> list[Sent]:
    query = select(weights_sent).where(chosen).order_by(weights_sent.c.id.desc()).limit(limit)
    return [
        Sent(
            id=row["id"],
            netuid=row["netuid"],
            epoch=row["epoch"],
            block=row["block"],
            round_id=row["round_id"],
            weights={int(uid): value for uid, value in wire.decode(row["weights"], dict[str, float]).items()},
            state=SentState(row["state"]),
            reason=row["reason"],
            at=row["at"],
        )
        for row in connection.execute(query).mappings()
    ]


def keep_look(connection: Connection, look: Look, hotkey: bytes) -> None:
    """Write what the last look said, over the one before."""
    values = msgspec.structs.asdict(look) | {"hotkey": hotkey, "warnings": msgspec.json.encode(look.warnings).decode()}
    written = upsert(looks).values(values)
    connection.execute(written.on_conflict_do_update(index_elements=["netuid", "hotkey"], set_=values))


def own_hotkey(connection: Connection, netuid: int) -> bytes | None:
    """Return the hotkey of the validator that looked last; None before the first look."""
    query = select(looks.c.hotkey).where(looks.c.netuid == netuid).order_by(looks.c.at.desc()).limit(1)
    found: bytes | None = connection.scalar(query)
    return found


def last_look(connection: Connection, netuid: int, hotkey: bytes) -> Look | None:
    """Return what the last look said; None before the first."""
    query = select(looks).where(looks.c.netuid == netuid, looks.c.hotkey == hotkey)
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    return Look(
        netuid=row["netuid"],
        verdict=row["verdict"],
        detail=row["detail"],
        warnings=wire.decode(row["warnings"], list[str]),
        block=row["block"],
        uid=row["uid"],
        at=row["at"],
    )
