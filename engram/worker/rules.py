"""What the worker decides: pure functions.

What becomes of a job that is sent (`decide`):

| its id          | known as                  | then                                              |
|-----------------|---------------------------|---------------------------------------------------|
| none            |                           | run it, unless there is no place or the end comes |
| new             |                           | note it and run it, with the same two exceptions  |
| in the ledger   | done, the same request    | answer with the kept result                       |
| in this process | the same request          | answer when the one that runs has ended           |
| any             | another request           | refuse: an id names one job for good              |
"""

import hashlib
from typing import Any, Final, Literal, TypeAlias

import msgspec

from engram.worker.model import JobEnd, JobRow, WorkerJob

UNKNOWN_TYPE: Final = {"error": "Unknown job type"}
"""Word for word what a miner of this pattern answers."""
LEAST_LIVENESS_S: Final = 1.0
MOST_LIVENESS_S: Final = 120.0
"""A server whose pings are rarer is taken for dead after this time; they come every 25 s by default."""
MOST_ID_CHARS: Final = 200


class RefusedJob(msgspec.Struct, frozen=True):
    """A job is not run, and nothing is kept of it; sent again later it may be."""

    error: str
    retry_after_s: int | None = None
    """None: it will not be run later either."""

    def result(self) -> dict[str, object]:
        """Return what the orchestrator is answered."""
        if self.retry_after_s is None:
            return {"error": self.error}
        return {"error": self.error, "retry_after_s": self.retry_after_s}


FULL: Final = RefusedJob("Worker is full", 5)
STOPPING: Final = RefusedJob("Worker is stopping", 30)
UNRECORDED: Final = RefusedJob("Worker cannot record the job", 5)
CONFLICT: Final = RefusedJob("Job id was used for another job")

Decision: TypeAlias = Literal["run", "join", "answer"] | RefusedJob
"""Run it; answer it together with the job of this id that runs; answer it from the ledger; refuse it."""


def read_job(arguments: list[Any]) -> WorkerJob | RefusedJob:
    """Return the job of an event's arguments, `{"type", "payload"}` and optionally `id` (or `job_id`)."""
    data = arguments[0] if arguments else None
    if not isinstance(data, dict):
        return RefusedJob("Job is not an object with type and payload")
    kind = data.get("type")
    if not isinstance(kind, str):
        # Without a type it is of an unknown one, for a miner that reads it by `data.get("type")`.
        kind = ""
    try:
        job_id = _id_of(data)
    except ValueError as error:
        return RefusedJob(str(error))
    return WorkerJob(job_id, kind[:200], data.get("payload"))


def _id_of(data: dict[Any, Any]) -> str | None:
    """Return the job's id. Raises ValueError."""
    given = [data[name] for name in ("id", "job_id") if data.get(name) is not None]
    if not given:
        return None
    try:
        names = {str(each) for each in given if type(each) in (str, int)}
    except ValueError:  # more digits than Python writes
        names = set()
    if len(names) != 1 or any(type(each) not in (str, int) for each in given):
        raise ValueError("Job id is not one text or whole number")
    (name,) = names
    if not 0 < len(name) <= MOST_ID_CHARS or not name.isprintable():
        raise ValueError(f"Job id is not 1 to {MOST_ID_CHARS} printable characters")
    return name


def request_of(job: WorkerJob) -> tuple[bytes, bytes]:
    """Return the payload as it is kept, and the hash by which two jobs with one id are compared.

    Raises ValueError for a payload that cannot be kept (numbers beyond 64 bits, or nested too deeply).
    """
    try:
        payload = msgspec.msgpack.encode(job.payload, order="deterministic")
    except (OverflowError, RecursionError, TypeError, msgspec.EncodeError) as error:
        raise ValueError(f"Job payload cannot be kept: {error}") from None
    return payload, hashlib.sha256(job.kind.encode() + b"\n" + payload).digest()


def decide(running_hash: bytes | None, row: JobRow | None, request_hash: bytes) -> Decision:
    """Decide about a job with an id: what runs under that id in this process, and what the ledger has of it."""
    known = running_hash if running_hash is not None else None if row is None else row.request_hash
    if known is not None and known != request_hash:
        return CONFLICT
    if running_hash is not None:
        return "join"
    if row is None:
        return "run"
    if row.state == "done":
        return "answer"
    return UNRECORDED  # its work crashed here: the next start settles it


def orchestrator_of(url: str) -> str:
    """Return what jobs of the orchestrator at this URL are kept under.

    >>> orchestrator_of("HTTPS://a.example/")
    'https://a.example'
    """
    return url.rstrip("/").lower()


def unknown(text: str) -> JobEnd:
    """Return the result of a job of which it is not known whether it was done."""
    return JobEnd("unknown", {"error": text, "outcome": "unknown"})


def interrupted(kind: str) -> JobEnd:
    """Return the result of a job that was running when the process ended."""
    return unknown(
        f"Worker was restarted during this job: the {kind} may or may not have been done; it is not run again"
    )


def kept_within(end: JobEnd, most: int) -> JobEnd:
    """Return this end, or that its result cannot be kept: more than `most` bytes, or no value of JSON.

    A job that was done is then of unknown outcome: it must not be told as failed.
    """
    try:
        size = len(msgspec.msgpack.encode(end.result))
        msgspec.json.encode(end.result)
    except (OverflowError, RecursionError, TypeError, ValueError, msgspec.EncodeError) as error:
        return _without_result(end, f"Result cannot be sent: {str(error)[:200]}")
    if size > most:
        return _without_result(end, f"Result has {size} bytes, more than {most}")
    return end


def _without_result(end: JobEnd, text: str) -> JobEnd:
    return JobEnd("failed", {"error": text}) if end.outcome == "failed" else unknown(text)


def liveness_s(ping_interval_ms: float, ping_timeout_ms: float) -> float:
    """Return after how many seconds of silence the server is taken for dead.

    >>> liveness_s(25_000, 20_000)
    45.0
    >>> liveness_s(1e12, 0)
    120.0
    >>> liveness_s(-5, 0)
    1.0
    """
    total_s = (ping_interval_ms + ping_timeout_ms) / 1000
    return total_s if LEAST_LIVENESS_S <= total_s <= MOST_LIVENESS_S else _clamped(total_s)


def _clamped(total_s: float) -> float:
    return LEAST_LIVENESS_S if total_s < LEAST_LIVENESS_S else MOST_LIVENESS_S


def resend_after_s(base_s: float, passes: int) -> float:
    """Return seconds until results that were not acknowledged are sent again, after so many passes in vain.

    >>> [resend_after_s(30, passes) for passes in (0, 1, 2, 50)]
    [30.0, 60.0, 120.0, 3600.0]
    """
    return float(min(3_600.0, base_s * 2 ** min(passes, 16)))
