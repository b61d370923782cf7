"""Errors of the relay."""


class RelayError(Exception):
    """Base of the area's errors; never raised itself."""


class OutboxFull(RelayError):
    """As many entries wait as may; nothing was queued."""

    def __init__(self, bound: int) -> None:
        super().__init__(f"{bound} entries wait in the relay's outbox, and no more may")


class NoSuchEntry(RelayError):
    """The outbox holds no entry of this number."""

    def __init__(self, entry_id: int) -> None:
        super().__init__(f"the relay's outbox holds no entry {entry_id}")
        self.entry_id = entry_id


class NotWaiting(RelayError):
    """Only an entry that waits, and is not being sent, can be parked."""

    def __init__(self, entry_id: int, state: str) -> None:
        hint = "try again in a moment" if state == "sending" else "nothing to do"
        super().__init__(f"entry {entry_id} is {state}, not pending: {hint}")


class NotAbandoned(RelayError):
    """Only a dead letter can be retried or discarded."""

    def __init__(self, entry_id: int, state: str) -> None:
        super().__init__(f"entry {entry_id} is {state}, not abandoned: nothing to do")
        self.entry_id = entry_id
        self.state = state
