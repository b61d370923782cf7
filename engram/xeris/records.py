"""Accepted payloads and recorded permits. Functions run inside `ledger.write` or `ledger.read`."""

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import (
    CompoundSelect,
    Connection,
    RowMapping,
    Select,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
    tuple_,
    union_all,
    update,
)

from engram.hotkeys import PublicKey, ss58
from engram.ledger import Prepared
from engram.ledger.sql import upsert
from engram.relay.rules import signed_source
from engram.relay.schemas import SCHEMAS
from engram.xeris.judging import Submission
from engram.xeris.tables import accepted, permits, signatures

KEY_BYTES = 32
DAY_S = 86_400.0
PURGED_AT_ONCE = 200
"""A payload may have a million bytes; more would hold up the ledger's writer."""
BLOCKS_KEPT = 200_000
"""Blocks of which permits are kept: 28 days."""


_STORED = Prepared(
    select(accepted.c.signed_hash, accepted.c.acknowledgement).where(
        accepted.c.netuid == bindparam("netuid"),
        accepted.c.kind == bindparam("kind"),
        accepted.c.nonce == bindparam("nonce"),
        accepted.c.signer == bindparam("signer"),
    )
)
_ACCEPTED = Prepared(
    select(accepted.c.id).where(
        accepted.c.signed_hash == bindparam("signed_hash"), accepted.c.signer == bindparam("signer")
    )
)
_GAPS = Prepared(
    select(func.count()).where(
        accepted.c.signer == bindparam("signer"),
        accepted.c.netuid == bindparam("netuid"),
        accepted.c.kind == literal_column("'gap'"),
        accepted.c.block == bindparam("block"),
    )
)
_OTHER = Prepared(
    select(signatures.c.output_hash).where(
        signatures.c.signer == bindparam("signer"),
        signatures.c.netuid == bindparam("netuid"),
        signatures.c.kind == bindparam("kind"),
        signatures.c.block == bindparam("block"),
        signatures.c.source == bindparam("source"),
        signatures.c.output_hash != bindparam("output_hash"),
    )
)
_LATER = ("id", "anchor_id", "leaf")
"""Columns that are empty when a payload is accepted."""
_ACCEPT = Prepared(insert(accepted), [column.name for column in accepted.columns if column.name not in _LATER])
_SIGNED = Prepared(upsert(signatures).on_conflict_do_nothing())
_PERMITS = Prepared(
    select(permits.c.until_block, permits.c.holders)
    .where(permits.c.netuid == bindparam("netuid"), permits.c.block <= bindparam("block"))
    .order_by(permits.c.block.desc())
    .limit(literal_column("1"))
    .offset(literal_column("0"))
)
_AFTER = Prepared(
    select(permits.c.holders)
    .where(permits.c.netuid == bindparam("netuid"), permits.c.block > bindparam("block"))
    .order_by(permits.c.block)
    .limit(literal_column("1"))
    .offset(literal_column("0"))
)


_WHOLE = (accepted.c.document, accepted.c.acknowledgement)
_HEADS = [column for column in accepted.columns if column not in (*_WHOLE, accepted.c.nonce, accepted.c.source)]
"""Columns of AcceptedHead. A document may have a million bytes: where it is not shown, it is not read."""


class AcceptedHead(msgspec.Struct, frozen=True, kw_only=True):
    """A payload that was accepted, without its document."""

    id: int
    kind: str
    netuid: int
    block: int
    signer: str
    signers: int
    output_hash: str
    signed_hash: str
    round_ts: float
    received_at: float
    anchor_id: int | None
    leaf: int | None
    overdue: int
    """0, or one of anchoring.LATE and CANNOT."""


class Accepted(AcceptedHead, frozen=True, kw_only=True):
    """A payload that was accepted, whole."""

    document: msgspec.Raw
    acknowledgement: msgspec.Raw


def stored(connection: Connection, submission: Submission) -> tuple[str, bytes] | None:
    """Return the signed_hash and the acknowledgement of what came with this nonce before; None when it is new."""
    row = _STORED.values(
        connection,
        {
            "netuid": submission.netuid,
            "kind": submission.kind,
            "nonce": submission.nonce,
            "signer": submission.signer,
        },
    )
    return None if row is None else (row[0], row[1])


def is_accepted(connection: Connection, signer: PublicKey, signed_hash: str) -> bool:
    """Return whether this payload of this signer was accepted before."""
    return _ACCEPTED.values(connection, {"signed_hash": signed_hash, "signer": signer}) is not None


def signed_before(connection: Connection, submission: Submission) -> str | None:
    """Return another output_hash that one of the payload's signers has signed for its subnet, kind, block and source.

    Signers are the proposer and those that co-signed, of this payload and of those before.
    """
    about = {
        "netuid": submission.netuid,
        "kind": submission.kind,
        "block": submission.block,
        "source": _source(submission),
        "output_hash": submission.output_hash,
    }
    for key in sorted(submission.keys):
        other = _OTHER.values(connection, about | {"signer": key})
        if other is not None:
            return str(other[0])
    return None


