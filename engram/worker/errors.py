"""What keeps a job from a result."""

from typing import final


class JobError(Exception):
    """Base of what a job kind raises; never raised itself."""


@final
class JobFailed(JobError):
    """The job was not done, or its backend refused it; the text is what the orchestrator is told."""


@final
class OutcomeUnknown(JobError):
    """The job may or may not have been done: its backend's answer was lost, or its result cannot be read."""


@final
class LinkLost(Exception):
    """The connection to the orchestrator is over; the text says why.

    `refused`: the orchestrator does not take this hotkey, so that trying again soon is of no use.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused
