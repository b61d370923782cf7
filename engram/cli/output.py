"""Output of commands: tables on a terminal, tab-separated lines when piped, JSON when asked for.

What is shown may come from nodes and clients: control characters never reach the terminal, markup is not read, and a
tab or line break inside a value never breaks a line in two.
"""

import datetime as dt
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

import msgspec

Format = Callable[[Any], str]


class Column(msgspec.Struct, frozen=True):
    """One column: its heading, the field of the row, and how a value is written."""

    title: str
    field: str
    format: Format = str


def moment(value: float | None) -> str:
    """Return Unix seconds as UTC text.

    >>> moment(1_716_000_000)
    '2024-05-18T02:40:00Z'
    """
    if value is None:
        return ""
    return dt.datetime.fromtimestamp(value, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(value: float | None) -> str:
    """Return seconds as text in hours, minutes and seconds.

    >>> duration(3_725), duration(59.4), duration(90_000)
    ('1h02m', '59s', '25h00m')
    """
    if value is None:
        return ""
    seconds = max(0, int(value))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3_600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    return f"{seconds // 3_600}h{seconds % 3_600 // 60:02}m"


def usd(value: float | None) -> str:
    """US dollars with at least cents.

    >>> usd(0.1), usd(2.4), usd(0.000125)
    ('0.10', '2.40', '0.000125')
    """
    if value is None:
        return ""
    return f"{value:.2f}" if round(value, 2) == round(value, 6) else f"{value:.6f}"


def rows(items: Sequence[msgspec.Struct], columns: Sequence[Column], *, json: bool) -> None:
    """Show a list."""
    if json:
        document(items)
        return
    table([[_cell(item, column) for column in columns] for item in items], [column.title for column in columns])


def table(lines: Sequence[Sequence[str]], titles: Sequence[str]) -> None:
    """Show lines of text under titles."""
    if not sys.stdout.isatty():
        for line in [titles, *lines]:
            sys.stdout.write("\t".join(line) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for position, title in enumerate(titles):
        drawn.add_column(title, overflow="fold", no_wrap=position == 0)  # an id is copied in one piece
    for line in lines:
        drawn.add_row(*(Text(cell) for cell in line))
    Console(highlight=False).print(drawn if lines else "None.")


def record(
    item: msgspec.Struct | Mapping[str, object], formats: Mapping[str, Format] | None = None, *, json: bool
) -> None:
    """Show one record, one field per line."""
    if json:
        document(item)
        return
    fields = msgspec.structs.asdict(item) if isinstance(item, msgspec.Struct) else dict(item)
    written = {name: _written(value, (formats or {}).get(name, str)) for name, value in fields.items()}
    if not sys.stdout.isatty():
        for name, text in written.items():
            sys.stdout.write(f"{name}\t{text}\n")
        return
    width = max(map(len, written), default=0)
    for name, text in written.items():
        sys.stdout.write(f"{name:<{width}}  {text}\n")


def document(value: object) -> None:
    """Show JSON, indented on a terminal."""
    encoded = msgspec.json.encode(value)
    if sys.stdout.isatty():
        encoded = msgspec.json.format(encoded, indent=2)
    sys.stdout.write("\n".join(map(_spelled, encoded.decode().split("\n"))) + "\n")


def say(text: str) -> None:
    """Report success."""
    sys.stdout.write(printable(text) + "\n")


def complain(text: str) -> None:
    """Report a failure on standard error."""
    for line in text.splitlines() or [""]:
        sys.stderr.write(f"engram: {printable(line)}\n")


class Progress:
    """A line of progress for long waits; shows nothing unless standard error is a terminal."""

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.end()

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._on_terminal:
            sys.stderr.write(f"\r\x1b[K{printable(text)}")
            sys.stderr.flush()
            self._shown = True

    def end(self) -> None:
        """Clear the line."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False


def printable(text: str) -> str:
    r"""Text without what could move a cursor or break a line.

    >>> printable("a\x1b[2Jb\tc")
    'a\\x1b[2Jb c'
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else " " if character in _BLANKS else _escaped(character)
        for character in text
    )


def _spelled(text: str) -> str:
    """Text of JSON, in which what could move a cursor or turn a line round is spelled as JSON spells it."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


_BLANKS: Final = "\t\r\n"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _cell(item: msgspec.Struct, column: Column) -> str:
    return _written(getattr(item, column.field), column.format)


def _written(value: object, form: Format) -> str:
    return "" if value is None else printable(form(value))