def gaps_of(connection: Connection, submission: Submission) -> int:
    """Return how many gap markers of a payload's signer were accepted of its subnet and block."""
    about = {"signer": submission.signer, "netuid": submission.netuid, "block": submission.block}
    row = _GAPS.values(connection, about)
    return 0 if row is None else int(row[0])


def _source(submission: Submission) -> str:
    return signed_source(submission.kind, submission.source)


def accept(connection: Connection, submission: Submission, acknowledgement: bytes, at: float, overdue: int = 0) -> None:
    """Keep an accepted payload with its acknowledgement."""
    about = {
        "kind": submission.kind,
        "netuid": submission.netuid,
        "block": submission.block,
        "output_hash": submission.output_hash,
    }
    of_payload = {
        "nonce": submission.nonce,
        "source": submission.source,
        "signer": submission.signer,
        "signers": len(submission.keys),
        "signed_hash": submission.signed_hash,
        "round_ts": submission.round_ts,
        "document": submission.document,
        "acknowledgement": acknowledgement,
        "received_at": at,
        "overdue": overdue,
    }
    _ACCEPT.apply(connection, about | of_payload)
    for key in submission.keys:
        _SIGNED.apply(connection, about | {"signer": key, "source": _source(submission), "at": at})


def newest(connection: Connection, netuid: int, kind: str) -> Accepted | None:
    """Return what was accepted last of a kind; None where nothing was."""
    query = select(accepted).where(accepted.c.netuid == netuid, accepted.c.kind == kind)
    row = connection.execute(query.order_by(accepted.c.id.desc()).limit(1)).mappings().first()
    return None if row is None else _accepted(row)


