"""What is under way on one connection of the link."""

from typing import final

import trio

from engram.worker.connection import Connection


@final
class Session:
    """A connection that serves, and what is under way on it."""

    def __init__(self, connection: Connection, *, waits: bool) -> None:
        self.connection = connection
        self.authenticated = trio.Event()
        if not waits:
            self.authenticated.set()
        self.sent: dict[str, float] = {}
        """When results were sent that are not acknowledged yet."""
        self.settled = trio.Event()
        """Set, and replaced, at each acknowledgement."""
        self.acknowledged = 0

    def note_acknowledged(self, job_id: str) -> None:
        """Note the acknowledgement of a result."""
        self.sent.pop(job_id, None)
        self.acknowledged += 1
        self.settled.set()
        self.settled = trio.Event()
