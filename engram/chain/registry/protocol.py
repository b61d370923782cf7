"""The message that the announcer takes."""

from actors import Message


class Look(Message[None], frozen=True):
    """Compare the address on the chain with the node's own, and announce that if it is due."""
