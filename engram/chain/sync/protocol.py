"""The messages that the area's actors take."""

from actors import Message


class Poll(Message[None], frozen=True):
    """Read the finalized head now, and the subnets if it is new. Answered when that is done, well or not."""


class Look(Message[None], frozen=True):
    """Compare what the chain says of the node with where it serves, and announce that if it is due."""
