"""The messages that the relay's emitter takes."""

from actors import Message
from engram.relay.model import RelayStatus


class OutboxGrew(Message[None], frozen=True):
    """A hint: look into the outbox now (queueing.py). One that is lost only costs time."""


class GetRelayStatus(Message[RelayStatus], frozen=True):
    """How the relay stands."""