def page(
    connection: Connection, netuid: int, kind: str | None, limit: int, most_bytes: int, before_id: int | None = None
) -> tuple[list[Accepted], int | None]:
    """Return what was accepted last, the newest first, and `before_id` of the page after, None at the end.

    A page has at most `limit` payloads and, unless it is a single one, `most_bytes` of documents and acknowledgements.
    With `before_id` it begins with what is older than it.
    """
    size = func.length(accepted.c.document) + func.length(accepted.c.acknowledgement)
    query = select(accepted.c.id, size.label("size")).where(accepted.c.netuid == netuid)
    if before_id is not None:
        query = query.where(accepted.c.id < before_id)
    sizes = connection.execute(_of_kinds(query, kind, limit + 1)).all()
    ids = list[int]()
    left = most_bytes
    for each_id, each_bytes in sizes[:limit]:
        left -= each_bytes
        if ids and left < 0:
            break
        ids.append(each_id)
    rows = connection.execute(select(accepted).where(accepted.c.id.in_(ids)).order_by(accepted.c.id.desc())).mappings()
    return [_accepted(row) for row in rows], ids[-1] if len(sizes) > len(ids) else None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which accepted payloads are looked for; None: whatever they have there."""

    netuid: int
    kind: str | None = None
    signer: PublicKey | None = None
    from_block: int | None = None
    to_block: int | None = None
    anchored: bool | None = None
    before_id: int | None = None


def search(connection: Connection, wanted: Wanted, limit: int) -> list[AcceptedHead]:
    """Return accepted payloads that fit, the newest first, without their documents."""
    query = select(*_HEADS).where(accepted.c.netuid == wanted.netuid)
    if wanted.signer is not None:
        query = query.where(accepted.c.signer == wanted.signer)
    if wanted.from_block is not None:
        query = query.where(accepted.c.block >= wanted.from_block)
    if wanted.to_block is not None:
        query = query.where(accepted.c.block <= wanted.to_block)
    if wanted.anchored is not None:
        query = query.where(accepted.c.anchor_id.is_not(None) if wanted.anchored else accepted.c.anchor_id.is_(None))
    if wanted.before_id is not None:
        query = query.where(accepted.c.id < wanted.before_id)
    rows = connection.execute(_of_kinds(query, wanted.kind, limit)).mappings()
    return [AcceptedHead(**_head(row)) for row in rows]


def _of_kinds(
    query: Select[*tuple[Any, ...]], kind: str | None, limit: int, *, newest_first: bool = True
) -> CompoundSelect[*tuple[Any, ...]]:
    """Return the first rows of a query of one subnet, of each kind by the index of its own where none is named.

    By the order of their numbers alone, what is looked for of a small subnet would be all that was accepted of others.
    """
    place = accepted.c.id.desc() if newest_first else accepted.c.id
    kinds = SCHEMAS if kind is None else (kind,)
    parts = [query.where(accepted.c.kind == each).order_by(place).limit(limit).subquery() for each in kinds]
    order = text("id DESC" if newest_first else "id")
    return union_all(*[select(part) for part in parts]).order_by(order).limit(limit)


def later(connection: Connection, netuid: int, kind: str | None, after_id: int, limit: int) -> list[AcceptedHead]:
    """Return what was accepted after the payload of a number, the oldest first, without its documents."""
    query = select(*_HEADS).where(accepted.c.netuid == netuid, accepted.c.id > after_id)
    rows = connection.execute(_of_kinds(query, kind, limit, newest_first=False)).mappings()
    return [AcceptedHead(**_head(row)) for row in rows]


def last_id(connection: Connection) -> int:
    """Return the number of the newest payload; 0 before the first."""
    return connection.scalar(select(func.max(accepted.c.id))) or 0


def by_hash(connection: Connection, signed_hash: str) -> Accepted | None:
    """Return an accepted payload by its signed_hash."""
    row = connection.execute(select(accepted).where(accepted.c.signed_hash == signed_hash).limit(1)).mappings().first()
    return None if row is None else _accepted(row)


def count(connection: Connection) -> int:
    """Return how many payloads are kept."""
    return connection.scalar(select(func.count()).select_from(accepted)) or 0


def kept_from(connection: Connection, now: float, keep_s: float) -> float:
    """Return the unix time before which payloads are forgotten: `keep_s` before now, or before the newest of them.

    A clock that runs ahead for a moment would else forget every nonce, and all payloads could be submitted again.
    """
    newest = newest_at(connection)
    return (now if newest is None else min(now, newest + DAY_S)) - keep_s


def newest_at(connection: Connection) -> float | None:
    """Return when the newest payload was accepted (unix seconds); None before the first."""
    found = connection.scalar(select(func.max(accepted.c.received_at)))
    return None if found is None else float(found)


def purge(connection: Connection, before: float) -> int:
    """Forget payloads, and what was signed, of before then (unix seconds); at most PURGED_AT_ONCE of either at once.

    Returns the larger number of the two.
    """
    old = select(accepted.c.id).where(accepted.c.received_at < before).limit(PURGED_AT_ONCE)
    payloads = connection.execute(delete(accepted).where(accepted.c.id.in_(old))).rowcount
    key = list(signatures.primary_key.columns)
    of_old = select(*key).where(signatures.c.at < before).limit(PURGED_AT_ONCE)
    return max(payloads, connection.execute(delete(signatures).where(tuple_(*key).in_(of_old))).rowcount)


def note_permits(connection: Connection, netuid: int, block: int, keys: Collection[PublicKey], tempo: int) -> None:
    """Record who holds a validator permit at a block; blocks that have the same permits share a row.

    Permits change at the end of an epoch, of `tempo` + 1 blocks. Two blocks with the same permits that are no further
    apart have one such end between them at most, so that all blocks between have these permits too. Across a longer
    gap, in which the receiver was down, permits may have changed and changed back: the blocks between stay unknown.
    """
    joined = b"".join(sorted(keys))
    last = (
        connection.execute(select(permits).where(permits.c.netuid == netuid).order_by(permits.c.block.desc()).limit(1))
        .mappings()
        .first()
    )
    if last is not None and block <= last["until_block"]:
        return
    if last is not None and last["holders"] == joined and block - last["until_block"] <= tempo:
        same = (permits.c.netuid == netuid) & (permits.c.block == last["block"])
        connection.execute(update(permits).where(same).values(until_block=block))
        return
    connection.execute(
        upsert(permits).values(netuid=netuid, block=block, until_block=block, holders=joined).on_conflict_do_nothing()
    )
    connection.execute(delete(permits).where(permits.c.netuid == netuid, permits.c.until_block < block - BLOCKS_KEPT))


def note_permits_of(connection: Connection, netuid: int, block: int, keys: Collection[PublicKey]) -> None:
    """Record who held a permit at one block of the past that was missed."""
    row = upsert(permits).values(netuid=netuid, block=block, until_block=block, holders=b"".join(sorted(keys)))
    connection.execute(row.on_conflict_do_nothing())


def permits_at(connection: Connection, netuid: int, block: int) -> frozenset[PublicKey] | None:
    """Return who held a permit at a block; None when that was not recorded.

    A block between the last one of a row and the first one of the next is not known.
    """
    row = _PERMITS.values(connection, {"netuid": netuid, "block": block})
    if row is None or block > row[0]:
        return None
    return _keys_of(row[1])


def held_around(connection: Connection, netuid: int, block: int) -> frozenset[PublicKey]:
    """Return who held a permit at the nearest blocks, before a block and after it, of which that was recorded."""
    about = {"netuid": netuid, "block": block}
    before, after = _PERMITS.values(connection, about), _AFTER.values(connection, about)
    return _keys_of(before[1] if before else b"") | _keys_of(after[0] if after else b"")


def _keys_of(joined: bytes) -> frozenset[PublicKey]:
    return frozenset(joined[place : place + KEY_BYTES] for place in range(0, len(joined), KEY_BYTES))


def _head(row: RowMapping) -> dict[str, Any]:
    fields = {column.name: row[column.name] for column in _HEADS}
    return fields | {"signer": ss58.encode(fields["signer"])}


def _accepted(row: RowMapping) -> Accepted:
    return Accepted(
        **_head(row), document=msgspec.Raw(row["document"]), acknowledgement=msgspec.Raw(row["acknowledgement"])
    )
