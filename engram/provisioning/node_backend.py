"""The seam to where nodes run. Every backend passes the same contract suite (tests/provisioning/contract.py)."""

from collections.abc import Callable, Sequence
from typing import Protocol

from engram.provisioning.model import Node, NodeSpec, Offers


class NodeBackend(Protocol):
    """Starts, finds and removes nodes.

    Every call may raise Unavailable (not asked, nothing changed) and Unknown (asked, outcome not known); `launch`
    also NoCapacity and Rejected. A call may be repeated at any time.
    """

    @property
    def name(self) -> str:
        """The backend's name in settings."""
        ...

    async def offers(self) -> Offers:
        """What it can hold."""
        ...

    async def launch(self, spec: NodeSpec) -> Node:
        """Start the node, or return the one that runs under this token already.

        A node that has died, or was stopped, is started again on what it had stored. Returns when it was started,
        not when it is ready: ask its /health.
        """
        ...

    async def inspect(self, token: str) -> Node | None:
        """What is known of the node; None when nothing of it is left."""
        ...

    async def extend(self, token: str, ends_at: float) -> None:
        """Move the time at which the node ends by itself (unix seconds). No node: no effect."""
        ...

    async def stop(self, token: str) -> None:
        """Stop the node and keep what it stored; returns when it is seen to be dead. No node: no effect."""
        ...

    async def destroy(self, token: str) -> None:
        """Remove the node and all it stored; returns when it is seen to be gone. No node: no effect."""
        ...

    async def list(self) -> Sequence[Node]:
        """All nodes of this ledger, dead ones that left something behind included."""
        ...

    async def watch(self, exited: Callable[[str], None]) -> None:
        """Run for ever, enforcing limits and calling `exited(token)` soon after a node has ended."""
        ...
