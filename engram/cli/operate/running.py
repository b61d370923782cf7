"""Asks the running process through its control socket."""

from pathlib import Path
from typing import TypeVar

from engram.cli import output
from engram.cli.failures import CommandFailed, Exit
from engram.cli.options import Sources
from engram.control import Command, CommandRefused, ControlClient, NotRunning, OutcomeUnknown, ProtocolError
from engram.control.model import Done

R = TypeVar("R")


def ask(sources: Sources, command: Command[R], *, timeout_s: float = 30.0) -> R:
    """Return the running process's answer. Raises ConfigError, or CommandFailed when it refuses or is not running."""
    return ask_folder(Path(sources.load().settings.data_dir), command, timeout_s=timeout_s)


def ask_folder(data_dir: Path, command: Command[R], *, timeout_s: float = 30.0) -> R:
    """Return the answer of the process that serves `data_dir`. Raises CommandFailed."""
    try:
        return ControlClient(data_dir.resolve(), timeout_s=timeout_s).call(command)
    except NotRunning as error:
        raise CommandFailed(f"{error} (--data-dir names another folder)", Exit.NOT_RUNNING) from None
    except CommandRefused as refused:
        raise CommandFailed(refused.message) from None
    except (OutcomeUnknown, ProtocolError) as error:
        raise CommandFailed(str(error), Exit.UNKNOWN) from None


def done(outcome: Done, otherwise: str, *, json: bool) -> None:
    """Report the result of a command; `otherwise` is the text when the process sent none."""
    if json:
        output.document(outcome)
    else:
        output.say(outcome.message or (otherwise if outcome.changed else "nothing to change"))
