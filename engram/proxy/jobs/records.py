"""Jobs in the ledger. Functions are called inside `ledger.write` or `ledger.read`."""

from typing import Final

from sqlalchemy import Connection, RowMapping, bindparam, delete, func, insert, select, update

from engram import wire
from engram.hotkeys import PublicKey
from engram.proxy.jobs.model import Job, JobResult
from engram.proxy.tables import proxy_jobs

# Built once: building a statement costs four times what running it does.
_columns = proxy_jobs.c
_BY_ID: Final = select(proxy_jobs).where(_columns.id == bindparam("of"))
_BY_KEY: Final = select(proxy_jobs).where(
    _columns.owner == bindparam("by"), _columns.idempotency_key == bindparam("key")
)
_INSERT: Final = insert(proxy_jobs)
_END: Final = (
    update(proxy_jobs)
    .where(_columns.id == bindparam("of"), _columns.state == "running")
    .values(
        state=bindparam("to"),
        ended_at=bindparam("at"),
        status=bindparam("answered"),
        headers=bindparam("lines"),
        body=bindparam("content"),
        code=bindparam("ending"),
    )
)
_FETCHED: Final = (
    update(proxy_jobs)
    .where(_columns.id == bindparam("of"), _columns.fetched_at.is_(None))
    .values(fetched_at=bindparam("at"))
)
_INTERRUPT: Final = (
    update(proxy_jobs)
    .where(_columns.state == "running")
    .values(state="unknown", ended_at=bindparam("at"), code="interrupted")
)
_FORGET: Final = delete(proxy_jobs).where(_columns.id == bindparam("of"), _columns.state == "running")
_EXPIRE: Final = delete(proxy_jobs).where(
    _columns.state != "running",
    (_columns.ended_at < bindparam("ended_before"))
    | (_columns.fetched_at < bindparam("fetched_before")) & _columns.idempotency_key.is_(None),
)
_EMPTY: Final = (
    update(proxy_jobs)
    .where(_columns.state.in_(("done", "failed")), _columns.fetched_at < bindparam("fetched_before"))
    .values(state="fetched", headers=b"", body=b"")
)


def begin(connection: Connection, job: Job, idempotency_key: str | None) -> Job | None:
    """Note a job that is about to run; return the job that has the same Idempotency-Key instead, if there is one."""
    if idempotency_key is not None and (known := under(connection, job.owner, idempotency_key)) is not None:
        return known
    connection.execute(
        _INSERT,
        {
            "id": job.id,
            "owner": job.owner,
            "idempotency_key": idempotency_key,
            "request_hash": job.request_hash,
            "state": job.state,
            "route": job.route,
            "created_at": job.created_at,
            "status": 0,
            "headers": b"",
            "body": b"",
            "code": "",
        },
    )
    return None


def under(connection: Connection, owner: PublicKey, idempotency_key: str) -> Job | None:
    """Return the owner's job that began under this Idempotency-Key."""
    row = connection.execute(_BY_KEY, {"by": owner, "key": idempotency_key}).mappings().first()
    return None if row is None else _job(row)


def end(connection: Connection, job_id: str, result: JobResult, at: float) -> bool:
    """Note how a running job ended; return False when it was not running any more."""
    done = connection.execute(
        _END,
        {
            "of": job_id,
            "to": result.state,
            "at": at,
            "answered": result.status,
            "lines": result.headers,
            "content": result.body,
            "ending": result.code,
        },
    )
    return done.rowcount == 1


def of(connection: Connection, job_id: str, owner: PublicKey) -> Job | None:
    """Return a job of this owner."""
    row = connection.execute(_BY_ID, {"of": job_id}).mappings().first()
    return None if row is None or row["owner"] != owner else _job(row)


def fetched(connection: Connection, job_id: str, at: float) -> None:
    """Note that a job's result has been sent to its owner."""
    connection.execute(_FETCHED, {"of": job_id, "at": at})


def forget(connection: Connection, job_id: str) -> None:
    """Delete a job that was noted and then not begun."""
    connection.execute(_FORGET, {"of": job_id})


def interrupt(connection: Connection, at: float) -> int:
    """Note for every running job that its process has ended; return how many there were."""
    return connection.execute(_INTERRUPT, {"at": at}).rowcount


def expire(connection: Connection, ended_before: float, fetched_before: float) -> int:
    """Drop what was kept long enough; return how many jobs or results that were.

    A fetched result goes before its job where that has an Idempotency-Key: a late retry is still the same job.
    """
    deleted = connection.execute(_EXPIRE, {"ended_before": ended_before, "fetched_before": fetched_before})
    emptied = connection.execute(_EMPTY, {"fetched_before": fetched_before})
    return deleted.rowcount + emptied.rowcount


def kept_bytes(connection: Connection) -> dict[PublicKey, int]:
    """Return the bytes of all results, by owner."""
    size = func.length(_columns.body) + func.length(_columns.headers)
    rows = connection.execute(select(_columns.owner, func.sum(size)).group_by(_columns.owner))
    return {owner: int(total) for owner, total in rows}


def _job(row: RowMapping) -> Job:
    """Raise msgspec.ValidationError for a row that is not as it was written."""
    return wire.convert({str(name): value for name, value in row.items()}, Job, octets=True)
