"""Messages of the provisioner. All are hints: what is lost is found by the next reading of the ledger."""

import msgspec


class SessionChanged(msgspec.Struct, frozen=True):
    """The session was paid, stopped, extended, or its node does not answer: look at it now."""

    session_id: str


class NodeExited(msgspec.Struct, frozen=True):
    """The backend saw the node of this token end."""

    token: str


class Sweep(msgspec.Struct, frozen=True):
    """Look for sessions with work left."""


class CheckNodes(msgspec.Struct, frozen=True):
    """Compare the nodes there are with the nodes there should be."""


class Expire(msgspec.Struct, frozen=True):
    """Stop what has run out."""


class CheckpointTime(msgspec.Struct, frozen=True):
    """Write down how much paid time is used up."""


class Recount(msgspec.Struct, frozen=True):
    """Correct the counts of sessions where they are wrong."""


FleetMessage = SessionChanged | NodeExited | Sweep | CheckNodes | Expire | CheckpointTime | Recount
