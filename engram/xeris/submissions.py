"""The log of all submissions, taken and refused. Functions run inside `ledger.write` or `ledger.read`."""

from typing import Final

import msgspec
from sqlalchemy import Connection, delete, func, insert, select

from engram import wire
from engram.ledger import Prepared
from engram.xeris.tables import submissions

ROWS_KEPT: Final = 1_000_000
"""However long they are to be kept: refusals cost a sender nothing."""
PURGED_AT_ONCE: Final = 10_000
LONGEST: Final = 120
"""Characters that are kept of a text that a payload says of itself."""

_ADD = Prepared(insert(submissions), ["at", "verdict", "signer", "kind", "netuid", "block", "signed_hash", "reason"])


class Claims(msgspec.Struct, frozen=True):
    """What a payload says of itself."""

    validator_hotkey: str = ""
    kind: str = "scores"
    netuid: int | None = None
    block: int | None = None
    signed_hash: str = ""


class SubmissionLine(msgspec.Struct, frozen=True, kw_only=True):
    """One submission as it was logged. `at` is unix seconds."""

    id: int
    at: float
    verdict: str
    signer: str
    kind: str
    netuid: int | None
    block: int | None
    signed_hash: str
    reason: str


def claims_of(body: bytes) -> Claims:
    """Return what the payload says of itself; nothing where it cannot be read."""
    try:
        return wire.decode(body, Claims)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Claims(kind="")


def note(connection: Connection, claims: Claims, verdict: str, at: float, reason: str = "") -> None:
    """Log a submission."""
    _ADD.apply(
        connection,
        {
            "at": at,
            "verdict": verdict,
            "signer": _text(claims.validator_hotkey, LONGEST),
            "kind": _text(claims.kind, LONGEST),
            "netuid": _number(claims.netuid),
            "block": _number(claims.block),
            "signed_hash": _text(claims.signed_hash, LONGEST),
            "reason": _text(reason, 2 * LONGEST),
        },
    )


def newest(connection: Connection, limit: int) -> list[SubmissionLine]:
    """Return the newest submissions, newest first."""
    rows = connection.execute(select(submissions).order_by(submissions.c.id.desc()).limit(limit)).mappings()
    return [SubmissionLine(**row) for row in rows]


def purge(connection: Connection, before: float) -> int:
    """Forget what was logged before then (unix seconds) or is beyond ROWS_KEPT; at most PURGED_AT_ONCE at once."""
    newest_id = connection.scalar(select(func.max(submissions.c.id))) or 0
    old = (
        select(submissions.c.id)
        .where((submissions.c.at < before) | (submissions.c.id <= newest_id - ROWS_KEPT))
        .order_by(submissions.c.id)
        .limit(PURGED_AT_ONCE)
    )
    return connection.execute(delete(submissions).where(submissions.c.id.in_(old))).rowcount


def _text(value: str, most: int) -> str:
    """Return the beginning of what a payload says, as any ledger keeps it: PostgreSQL takes no NUL in a text."""
    return value[:most].replace("\0", "\N{REPLACEMENT CHARACTER}")


def _number(value: int | None) -> int | None:
    return value if value is not None and 0 <= value < 2**53 else None
