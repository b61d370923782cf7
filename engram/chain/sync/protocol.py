"""The message that the syncer takes."""

from actors import Message


class Poll(Message[None], frozen=True):
    """Read the finalized head now, and the subnets if it is new. Replies when done, whether it succeeded or not."""
