"""A job, its states, and what is kept of it.

    accepted --a place is free--> running --its kind answers--> done --acknowledged, keep_s over--> (deleted)
                                   |  ^
       the process or the link to  |  |  only where the kind is `repeatable`: its backend knows the job by its id
       the backend ended: the      +--+
       outcome is unknown          +-----> done, and the result says that the outcome is unknown

A job without an id has no row: it runs once, is answered by its acknowledgement, and is forgotten.
"""

from typing import Any, Literal

import msgspec

State = Literal["accepted", "running", "done"]
Outcome = Literal["done", "failed", "unknown"]
"""How a job ended: by an answer of its kind, without one, or nobody knows."""


class WorkerJob(msgspec.Struct, frozen=True):
    """What the orchestrator wants done."""

    id: str | None
    kind: str
    payload: Any
    """JSON, in which bytes stand for binary attachments."""


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger keeps of a job with an id."""

    id: str
    kind: str
    state: State
    request_hash: bytes
    payload: bytes
    """MessagePack; empty once it is done."""
    outcome: str = ""
    result: bytes = b""
    """MessagePack."""
    created_at: float
    ended_at: float | None = None
    acknowledged_at: float | None = None


class ListedJob(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator sees of a job: neither its payload nor its result."""

    id: str
    type: str
    state: State
    outcome: str
    result_bytes: int
    created_at: float
    ended_at: float | None
    acknowledged_at: float | None


class JobEnd(msgspec.Struct, frozen=True):
    """The result of a job, as it is sent, and what kind of ending it is."""

    outcome: Outcome
    result: Any


class JobCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs are kept, by where they stand."""

    accepted: int = 0
    running: int = 0
    unacknowledged: int = 0
    acknowledged: int = 0
