"""Messages for wrong command lines: what is wrong, and which help to read."""

from cyclopts import (
    App,
    Argument,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnusedCliTokensError,
)


def in_words(error: CycloptsError) -> str:
    """Return two lines: what is wrong, and the help to read."""
    chain = list(error.command_chain or ())
    named = " ".join(["engram", *chain])
    match error:
        case MissingArgumentError(argument=Argument(tokens=[]) as argument):
            message = _missing(error, argument, named, list(error.root_input_tokens or ())[len(chain) :])
        case UnusedCliTokensError(unused_tokens=[*unused]):
            message = f"{named} does not take the argument {', '.join(map(repr, unused))}"
        case UnknownCommandError(unused_tokens=[option, *_]) if option.startswith("-"):
            message = f"Unknown option: {option}. Commands of {named}: {', '.join(_commands(error.app))}."
        case _:
            message = str(error)
    return f"{message}\nsee {named} --help"


def shown_default(default: object) -> str | None:
    """Return the default of an option for its help; None when the option has no effect unless it is given."""
    return None if default is False or default in (None, (), "") else str(default)


def _missing(error: MissingArgumentError, argument: Argument, named: str, given: list[str]) -> str:
    commands = _commands(error.app)
    unknown = [token for token in error.unused_tokens or () if token.startswith("-")]
    if unknown:
        return f"Unknown option: {unknown[0]}."
    if commands and given and not given[0].startswith("-"):
        return f"Unknown command {given[0]!r}. Commands of {named}: {', '.join(commands)}."
    choices = argument.get_choices()
    message = f"{named} needs {_name(argument)}" + (f" ({' or '.join(choices)})" if choices else "")
    return message + (f"; other commands of {named}: {', '.join(commands)}" if commands else "")


def _name(argument: Argument) -> str:
    return argument.name.lstrip("-").upper() if argument.field_info.is_positional else argument.name


def _commands(app: App | None) -> list[str]:
    return [] if app is None else sorted(name for name in app if not name.startswith("-"))
