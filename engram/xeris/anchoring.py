"""What is anchored: leaves that are held, under a root that the receiver has itself read on the finalized chain.

Functions of a connection run inside `ledger.write` or `ledger.read`.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from engram import wire
from engram.api.xeris import Inclusion
from engram.chain.errors import TRANSIENT, CallRefused, ChainError
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.queries import read_hash_at
from engram.chain.read.view import open_view, view_at
from engram.chain.registry.commitment_fields import octets_of, read_fields
from engram.hotkeys import PublicKey, ss58
from engram.relay.anchoring import rules
from engram.xeris.judging import Refused, Submission
from engram.xeris.tables import accepted, anchors

ANCHORED_KINDS: Final = ("scores", "ranking", "memory")
"""Kinds whose payloads are anchored."""

ReadsRoot = Callable[[int, PublicKey, int], Awaitable[bytes | None]]
"""(netuid, hotkey, block) -> the root that the hotkey's commitment has at that finalized block; None when it has none.

Raises Refused (`commitment_unknown`) while the block cannot be read.
"""


def chain_root(nodes: Sequence[ChainEndpoint]) -> ReadsRoot:
    """Return a reader of roots by these endpoints."""

    async def read(netuid: int, hotkey: PublicKey, block: int) -> bytes | None:
        try:
            view = await open_view(nodes)
            if block > view.head.number:
                raise Refused("commitment_unknown", f"block {block} is not final yet: send it later")
            if block < view.head.number:
                block_hash = await read_hash_at(view.node, block)
                if block_hash is None:
                    raise Refused("commitment_unknown", f"block {block} is not known to the chain's endpoint")
                others = [node for node in nodes if node is not view.node]
                view = await view_at(view.node, block_hash, view, others)
            held = await read_fields(view, netuid, hotkey)
        except (ChainError, CallRefused, *TRANSIENT) as error:
            raise Refused("commitment_unknown", f"the commitment cannot be read: {error}") from None
        return None if held is None else rules.root_in([octets_of(field) for field in held.fields])

    return read


async def require_committed(submission: Submission, read: ReadsRoot) -> None:
    """Check that the root of an anchor stood on the chain at its block. Raises Refused."""
    anchor = submission.anchor
    if anchor is None:
        return
    committed = await read(submission.netuid, submission.signer, submission.block)
    if committed is None or committed.hex() != anchor.root:
        held = "no root" if committed is None else f"root {committed.hex()}"
        raise Refused("commitment_other", f"at block {submission.block} the signer had committed {held}")


def keep(connection: Connection, submission: Submission, at: float) -> int:
    """Mark the payloads that an anchor names; returns how many. Raises Refused when one is not held."""
    anchor = submission.anchor
    assert anchor is not None
    own = range(anchor.first, anchor.first + anchor.count)
    mine = (
        (accepted.c.signer == submission.signer)
        & (accepted.c.netuid == submission.netuid)
        & (accepted.c.kind == anchor.anchored)
    )
    wanted = {anchor.leaves[place] for place in own}
    query = select(accepted.c.output_hash).where(mine, accepted.c.output_hash.in_(sorted(wanted)))
    missing = sorted(wanted - set(connection.scalars(query)))
    if missing:
        text = f"{len(missing)} leaves were not accepted from this signer, the first {missing[0]}"
        raise Refused("anchor_leaves", text)
    made = connection.execute(
        insert(anchors).values(
            netuid=submission.netuid,
            signer=submission.signer,
            kind=anchor.anchored,
            epoch=anchor.epoch,
            block=submission.block,
            root=bytes.fromhex(anchor.root),
            leaves=msgspec.json.encode(anchor.leaves).decode(),
            at=at,
        )
    )
    anchor_id = int(made.inserted_primary_key[0])  # type: ignore[index]
    for place in own:
        leaf = mine & (accepted.c.output_hash == anchor.leaves[place]) & accepted.c.anchor_id.is_(None)
        connection.execute(update(accepted).where(leaf).values(anchor_id=anchor_id, leaf=place))
    return len(own)


def inclusion(connection: Connection, anchor_id: int, leaf: int) -> Inclusion | None:
    """Return where a payload stands under its root, with the path; None when the anchor was forgotten."""
    row = connection.execute(select(anchors).where(anchors.c.id == anchor_id)).mappings().first()
    if row is None:
        return None
    leaves = wire.decode(row["leaves"], list[str])
    return Inclusion(
        epoch=row["epoch"],
        block=row["block"],
        hotkey=ss58.encode(row["signer"]),
        root=row["root"].hex(),
        commitment=rules.committed_text(row["root"]).decode(),
        leaf=leaf,
        leaves=len(leaves),
        path=rules.path_of(leaves, leaf),
    )


def mark_overdue(
    connection: Connection, netuid: int, before_block: int, registered: Collection[PublicKey]
) -> dict[str, int]:
    """Mark payloads of before a block that are not anchored; returns how many by kind.

    Those of a hotkey that is not registered, which cannot commit, stay as they are.
    """
    query = (
        select(accepted.c.id, accepted.c.kind, accepted.c.signer)
        .where(
            accepted.c.netuid == netuid,
            accepted.c.block < before_block,
            accepted.c.anchor_id.is_(None),
            accepted.c.overdue == 0,
            accepted.c.kind.in_(ANCHORED_KINDS),
        )
        .limit(1_000)
    )
    marked: dict[str, int] = {}
    for row_id, kind, signer in connection.execute(query).all():
        if signer in registered:
            connection.execute(update(accepted).where(accepted.c.id == row_id).values(overdue=1))
            marked[kind] = marked.get(kind, 0) + 1
    return marked


def purge(connection: Connection, before: float) -> None:
    """Forget anchors that came before then (unix seconds)."""
    connection.execute(delete(anchors).where(anchors.c.at < before))
