"""`engram miner`: start a memory miner, and look after the index of one."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from engram.cli import roles
from engram.cli.failures import CommandFailed
from engram.cli.output import complain

KEY_VARIABLE: Final = "QDRANT_API_KEY"
_TRUTH = "truth.db"
_INDEX = "index"

app = App(
    name="miner",
    help="Start a memory miner; or rebuild and move its index.",
    help_epilogue="Example: `engram miner --config launch.json`",
)
app.default(roles.miner)

Data = Annotated[Path, Parameter(help="The node's data folder (`data_dir` of its launch file).")]


@app.command(help_epilogue="Example: `engram miner reindex /var/lib/engram/my-node`")
def reindex(data: Data) -> None:
    """Build the index anew from the records, graph and all; the node must be down. Nothing is lost when stopped."""
    from engram.memory import edge_reindex
    from engram.miner import folder
    from engram.miner.errors import NodeError

    truth = _truth(data)
    try:
        with folder.claim(data), _progress("vectors") as told:
            count = edge_reindex.reindex(truth, data / _INDEX, told)
    except NodeError as error:
        raise CommandFailed(f"{error}; stop it first (while it runs, it builds its graph by itself)") from None
    except (sqlite3.Error, OSError) as error:
        raise CommandFailed(f"the index of {data} cannot be built: {error}; the old one is as it was") from None
    complain(f"the index has {count} vectors")


@app.command(help_epilogue="Example: `engram miner push /var/lib/engram/my-node --to https://qdrant.example:6333`")
def push(
    data: Data,
    *,
    to: Annotated[str, Parameter(help=f"URL of the Qdrant server; its key is read from {KEY_VARIABLE}.")],
) -> None:
    """Send the vectors to a Qdrant server. Stopped or failed, it goes on from there when called again."""
    import trio

    from engram.memory.errors import MemoryAreaError

    try:
        from engram.memory.qdrant_push import push as pushed
    except ImportError:
        raise CommandFailed("qdrant-client is not installed: install engram with its extra `qdrant`") from None
    truth, key = _truth(data), os.environ.get(KEY_VARIABLE)

    async def run() -> int:
        with _progress("vectors") as told:
            return await pushed(truth, to, api_key=key, on_progress=told)

    try:
        count = trio.run(run)
    except (MemoryAreaError, sqlite3.Error) as error:
        raise CommandFailed(f"not everything was sent: {error}; call it again to go on") from None
    complain(f"the server has {count} vectors")


def _truth(data: Path) -> Path:
    truth = data / _TRUTH
    if not truth.is_file():
        raise CommandFailed(f"{truth} is not there: name the data folder of a node")
    return truth


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error when that is a terminal; yields what is to be told (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
