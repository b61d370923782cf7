"""`engram completion` and `engram manual`: both written from the commands themselves, in every form of the program."""

import re
import sys
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from cyclopts import App, Parameter

from engram import __version__
from engram.cli.usage import shown_default

Shell = Annotated[Literal["bash", "zsh", "fish"], Parameter(help="Which shell.")]
Format = Annotated[
    Literal["man", "markdown"], Parameter(name="--format", help="man: for man(1); markdown: one page of all commands.")
]

EXIT_STATUSES: Final = (
    (0, "Done."),
    (1, "Refused, or failed; the message says why."),
    (2, "Wrong usage or settings, or a process that cannot start."),
    (3, "No process is running on this data folder."),
    (4, "Sent, but no answer arrived: check the outcome before you try again."),
    (5, "Endpoints of the chain are on different forks; nothing was sent."),
    (130, "Ctrl-C."),
)
_VARIABLES: Final = (
    ("ENGRAM_ENV", "The profile, where --profile does not name it: local, testnet or mainnet."),
    ("STATE_DIRECTORY", "The data folder, where no setting names it; systemd sets it."),
    ("ENGRAM_CGROUP_LEAF", "The group that the gateway makes for itself in its unit, before systemd 254."),
    ("ENGRAM_UNPACK_DIR", "Where the one-file form unpacks itself; else a cache folder of the user or the service."),
)
_FILES: Final = (
    ("/etc/engram/engram.toml", "Settings of the packaged service."),
    ("/var/lib/engram", "Its data folder: ledger, keys and nodes."),
    (".env", "Variables, read from the working directory."),
)
_LIGATURE: Final = re.compile(r"`([^`]*)`")


def completion(shell: Shell) -> None:
    """Print the completion script of a shell."""
    from engram.cli.app import app

    sys.stdout.write(app.generate_completion(shell=shell).rstrip() + "\n")


def manual(*, written_as: Format = "man") -> None:
    """Print the manual of all commands."""
    from engram.cli.app import app

    sys.stdout.write(man_page(app) if written_as == "man" else app.generate_docs().rstrip() + "\n")


def man_page(app: App) -> str:
    """Return the page engram(1), in the macros of man(7)."""
    lines = [
        f'.TH ENGRAM 1 "" "Engram {__version__}" "User Commands"',
        ".SH NAME",
        "engram \\- sell, run, watch and use memory nodes",
        ".SH SYNOPSIS",
        ".B engram",
        ".I COMMAND",
        "[\\fIOPTIONS\\fR]",
        ".SH DESCRIPTION",
        _text(_help(app)),
        ".SH COMMANDS",
        *(line for path, command in commands(app) for line in _command(path, command)),
        ".SH EXIT STATUS",
        *_terms((str(status), text) for status, text in EXIT_STATUSES),
        ".SH ENVIRONMENT",
        *_terms(_VARIABLES),
        ".SH FILES",
        *_terms(_FILES),
    ]
    return "\n".join(lines) + "\n"


def commands(app: App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Yield every command that does something, with its path, in the order of the help."""
    for name in app:
        if not name.startswith("-"):
            command = app[name]
            here = (*path, name)
            below = list(commands(command, here))
            yield from below or [(here, command)]


def _command(path: tuple[str, ...], command: App) -> Iterator[str]:
    yield f'.SS "engram {" ".join(path)}"'
    yield _text(_help(command))
    for argument in command.assemble_argument_collection():
        if not argument.show or not argument.parameter.help:
            continue
        names = ", ".join(argument.names)
        default = argument.field_info.default
        shown = shown_default(default) if argument.parameter.show_default and default is not None else ""
        yield ".TP"
        yield f"\\fB{_escaped(names)}\\fR"
        yield _text(argument.parameter.help + (f" Default: {shown}." if shown else ""))
    if epilogue := command.help_epilogue:
        yield ".PP"
        yield _text(epilogue)


def _help(app: App) -> str:
    return str(app.help or "").strip()


def _terms(rows: Iterator[tuple[str, str]] | tuple[tuple[str, str], ...]) -> Iterator[str]:
    for term, text in rows:
        yield ".TP"
        yield f"\\fB{_escaped(term)}\\fR"
        yield _text(text)


def _text(text: str) -> str:
    """Return text as roff: paragraphs apart, code in bold, nothing that begins a line as a macro."""
    paragraphs = [_LIGATURE.sub(r"\\fB\1\\fR", _escaped(" ".join(part.split()))) for part in text.split("\n\n")]
    return "\n.PP\n".join(part if part[:1] not in (".", "'") else f"\\&{part}" for part in paragraphs)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")
