"""How an operator's commands reach the running process: a socket in the data folder, mode 0600."""

from .client import ControlClient
from .errors import ControlError, NotRunning, OutcomeUnknown, ProtocolError, Refused
from .protocol import SOCKET_FILE, Command

__all__ = [
    "SOCKET_FILE",
    "Command",
    "ControlClient",
    "ControlError",
    "NotRunning",
    "OutcomeUnknown",
    "ProtocolError",
    "Refused",
]
