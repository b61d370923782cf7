"""What can go wrong between an operator's command and the running process."""

from typing import final


class ControlError(Exception):
    """Base; never raised itself."""


@final
class NotRunning(ControlError):
    """No process serves this data folder; nothing was sent."""


@final
class CommandRefused(ControlError):
    """The running process said no. `code` is a word for programs, the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@final
class OutcomeUnknown(ControlError):
    """The command was sent and no answer came in time: it may or may not have been carried out."""


@final
class ProtocolError(ControlError):
    """The other side speaks another version of the control protocol, or sent more than the bound."""
