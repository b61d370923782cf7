"""`engram relay dlq`: the entries that the relay abandoned."""

from typing import Annotated

from cyclopts import App, Parameter

from engram.cli import output
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.cli.operate.running import ask, done
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.output import Column, moment
from engram.control.commands import DiscardDeadLetter, ListDeadLetters, RetryDeadLetter, ShowDeadLetter
from engram.control.model import DeadLetterRow

app = App(name="relay", help="What is relayed to another network.", help_epilogue="Example: `engram relay dlq list`")
dlq = App(name="dlq", help="Entries that the relay abandoned.", help_epilogue="Example: `engram relay dlq list`")
app.command(dlq)

_COLUMNS = (
    Column("id", "id"),
    Column("kind", "kind"),
    Column("block", "block"),
    Column("state", "state"),
    Column("attempts", "attempts"),
    Column("created", "created_at", moment),
    Column("last reason", "last_reason"),
)
Number = Annotated[int, Parameter(converter=whole, help="Its id, as `engram relay dlq list` shows it.")]
_FORMATS = {"created_at": moment, "updated_at": moment, "next_attempt_at": moment}


@dlq.command(name="list", help_epilogue="Example: `engram relay dlq list`")
def list_letters(*, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """List abandoned entries, the oldest first."""
    letters: list[DeadLetterRow] = []
    while page := ask(sources, ListDeadLetters(after=letters[-1].id if letters else 0)):
        letters += page
    output.rows(letters, _COLUMNS, json=show.json)


@dlq.command(name="show", help_epilogue="Example: `engram relay dlq show 12`")
def show_letter(number: Number, *, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Show an entry and its attempts."""
    detail = ask(sources, ShowDeadLetter(id=number))
    if show.json:
        output.document(detail)
        return
    output.record(detail.entry, _FORMATS, json=False)
    output.rows(
        detail.attempts,
        (Column("at", "at", moment), Column("status", "status"), Column("HTTP", "http_status")),
        json=False,
    )


@dlq.command(name="retry", help_epilogue="Example: `engram relay dlq retry 12`, or `engram relay dlq retry --all`")
def retry_letter(
    number: Number | None = None,
    /,
    *,
    every: Annotated[bool, Parameter(name="--all", help="Every abandoned entry.", negative="")] = False,
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> None:
    """Send an abandoned entry again."""
    if every == (number is not None):
        raise CommandFailed("name one entry by its number, or --all", Exit.USAGE)
    done(ask(sources, RetryDeadLetter(id=number)), "will be sent again", json=show.json)


@dlq.command(name="discard", help_epilogue="Example: `engram relay dlq discard 12`")
def discard_letter(number: Number, *, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Discard an abandoned entry permanently."""
    done(ask(sources, DiscardDeadLetter(id=number)), f"{number} is discarded", json=show.json)
