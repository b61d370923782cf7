"""What areas tell each other after a commit.

A hint only says "look now". Its receiver also looks by itself every few seconds, so one that is lost costs time and
nothing else: it is counted (`engram_hints_lost`), never raised. No hint waits or raises.
"""


class Hints:
    """Hints that go nowhere; a role overrides those that it has receivers for."""

    def session_changed(self, session_id: str) -> None:
        """The session was paid, extended or stopped, or its node does not answer: the provisioner has work."""

    def session_moved(self, session_id: str) -> None:
        """The provisioner brought the session into another state."""

    def node_observed(self, session_id: str) -> None:
        """The poller learned something new of the session's node."""

    def node_turned(self, session_id: str) -> None:
        """The session's node stopped answering, or answers again: the session is degraded, or active again."""

    def payments_changed(self) -> None:
        """Payments have work: the payment verifier reads them."""

    def outbox_changed(self) -> None:
        """The relay's outbox has entries to send."""

    def keys_counted(self, usable: int) -> None:
        """The pool has `usable` keys for nodes, leased ones included; sent every few seconds where none are made on
        demand, so that no more is sold than can be served."""
