"""`engram gateways`: list, drain, evict. For a ledger on PostgreSQL, which several gateways share."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import App, Parameter
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from engram.cli import output
from engram.cli.failures import CommandFailed
from engram.cli.numbers import whole
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.output import Column, moment
from engram.ledger import LedgerError
from engram.ledger.opening import open_ledger

T = TypeVar("T")

app = App(
    name="gateways",
    help="Gateways that share a ledger on PostgreSQL.",
    help_epilogue="Example: `engram gateways list`",
)
_COLUMNS = (
    Column("epoch", "epoch"),
    Column("name", "name"),
    Column("state", "state"),
    Column("host", "host"),
    Column("ops", "address"),
    Column("started", "started_at", moment),
    Column("sessions", "sessions"),
    Column("payments", "payments"),
    Column("for all", "roles"),
)
Epoch = Annotated[int, Parameter(converter=whole, help="Its epoch, as `engram gateways list` shows it.")]


@app.command(name="list", help_epilogue="Example: `engram gateways list --json`")
def list_gateways(*, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """List the gateways that have a lease or had one in the last day, and the work that each does."""
    from engram.ledger.postgres import lease

    output.rows(_on_ledger(sources, lease.listed), _COLUMNS, json=show.json)


@app.command(name="drain", help_epilogue="Example: `engram gateways drain 12`")
def drain_gateway(epoch: Epoch, /, *, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Let a gateway finish its requests and end; the others take over what it owns."""
    from engram.ledger.postgres import lease

    if not _on_ledger(sources, lambda connection: lease.drain(connection, epoch)):
        raise CommandFailed(f"no gateway of epoch {epoch} has a lease: see `engram gateways list`")
    output.record({"epoch": epoch, "state": "draining"}, json=show.json)


@app.command(name="evict", help_epilogue="Example: `engram gateways evict 12`")
def evict_gateway(epoch: Epoch, /, *, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """End a gateway's lease at once: the others take over, and if it still runs it ends at its next commit."""
    from engram.ledger.postgres import lease

    if not _on_ledger(sources, lambda connection: lease.end(connection, epoch)):
        raise CommandFailed(f"no gateway of epoch {epoch} has a lease: see `engram gateways list`")
    output.record({"epoch": epoch, "state": "ended"}, json=show.json)


def _on_ledger(sources: Sources, command: Callable[[Connection], T]) -> T:
    settings = sources.load().settings
    if not settings.ledger.url:
        raise CommandFailed("ledger.url is empty: the ledger is a file, which one process has for itself")
    try:
        ledger = open_ledger(settings.ledger, Path(settings.data_dir))
        try:
            return command(ledger.handle)
        finally:
            ledger.close()
    except (LedgerError, SQLAlchemyError) as error:
        raise CommandFailed(str(error)) from None
