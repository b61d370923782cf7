"""Intended roots and their leaves in the ledger. Functions run inside `ledger.write` or `ledger.read`."""

from collections.abc import Callable
from itertools import groupby
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, select, update

from engram import wire
from engram.ledger.sql import upsert
from engram.relay.anchoring import rules
from engram.relay.anchoring.rules import Intent
from engram.relay.errors import OutboxFull
from engram.relay.model import AnchorPayload, Enqueued, EntryState
from engram.relay.records import enqueue
from engram.relay.rules import ANCHORED_KINDS, anchor_payload
from engram.relay.signer import Signed
from engram.relay.tables import relay_anchors, relay_outbox, relay_streams, relay_unanchored

KEPT_S: Final = 90 * 86_400.0


class IntendedAnchor(msgspec.Struct, frozen=True, kw_only=True):
    """A root that is to be committed, with its leaves: kind and output_hash of each."""

    id: int
    epoch: int
    intent: Intent
    leaves: list[tuple[str, str]]


def _waiting(netuid: int, signer: str) -> Select[int, str, str]:
    """Return the query of what was delivered and is under no root yet: id, kind and output hash."""
    return (
        select(relay_outbox.c.id, relay_outbox.c.kind, relay_outbox.c.output_hash)
        .join(relay_streams, relay_streams.c.id == relay_outbox.c.stream_id)
        .where(
            relay_streams.c.netuid == netuid,
            relay_streams.c.signer == signer,
            relay_outbox.c.kind.in_(ANCHORED_KINDS),
            relay_outbox.c.state == EntryState.DELIVERED.value,
            relay_outbox.c.anchor_id.is_(None),
        )
        .order_by(relay_outbox.c.kind, relay_outbox.c.id)
        .limit(rules.LEAVES_MOST)
    )


def count_leaves(connection: Connection, netuid: int, signer: str) -> int:
    """Return how many acknowledged outputs no anchor has, at most LEAVES_MOST."""
    return connection.scalar(select(func.count()).select_from(_waiting(netuid, signer).subquery())) or 0


def awaited_since(connection: Connection, netuid: int, signer: str) -> int | None:
    """Return the block of the oldest commit of which an anchor waits to be delivered; None when none does."""
    waiting = [EntryState.PENDING.value, EntryState.SENDING.value]
    query = select(func.min(relay_outbox.c.block)).where(_anchors_of(netuid, signer), relay_outbox.c.state.in_(waiting))
    found: int | None = connection.scalar(query)
    return found


def to_release(connection: Connection, netuid: int, signer: str) -> list[tuple[int, str]]:
    """Return root and kind of each anchor that was parked because of its time."""
    query = select(relay_outbox.c.payload, relay_outbox.c.last_reason)
    parked = query.where(_anchors_of(netuid, signer), relay_outbox.c.state == EntryState.ABANDONED.value)
    found = []
    for body, reason in connection.execute(parked).all():
        if rules.is_anchored_again(reason):
            anchor = wire.decode(body, AnchorPayload)
            root = (relay_anchors.c.signer == signer) & (relay_anchors.c.root == bytes.fromhex(anchor.root))
            found += [(each, anchor.anchored) for each in connection.scalars(select(relay_anchors.c.id).where(root))]
    return found


def release(connection: Connection, anchor_id: int, kind: str) -> int:
    """Let the leaves of one kind under a root go under the next one; return how many."""
    under_it = (relay_outbox.c.anchor_id == anchor_id) & (relay_outbox.c.kind == kind)
    return connection.execute(update(relay_outbox).where(under_it).values(anchor_id=None)).rowcount


def _anchors_of(netuid: int, signer: str) -> ColumnElement[bool]:
    streams = select(relay_streams.c.id).where(
        relay_streams.c.netuid == netuid, relay_streams.c.signer == signer, relay_streams.c.kind == "anchor"
    )
    return relay_outbox.c.stream_id.in_(streams) & (relay_outbox.c.kind == "anchor")


def intended(connection: Connection, netuid: int, signer: str) -> IntendedAnchor | None:
    """Return the root that is to be committed, None when there is none."""
    query = select(relay_anchors).where(
        relay_anchors.c.netuid == netuid, relay_anchors.c.signer == signer, relay_anchors.c.state == "intended"
    )
    row = connection.execute(query.order_by(relay_anchors.c.id).limit(1)).mappings().first()
    if row is None:
        return None
    leaves = [(kind, digest) for kind, digest in wire.decode(row["leaves"], list[tuple[str, str]])]
    return IntendedAnchor(
        id=row["id"], epoch=row["epoch"], intent=Intent(row["root"], row["sent_until_block"]), leaves=leaves
    )


