"""Jobs in the ledger. Functions are called inside `ledger.write` or `ledger.read`."""

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, bindparam, case, delete, func, select, update

from engram.ledger.prepared import Prepared
from engram.ledger.sql import upsert
from engram.worker.model import JobCounts, JobRow, ListedJob, Outcome, State
from engram.worker.tables import worker_jobs

_columns: Final = worker_jobs.c
_NAMES: Final = ("id", "kind", "state", "request_hash", "payload", "outcome", "result", "created_at", "ended_at")
_ROW: Final = [*(_columns[name] for name in _NAMES), _columns.acknowledged_at]
_LISTED: Final = (
    _columns.id,
    _columns.kind.label("type"),
    _columns.state,
    _columns.outcome,
    func.length(_columns.result).label("result_bytes"),
    _columns.created_at,
    _columns.ended_at,
    _columns.acknowledged_at,
)
_OF: Final = (_columns.orchestrator == bindparam("by"), _columns.id == bindparam("of"))
_BY_ID: Final = Prepared(select(*_ROW).where(*_OF))
_INSERT: Final = Prepared(
    upsert(worker_jobs).on_conflict_do_nothing(),
    keys=(*("orchestrator", "id", "kind", "request_hash", "payload", "state", "outcome", "result", "created_at"),),
)
_START: Final = Prepared(
    update(worker_jobs).where(*_OF, _columns.state == bindparam("was")).values(state=bindparam("becomes"))
)
_END: Final = Prepared(
    update(worker_jobs)
    .where(*_OF, _columns.ended_at.is_(None))
    .values(
        state=bindparam("becomes"),
        outcome=bindparam("how"),
        result=bindparam("content"),
        payload=bindparam("nothing"),
        ended_at=bindparam("at"),
    )
)
_ACKNOWLEDGE: Final = Prepared(
    update(worker_jobs)
    .where(*_OF, _columns.ended_at.is_not(None), _columns.acknowledged_at.is_(None))
    .values(acknowledged_at=bindparam("at"))
)


def begin(connection: Connection, orchestrator: str, job: JobRow) -> JobRow | None:
    """Note a job that is about to run or wait; return the one that has its id instead, if there is one."""
    added = _INSERT.change(
        connection,
        {
            "orchestrator": orchestrator,
            "id": job.id,
            "kind": job.kind,
            "request_hash": job.request_hash,
            "payload": job.payload,
            "state": job.state,
            "outcome": job.outcome,
            "result": job.result,
            "created_at": job.created_at,
        },
    )
    return None if added == 1 else find(connection, orchestrator, job.id)


def find(connection: Connection, orchestrator: str, job_id: str) -> JobRow | None:
    """Return a job of this orchestrator."""
    row = _BY_ID.first(connection, {"by": orchestrator, "of": job_id})
    return None if row is None else _row(row)


def start(connection: Connection, orchestrator: str, job_id: str) -> bool:
    """Note that an accepted job runs from now on; return False when it was not accepted any more."""
    return _START.change(connection, {"by": orchestrator, "of": job_id, "was": "accepted", "becomes": "running"}) == 1


def end(connection: Connection, orchestrator: str, job_id: str, *, outcome: Outcome, result: bytes, at: float) -> bool:
    """Note how a job ended; return False when it had ended before."""
    values = {"becomes": "done", "how": outcome, "content": result, "nothing": b"", "at": at}
    return _END.change(connection, {"by": orchestrator, "of": job_id, **values}) == 1


def acknowledge(connection: Connection, orchestrator: str, job_ids: Iterable[str], at: float) -> int:
    """Note results that the orchestrator has acknowledged; return how many were not before."""
    return sum(_ACKNOWLEDGE.change(connection, {"by": orchestrator, "of": each, "at": at}) for each in job_ids)


def unfinished(connection: Connection, orchestrator: str) -> list[JobRow]:
    """Return jobs that have not ended, in the order of their acceptance."""
    query = (
        select(worker_jobs)
        .where(_columns.orchestrator == orchestrator, _columns.ended_at.is_(None))
        .order_by(_columns.number)
    )
    return [_row(row) for row in connection.execute(query).mappings()]


def unacknowledged(
    connection: Connection, orchestrator: str, after: int = 0, limit: int = 64
) -> list[tuple[int, JobRow]]:
    """Return results that were not acknowledged, with their numbers, in the order of acceptance, from `after` on."""
    query = (
        select(worker_jobs)
        .where(
            _columns.orchestrator == orchestrator,
            _columns.ended_at.is_not(None),
            _columns.acknowledged_at.is_(None),
            _columns.number > after,
        )
        .order_by(_columns.number)
        .limit(limit)
    )
    return [(row["number"], _row(row)) for row in connection.execute(query).mappings()]


def count_unacknowledged(connection: Connection, orchestrator: str) -> int:
    """Return how many results wait for their acknowledgement."""
    query = (
        select(func.count())
        .select_from(worker_jobs)
        .where(
            _columns.orchestrator == orchestrator, _columns.ended_at.is_not(None), _columns.acknowledged_at.is_(None)
        )
    )
    return connection.scalar(query) or 0


def expire(connection: Connection, before: float) -> int:
    """Forget jobs whose results were acknowledged before then (unix seconds); return how many.

    A result that was never acknowledged is kept: `unacknowledged` of the settings bounds them.
    """
    old = (_columns.ended_at < before, _columns.acknowledged_at < before)  # the first one has an index
    return connection.execute(delete(worker_jobs).where(*old)).rowcount


def counts(connection: Connection) -> JobCounts:
    """Return how many jobs are kept, of all orchestrators."""
    where = case(
        (_columns.ended_at.is_(None), _columns.state),
        (_columns.acknowledged_at.is_(None), "unacknowledged"),
        else_="acknowledged",
    )
    rows = connection.execute(select(where, func.count()).group_by(where))
    return JobCounts(**{str(name): int(count) for name, count in rows})


def newest(connection: Connection, limit: int, state: State | None = None) -> list[ListedJob]:
    """Return the jobs that were accepted last, the newest first. Payloads and results are not read."""
    query = select(*_LISTED).order_by(_columns.number.desc()).limit(limit)
    if state is not None:
        query = query.where(_columns.state == state)
    return [ListedJob(**row) for row in connection.execute(query).mappings()]


def _row(row: RowMapping | dict[str, Any]) -> JobRow:
    return JobRow(**{name: row[name] for name in (*_NAMES, "acknowledged_at")})
