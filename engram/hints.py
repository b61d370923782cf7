"""What areas tell each other after a commit.

A hint only says "look now". Its receiver also looks by itself every few seconds, so one that is lost costs time and
nothing else: it is counted (`engram_hints_lost`), never raised. No hint waits or raises.
"""


class Hints:
    """Hints that go nowhere; a role overrides those that it has receivers for."""

    def session_changed(self, session_id: str) -> None:
        """Tell the provisioner that a session was paid, extended or stopped, or that its node does not answer."""

    def session_moved(self, session_id: str) -> None:
        """Tell that the provisioner brought the session into another state."""

    def node_observed(self, session_id: str) -> None:
        """Tell that the poller learned something new of the session's node."""

    def node_turned(self, session_id: str) -> None:
        """Tell that a node stopped answering, or answers again: its session is degraded, or active again."""

    def payments_changed(self) -> None:
        """Payments have work: the payment verifier reads them."""

    def outbox_changed(self) -> None:
        """Tell the relay that its outbox has entries to send."""

    def keys_counted(self, usable: int) -> None:
        """Tell that the pool has `usable` keys for nodes, leased ones included, so that no more is sold than is served.

        Sent every few seconds where keys are not made on demand.
        """
