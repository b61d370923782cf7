"""Intended roots and their leaves in the ledger. Functions run inside `ledger.write` or `ledger.read`."""

from collections.abc import Callable, Collection
from itertools import groupby
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from engram import wire
from engram.relay.anchoring import rules
from engram.relay.anchoring.rules import Intent
from engram.relay.model import AnchorPayload, EntryState
from engram.relay.records import enqueue
from engram.relay.rules import anchor_payload
from engram.relay.signer import Signed
from engram.relay.tables import relay_anchors, relay_outbox, relay_streams

KEPT_S: Final = 90 * 86_400.0
_KINDS: Final = ("memory", "scores", "ranking")


class IntendedAnchor(msgspec.Struct, frozen=True, kw_only=True):
    """A root that is to be committed, with its leaves: kind and output_hash of each."""

    id: int
    epoch: int
    intent: Intent
    leaves: list[tuple[str, str]]


def _waiting(netuid: int, signers: Collection[str]):  # type: ignore[no-untyped-def]  # a Select of two columns and an id
    return (
        select(relay_outbox.c.id, relay_outbox.c.kind, relay_outbox.c.output_hash)
        .join(relay_streams, relay_streams.c.id == relay_outbox.c.stream_id)
        .where(
            relay_streams.c.netuid == netuid,
            relay_streams.c.signer.in_(list(signers)),
            relay_outbox.c.kind.in_(_KINDS),
            relay_outbox.c.state == EntryState.DELIVERED.value,
            relay_outbox.c.anchor_id.is_(None),
        )
        .order_by(relay_outbox.c.kind, relay_outbox.c.id)
        .limit(rules.LEAVES_MOST)
    )


def count_leaves(connection: Connection, netuid: int, signers: Collection[str]) -> int:
    """Return how many acknowledged outputs no anchor has, at most LEAVES_MOST."""
    return connection.scalar(select(func.count()).select_from(_waiting(netuid, signers).subquery())) or 0


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


def intend(
    connection: Connection, netuid: int, signer: str, signers: Collection[str], epoch: int, now: float
) -> IntendedAnchor | None:
    """Intend to commit the root over what no anchor has; None when there is nothing."""
    rows = connection.execute(_waiting(netuid, signers)).all()
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


def sending(connection: Connection, found: IntendedAnchor, until_block: int) -> None:
    """Note, before it is sent, until when the extrinsic may be included."""
    connection.execute(update(relay_anchors).where(relay_anchors.c.id == found.id).values(sent_until_block=until_block))


def anchored(
    connection: Connection,
    netuid: int,
    signer: str,
    found: IntendedAnchor,
    block: int,
    sign: Callable[[bytes], Signed],
    now: float,
) -> int:
    """Queue one signed anchor for each stream; returns how many. Called once the commitment is final.

    What was committed more than KEPT_S ago is forgotten.
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
        enqueue(connection, payload, now, signer=signer, signed=sign(msgspec.json.encode(payload)))
        first, queued = first + count, queued + 1
    return queued
