"""How an operator's commands reach the running process: a socket in the data folder, mode 0600."""

from engram.control.client import ControlClient
from engram.control.errors import CommandRefused, ControlError, NotRunning, OutcomeUnknown, ProtocolError
from engram.control.protocol import SOCKET_FILE, Command

__all__ = [
    "SOCKET_FILE",
    "Command",
    "CommandRefused",
    "ControlClient",
    "ControlError",
    "NotRunning",
    "OutcomeUnknown",
    "ProtocolError",
]
