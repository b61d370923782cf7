"""Refusals to sign in the ledger, with what was proposed. Functions run inside `ledger.write` or `ledger.read`."""

from typing import Final

import msgspec
from sqlalchemy import Connection, RowMapping, case, delete, func, select

from engram import wire
from engram.ledger.sql import upsert
from engram.relay.quorum.model import Difference, Evidence, Judged, Proposal, Verdict
from engram.relay.tables import relay_evidence

KEPT: Final = 10_000
"""The newest refusals that are kept."""
KEPT_OF_ONE: Final = 150
"""Those of one proposer, so that no flood of one displaces what names another: there are 64 permits."""
BYTES_OF_ONE: Final = 8_000_000
"""Of the documents and differences of one proposer."""


def keep(connection: Connection, proposal: Proposal, proposer: str, judge: str, judged: Judged, at: float) -> bool:
    """Keep a refusal; False when the same one is kept already, or another `equivocation` of its kind and block.

    At most KEPT are kept, of one proposer KEPT_OF_ONE and BYTES_OF_ONE: its equivocations and the newest.
    """
    if judged.verdict is Verdict.EQUIVOCATION:
        of_block = (relay_evidence.c.netuid == proposal.netuid) & (relay_evidence.c.block == proposal.block)
        same = of_block & (relay_evidence.c.kind == proposal.kind) & (relay_evidence.c.judge == judge)
        known = select(relay_evidence.c.id).where(relay_evidence.c.proposer == proposer, same)
        if connection.execute(known.where(relay_evidence.c.verdict == str(judged.verdict))).first() is not None:
            return False
    kept = connection.execute(
        upsert(relay_evidence)
        .values(
            at=at,
            netuid=proposal.netuid,
            kind=proposal.kind,
            block=proposal.block,
            proposer=proposer,
            judge=judge,
            verdict=str(judged.verdict),
            reason=judged.reason,
            differences=msgspec.json.encode(judged.differences).decode(),
            output_hash=proposal.output_hash,
            document=proposal.document,
        )
        .on_conflict_do_nothing()
    )
    newest = connection.scalar(select(func.max(relay_evidence.c.id))) or 0
    connection.execute(delete(relay_evidence).where(relay_evidence.c.id <= newest - KEPT))
    if kept.rowcount == 1:
        _bound(connection, proposer)
    return kept.rowcount == 1


def _bound(connection: Connection, proposer: str) -> None:
    """Forget what is too much of one proposer."""
    octets = func.length(relay_evidence.c.document) + func.length(relay_evidence.c.differences)
    first = case((relay_evidence.c.verdict == str(Verdict.EQUIVOCATION), 0), else_=1)
    query = select(relay_evidence.c.id, octets).where(relay_evidence.c.proposer == proposer)
    left, over = BYTES_OF_ONE, list[int]()
    for place, (row_id, size) in enumerate(connection.execute(query.order_by(first, relay_evidence.c.id.desc())).all()):
        left -= size
        if place >= KEPT_OF_ONE or left < 0:
            over.append(row_id)
    if over:
        connection.execute(delete(relay_evidence).where(relay_evidence.c.id.in_(over)))


def newest(connection: Connection, limit: int = 100, proposer: str | None = None) -> list[Evidence]:
    """Return the newest refusals, the newest first; with `proposer` (ss58) those of one validator's proposals."""
    query = select(relay_evidence).order_by(relay_evidence.c.id.desc()).limit(limit)
    if proposer is not None:
        query = query.where(relay_evidence.c.proposer == proposer)
    return [_evidence(row) for row in connection.execute(query).mappings()]


def _evidence(row: RowMapping) -> Evidence:
    fields = dict(row)
    fields["differences"] = tuple(wire.decode(row["differences"], list[Difference]))
    fields["document"] = msgspec.Raw(row["document"])
    return Evidence(**fields)
