"""A job and its states.

running --answer whole--> done --fetched, time over--> (deleted)
   |  \\--refused, cut, too large--> failed ------------^
   |  \\--its client left before the 202--> canceled ---^
   +--the process ended--> unknown --------------------^      never run again
"""

from typing import Literal

import msgspec

from engram.hotkeys import PublicKey

State = Literal["running", "done", "failed", "canceled", "unknown"]


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
