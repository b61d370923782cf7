"""Hints that a test can look at."""

from engram.hints import Hints


class RecordedHints(Hints):
    """`given` holds all of them in their order, as "outbox_changed" or "session_changed a"."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.changed: list[str] = []
        self.moved: list[str] = []
        self.observed: list[str] = []
        self.turned: list[str] = []
        self.keys: list[int] = []

    def session_changed(self, session_id: str) -> None:
        self.given.append(f"session_changed {session_id}")
        self.changed.append(session_id)

    def session_moved(self, session_id: str) -> None:
        self.given.append(f"session_moved {session_id}")
        self.moved.append(session_id)

    def node_observed(self, session_id: str) -> None:
        self.given.append(f"node_observed {session_id}")
        self.observed.append(session_id)

    def node_turned(self, session_id: str) -> None:
        self.given.append(f"node_turned {session_id}")
        self.turned.append(session_id)

    def payments_changed(self) -> None:
        self.given.append("payments_changed")

    def outbox_changed(self) -> None:
        self.given.append("outbox_changed")

    def keys_counted(self, usable: int) -> None:
        self.given.append(f"keys_counted {usable}")
        self.keys.append(usable)
