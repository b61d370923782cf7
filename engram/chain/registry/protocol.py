"""The message that the announcer takes."""

from actors import Message


class Look(Message[None], frozen=True):
    """Compare what the chain says of the node with where it serves, and announce that if it is due."""
