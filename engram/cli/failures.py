"""Expected failures of commands: one line of text and an exit code, never a traceback."""

import enum


class Exit(enum.IntEnum):
    """Exit codes, for scripts."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    UNKNOWN = 4
    FORKED = 5
    INTERRUPTED = 130


class CommandFailed(Exception):
    """The message is for people and says what to do next."""

    def __init__(self, message: str, exit_code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
