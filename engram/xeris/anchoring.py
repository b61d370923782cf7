"""What is anchored: leaves that are held, under a root that the receiver has itself read on the finalized chain.

Functions of a connection run inside `ledger.write` or `ledger.read`.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Final

import msgspec
from sqlalchemy import Connection, Integer, bindparam, delete, func, insert, literal_column, select, update

from engram import wire
from engram.api.xeris import Inclusion
from engram.chain.read.view import View
from engram.chain.registry.commitment_fields import octets_of, read_fields
from engram.hotkeys import PublicKey, ss58
from engram.ledger import Prepared
from engram.relay.anchoring import rules
from engram.relay.rules import ANCHORED_KINDS
from engram.xeris.chain_views import ChainViews, NotReadable
from engram.xeris.judging import Anchor, Refused, Submission
from engram.xeris.tables import accepted, anchors

LATE: Final = 1
"""`overdue` of a payload that was not anchored in time."""
PURGED_AT_ONCE: Final = 200
CANNOT: Final = 2
"""`overdue` of one whose signer is not registered on the subnet, and can commit no root."""

_ZERO: Final = literal_column("0", Integer)
_ONE: Final = literal_column("1", Integer)
_LEAF: Final = (
    (accepted.c.signer == bindparam("signer"))
    & (accepted.c.netuid == bindparam("netuid"))
    & (accepted.c.kind == bindparam("kind"))
    & (accepted.c.output_hash == bindparam("output_hash"))
    & (accepted.c.block + _ZERO <= bindparam("until_block"))  # a sum, lest SQLite takes the index by blocks
)
_HELD: Final = Prepared(select(accepted.c.id).where(_LEAF).limit(_ONE).offset(_ZERO))
_IS_UNMARKED: Final = _LEAF & accepted.c.anchor_id.is_(None)
_UNMARKED: Final = Prepared(select(accepted.c.id).where(_IS_UNMARKED).limit(_ONE).offset(_ZERO))
_MARK: Final = Prepared(
    update(accepted).where(_IS_UNMARKED).values(anchor_id=bindparam("marked_by"), leaf=bindparam("place"))
)
_ROOT: Final = Prepared(
    select(anchors.c.block).where(
        anchors.c.signer == bindparam("signer"),
        anchors.c.netuid == bindparam("netuid"),
        anchors.c.kind == bindparam("kind"),
        anchors.c.root == bindparam("root"),
    )
)


class _Root(msgspec.Struct, frozen=True):
    root: bytes | None


ReadsRoot = Callable[[int, PublicKey, int], Awaitable[bytes | None]]
"""(netuid, hotkey, block) -> the root that the hotkey committed in that finalized block; None when it committed none.

The chain takes commitments of registered hotkeys alone: whoever has committed in a block was registered there.

Raises Refused (`commitment_unknown`) while the block cannot be read.
"""


def chain_root(views: ChainViews) -> ReadsRoot:
    """Return a reader of roots from the chain."""

    async def read(netuid: int, hotkey: PublicKey, block: int) -> bytes | None:
        async def at_block(view: View) -> _Root:
            held = await read_fields(view, netuid, hotkey)
            if held is None or held.block != block:
                return _Root(None)
            return _Root(rules.root_in([octets_of(field) for field in held.fields]))

        async def still_there(head: View) -> _Root | None:
            # What was committed in that very block and still stands needs no state of the past.
            held = await read_fields(head, netuid, hotkey)
            return await at_block(head) if held is not None and held.block == block else None

        try:
            return (await views.read(block, at_block, still_there)).root
        except NotReadable as error:
            raise Refused("commitment_unknown", f"the commitment cannot be read: {error}") from None

    return read


async def require_committed(submission: Submission, read: ReadsRoot) -> None:
    """Check that the root of an anchor was committed in its block. Raises Refused."""
    anchor = submission.anchor
    if anchor is None:
        return
    committed = await read(submission.netuid, submission.signer, submission.block)
    if committed is None or committed.hex() != anchor.root:
        held = "no root" if committed is None else f"root {committed.hex()}"
        raise Refused("commitment_other", f"in block {submission.block} the signer committed {held}")


def is_held(connection: Connection, submission: Submission) -> bool:
    """Return whether an anchor says nothing new: its root is held, of its block, or with all of its outputs marked.

    Nodes at rest give one root in epoch after epoch, each time with new outputs under it.
    """
    anchor = submission.anchor
    assert anchor is not None
    about = _about(submission, anchor)
    held = {row[0] for row in _ROOT.rows(connection, about | {"root": bytes.fromhex(anchor.root)})}
    if not held or submission.block in held:
        return bool(held)
    return all(_UNMARKED.values(connection, about | {"output_hash": leaf}) is None for leaf in anchor.own)


def require_leaves(connection: Connection, submission: Submission) -> None:
    """Check that the outputs which an anchor names were accepted from its signer. Raises Refused.

    An output of a later block that has the same hash waits for a root of its own: it is not older than this one.
    """
    anchor = submission.anchor
    assert anchor is not None
    about = _about(submission, anchor)
    missing = {leaf for leaf in anchor.own if _HELD.values(connection, about | {"output_hash": leaf}) is None}
    if missing:
        text = f"{len(missing)} leaves were not accepted from this signer, the first {min(missing)}"
        raise Refused("anchor_leaves", text)


def keep(connection: Connection, submission: Submission, at: float, epoch: int) -> int:
    """Mark the payloads that an anchor names, which are held; returns how many leaves. `epoch` is the commitment's."""
    anchor = submission.anchor
    assert anchor is not None
    made = connection.execute(
        insert(anchors).values(
            netuid=submission.netuid,
            signer=submission.signer,
            kind=anchor.anchored,
            epoch=epoch,
            block=submission.block,
            root=bytes.fromhex(anchor.root),
            leaves=msgspec.json.encode(anchor.leaves).decode(),
            at=at,
        )
    )
    mark = _about(submission, anchor) | {"marked_by": int(made.inserted_primary_key[0])}  # type: ignore[index]
    _MARK.apply_each(
        connection,
        [mark | {"output_hash": leaf, "place": place} for place, leaf in enumerate(anchor.own, anchor.first)],
    )
    return anchor.count


def _about(submission: Submission, anchor: Anchor) -> dict[str, object]:
    return {
        "signer": submission.signer,
        "netuid": submission.netuid,
        "kind": anchor.anchored,
        "until_block": submission.block,
    }


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
    """Mark payloads of before a block that are not anchored; returns how many are late, by kind.

    Those of a hotkey that is not registered, which cannot commit, are marked as that.
    """
    query = (
        select(accepted.c.id, accepted.c.kind, accepted.c.signer)
        .where(
            accepted.c.netuid == netuid,
            accepted.c.block < before_block,
            accepted.c.anchor_id.is_(None),
            accepted.c.overdue == literal_column("0"),  # as its partial index says it
            accepted.c.kind.in_(ANCHORED_KINDS),
        )
        .limit(1_000)
    )
    marked: dict[str, int] = {}
    for row_id, kind, signer in connection.execute(query).all():
        is_late = signer in registered
        mark = update(accepted).where(accepted.c.id == row_id)
        connection.execute(mark.values(overdue=LATE if is_late else CANNOT))
        if is_late:
            marked[kind] = marked.get(kind, 0) + 1
    return marked


def count_overdue(connection: Connection) -> dict[str, int]:
    """Return how many payloads that are overdue have no anchor yet, by kind; every kind that is anchored is there."""
    query = (
        select(accepted.c.kind, func.count())
        .where(accepted.c.anchor_id.is_(None), accepted.c.overdue == literal_column("1"))
        .group_by(accepted.c.kind)
    )
    return dict.fromkeys(ANCHORED_KINDS, 0) | dict(connection.execute(query).all())


def purge(connection: Connection, before: float) -> int:
    """Forget anchors that came before then (unix seconds), at most PURGED_AT_ONCE at once; returns how many."""
    old = select(anchors.c.id).where(anchors.c.at < before).limit(PURGED_AT_ONCE)
    return connection.execute(delete(anchors).where(anchors.c.id.in_(old))).rowcount
