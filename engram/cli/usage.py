"""What is said of a command line that cannot be understood: what is wrong, and where the right one is explained."""

from cyclopts import App, CycloptsError, MissingArgumentError


def in_words(error: CycloptsError) -> str:
    """Two lines: what is wrong, and the help to read."""
    chain = list(error.command_chain or ())
    named = " ".join(["engram", *chain])
    message = str(error)
    if isinstance(error, MissingArgumentError) and error.argument is not None and not error.argument.tokens:
        message = f"{named} needs {error.argument.name}"
        commands = _commands(error.app)
        given = list(error.root_input_tokens or ())[len(chain) :]
        if commands and given and not given[0].startswith("-"):
            message = f"Unknown command {given[0]!r}. Commands of {named}: {', '.join(commands)}."
        elif commands:
            message += f"; other commands of {named}: {', '.join(commands)}"
    return f"{message}\nsee {named} --help"


def _commands(app: App | None) -> list[str]:
    return [] if app is None else sorted(name for name in app if not name.startswith("-"))
