"""A job and its states.

running --answer whole--> done --fetched, and it has an Idempotency-Key--> fetched
   |  \\--refused, cut, too large--> failed --the same--------------------^
   |  \\--its client left before the 202--> canceled      cut, or drained as the route says
   +--the process ended--> unknown                     never run again

Each is deleted when its time is over, without a key when it has been fetched. `fetched` has no result any more: it is
there for retries under its key.
"""

from typing import Literal

import msgspec

from engram.hotkeys import PublicKey

State = Literal["running", "done", "failed", "canceled", "unknown", "fetched"]


class Job(msgspec.Struct, frozen=True):
    """A row."""

    id: str
    owner: PublicKey
    state: State
    route: str
    request_hash: bytes
    created_at: float
    status: int = 0
    """The backend's, or the refusal's."""
    headers: bytes = b""
    """JSON pairs, as the backend sent them."""
    body: bytes = b""
    code: str = ""
    """How it ended."""


class JobResult(msgspec.Struct, frozen=True):
    """How a job ended."""

    state: State
    status: int
    headers: bytes
    body: bytes
    code: str
