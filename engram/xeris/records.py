"""Accepted payloads and recorded permits. Functions run inside `ledger.write` or `ledger.read`."""

from collections.abc import Collection

import msgspec
from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from engram.hotkeys import PublicKey, ss58
from engram.ledger.sql import upsert
from engram.xeris.judging import Submission
from engram.xeris.tables import accepted, permits, signatures

KEY_BYTES = 32
BLOCKS_KEPT = 200_000
"""Blocks of which permits are kept: 28 days."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A payload that was accepted."""

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
    document: msgspec.Raw
    acknowledgement: msgspec.Raw
    anchor_id: int | None
    leaf: int | None
    overdue: bool


def stored(connection: Connection, kind: str, nonce: str, signer: PublicKey) -> tuple[str, bytes] | None:
    """Return the signed_hash and the acknowledgement of what came with this nonce; None when it is new."""
    query = select(accepted.c.signed_hash, accepted.c.acknowledgement).where(
        accepted.c.kind == kind, accepted.c.nonce == nonce, accepted.c.signer == signer
    )
    row = connection.execute(query).first()
    return None if row is None else (row[0], row[1])


def signed_before(connection: Connection, submission: Submission) -> str | None:
    """Return another output_hash that one of the payload's signers has signed for its subnet, kind, block and source.

    Signers are the proposer and those that co-signed, of this payload and of those before.
    """
    query = (
        select(signatures.c.output_hash)
        .where(
            signatures.c.signer.in_(sorted(submission.keys)),
            signatures.c.netuid == submission.netuid,
            signatures.c.kind == submission.kind,
            signatures.c.block == submission.block,
            signatures.c.source == _source(submission),
            signatures.c.output_hash != submission.output_hash,
        )
        .limit(1)
    )
    found: str | None = connection.scalar(query)
    return found


def _source(submission: Submission) -> str:
    return "" if submission.kind == "scores" else submission.source


def accept(connection: Connection, submission: Submission, acknowledgement: bytes, at: float) -> None:
    """Keep an accepted payload with its acknowledgement."""
    connection.execute(
        insert(accepted).values(
            kind=submission.kind,
            nonce=submission.nonce,
            netuid=submission.netuid,
            block=submission.block,
            source=submission.source,
            signer=submission.signer,
            signers=len(submission.keys),
            output_hash=submission.output_hash,
            signed_hash=submission.signed_hash,
            round_ts=submission.round_ts,
            document=submission.document,
            acknowledgement=acknowledgement,
            received_at=at,
        )
    )
    for key in submission.keys:
        signed = upsert(signatures).values(
            signer=key,
            netuid=submission.netuid,
            kind=submission.kind,
            block=submission.block,
            source=_source(submission),
            output_hash=submission.output_hash,
            at=at,
        )
        connection.execute(signed.on_conflict_do_nothing())


def newest(
    connection: Connection, netuid: int, kind: str | None, limit: int, before_id: int | None = None
) -> list[Accepted]:
    """Return what was accepted last, the newest first; with `before_id` what is older than it."""
    query = select(accepted).where(accepted.c.netuid == netuid)
    if kind is not None:
        query = query.where(accepted.c.kind == kind)
    if before_id is not None:
        query = query.where(accepted.c.id < before_id)
    rows = connection.execute(query.order_by(accepted.c.id.desc()).limit(limit)).mappings()
    return [_accepted(row) for row in rows]


def by_hash(connection: Connection, signed_hash: str) -> Accepted | None:
    """Return an accepted payload by its signed_hash."""
    row = connection.execute(select(accepted).where(accepted.c.signed_hash == signed_hash).limit(1)).mappings().first()
    return None if row is None else _accepted(row)


def count(connection: Connection) -> int:
    """Return how many payloads are kept."""
    return connection.scalar(select(func.count()).select_from(accepted)) or 0


def purge(connection: Connection, before: float) -> int:
    """Forget what came before then (unix seconds); returns how many payloads went."""
    connection.execute(delete(signatures).where(signatures.c.at < before))
    return connection.execute(delete(accepted).where(accepted.c.received_at < before)).rowcount


def note_permits(connection: Connection, netuid: int, block: int, keys: Collection[PublicKey]) -> None:
    """Record who holds a validator permit at a block; blocks that have the same permits share a row."""
    joined = b"".join(sorted(keys))
    last = (
        connection.execute(select(permits).where(permits.c.netuid == netuid).order_by(permits.c.block.desc()).limit(1))
        .mappings()
        .first()
    )
    if last is not None and block <= last["until_block"]:
        return
    if last is not None and last["holders"] == joined:
        same = (permits.c.netuid == netuid) & (permits.c.block == last["block"])
        connection.execute(update(permits).where(same).values(until_block=block))
        return
    connection.execute(
        upsert(permits).values(netuid=netuid, block=block, until_block=block, holders=joined).on_conflict_do_nothing()
    )
    connection.execute(delete(permits).where(permits.c.netuid == netuid, permits.c.until_block < block - BLOCKS_KEPT))


def permits_at(connection: Connection, netuid: int, block: int) -> frozenset[PublicKey] | None:
    """Return who held a permit at a block; None when that was not recorded.

    Permits change at the end of an epoch alone, so a block between two rows with different permits is not known.
    """
    query = (
        select(permits.c.until_block, permits.c.holders)
        .where(permits.c.netuid == netuid, permits.c.block <= block)
        .order_by(permits.c.block.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    if row is None or block > row[0]:
        return None
    keys: bytes = row[1]
    return frozenset(keys[place : place + KEY_BYTES] for place in range(0, len(keys), KEY_BYTES))


def _accepted(row: RowMapping) -> Accepted:
    return Accepted(
        id=row["id"],
        kind=row["kind"],
        netuid=row["netuid"],
        block=row["block"],
        signer=ss58.encode(row["signer"]),
        signers=row["signers"],
        output_hash=row["output_hash"],
        signed_hash=row["signed_hash"],
        round_ts=row["round_ts"],
        received_at=row["received_at"],
        document=msgspec.Raw(row["document"]),
        acknowledgement=msgspec.Raw(row["acknowledgement"]),
        anchor_id=row["anchor_id"],
        leaf=row["leaf"],
        overdue=bool(row["overdue"]),
    )