def intend(connection: Connection, netuid: int, signer: str, epoch: int, now: float) -> IntendedAnchor | None:
    """Intend to commit the root over what no anchor has; None when there is nothing, or an intent is open already.

    Roles of one process that share a hotkey share the intent. The one that is open may be on its way to the chain: who
    decided without having seen it has to look again.
    """
    if intended(connection, netuid, signer) is not None:
        return None
    rows = connection.execute(_waiting(netuid, signer)).all()
    if not rows:
        return None
    leaves = [(kind, digest) for _, kind, digest in rows]
    made = connection.execute(
        insert(relay_anchors).values(
            netuid=netuid,
            signer=signer,
            epoch=epoch,
            root=rules.root_of([digest for _, digest in leaves]),
            leaves=msgspec.json.encode(leaves).decode(),
            state="intended",
            sent_until_block=0,
            at=now,
        )
    )
    anchor_id = int(made.inserted_primary_key[0])  # type: ignore[index]
    connection.execute(
        update(relay_outbox).where(relay_outbox.c.id.in_([row[0] for row in rows])).values(anchor_id=anchor_id)
    )
    return intended(connection, netuid, signer)


def sending(connection: Connection, found: IntendedAnchor, until_block: int) -> bool:
    """Note, before it is sent, until when the extrinsic may be included; False when another role has sent it meanwhile.

    Only whom this returns True may send.
    """
    as_found = (relay_anchors.c.id == found.id) & (relay_anchors.c.sent_until_block == found.intent.sent_until_block)
    noted = update(relay_anchors).where(as_found, relay_anchors.c.state == "intended")
    return connection.execute(noted.values(sent_until_block=until_block)).rowcount == 1


def note_unanchored(connection: Connection, netuid: int, signer: str, reason: str, now: float) -> None:
    """Note why nothing that a signer relays can be anchored; an empty reason: it can."""
    mine = (relay_unanchored.c.netuid == netuid) & (relay_unanchored.c.signer == signer)
    connection.execute(delete(relay_unanchored).where(mine, relay_unanchored.c.reason != reason))
    if reason:
        row = {"netuid": netuid, "signer": signer, "reason": reason, "at": now}
        connection.execute(upsert(relay_unanchored).values(row).on_conflict_do_nothing())


def reason_of(connection: Connection, netuid: int, signer: str) -> str:
    """Return why nothing that a signer relays can be anchored; empty: it can."""
    mine = (relay_unanchored.c.netuid == netuid) & (relay_unanchored.c.signer == signer)
    return connection.scalar(select(relay_unanchored.c.reason).where(mine)) or ""


def anchored(
    connection: Connection,
    netuid: int,
    signer: str,
    found: IntendedAnchor,
    block: int,
    sign: Callable[[bytes], Signed],
    bound: int,
    now: float,
) -> int:
    """Queue one signed anchor for each stream; returns how many. Called once the commitment is final.

    What was committed more than KEPT_S ago is forgotten. Raises OutboxFull, with which the transaction changes nothing,
    where not all anchors have room among the `bound` entries that may wait: the root stays intended.
    """
    done = connection.execute(
        update(relay_anchors)
        .where(relay_anchors.c.id == found.id, relay_anchors.c.state == "intended")
        .values(state="committed", committed_block=block)
    )
    if done.rowcount != 1:
        return 0
    is_old = (relay_anchors.c.state == "committed") & (relay_anchors.c.at < now - KEPT_S)
    connection.execute(delete(relay_anchors).where(relay_anchors.c.signer == signer, is_old))
    digests = [digest for _, digest in found.leaves]
    first = queued = 0
    for kind, group in groupby(found.leaves, key=lambda leaf: leaf[0]):
        count = len(list(group))
        payload: AnchorPayload = anchor_payload(
            digests,
            anchored=kind,
            first=first,
            count=count,
            root=found.intent.root.hex(),
            epoch=found.epoch,
            netuid=netuid,
            block=block,
            round_ts=now,
        )
        signed = sign(msgspec.json.encode(payload))
        if enqueue(connection, payload, now, bound=bound, signer=signer, signed=signed) is Enqueued.REFUSED:
            raise OutboxFull(bound)
        first, queued = first + count, queued + 1
    return queued
