"""What commands on a node's data folder share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from engram.cli.failures import CommandFailed

_TRUTH = "truth.db"
Data = Annotated[Path, Parameter(help="The node's data folder (`data_dir` of its launch file).")]


def truth_of(data: Path) -> Path:
    """Return the record database of a node's folder. Raises CommandFailed."""
    truth = data / _TRUTH
    if not truth.is_file():
        raise CommandFailed(f"{truth} is not there: name the data folder of a node")
    return truth


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error when that is a terminal; yields a callback that takes (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
