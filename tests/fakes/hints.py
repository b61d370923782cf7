"""Hints that a test can look at."""

from engram.hints import Hints


class RecordedHints(Hints):
    """Each hint in the list of its kind."""

    def __init__(self) -> None:
        self.changed: list[str] = []
        self.moved: list[str] = []
        self.observed: list[str] = []
        self.payments = 0
        self.outbox = 0
        self.keys: list[int] = []

    def session_changed(self, session_id: str) -> None:
        self.changed.append(session_id)

    def session_moved(self, session_id: str) -> None:
        self.moved.append(session_id)

    def node_observed(self, session_id: str) -> None:
        self.observed.append(session_id)

    def payments_changed(self) -> None:
        self.payments += 1

    def outbox_changed(self) -> None:
        self.outbox += 1

    def keys_counted(self, usable: int) -> None:
        self.keys.append(usable)
