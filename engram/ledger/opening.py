"""Opens the ledger that the settings name: the file in the data folder, or a PostgreSQL server."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from config.model import LedgerSettings
from engram.ledger.connection import LEDGER_FILE
from engram.ledger.errors import LedgerUnavailable
from engram.ledger.inline import InlineLedger, open_inline
from engram.ledger.port import Server

EMBEDDED: Final = LedgerSettings()


def place_of(settings: LedgerSettings, folder: Path) -> str:
    """Return where the ledger is, for an error: the file, or the setting that may hold a password."""
    return "the server of ledger.url" if settings.url else str(folder / LEDGER_FILE)


def server_of(
    settings: LedgerSettings,
    address: str = "",
    folder: str = "",
    on_drain: Callable[[], None] = lambda: None,
) -> Server | None:
    """Return the server that keeps the ledger, None where it is a file; does not connect. `folder` is the mark of the
    data folder (folder.py) that this process has locked.

    Raises LedgerUnavailable where the driver is not installed.
    """
    if not settings.url:
        return None
    found: Server = postgres("server").PostgresServer(
        settings.url,
        name=settings.gateway_name,
        address=address,
        folder=folder,
        ttl_s=settings.lease_s,
        on_drain=on_drain,
    )
    return found


def open_ledger(settings: LedgerSettings, folder: Path) -> InlineLedger:
    """Open (and migrate) the ledger for a one-shot command; blocks. Raises LedgerUnusable and LedgerUnavailable."""
    if not settings.url:
        return open_inline(folder / LEDGER_FILE)
    server = postgres("server").PostgresServer(settings.url)
    return InlineLedger(postgres("store").PostgresStore(server.open_inline()))


def postgres(module: str) -> Any:
    """Return a module of engram.ledger.postgres. Raises LedgerUnavailable where the driver is not installed."""
    try:
        return importlib.import_module(f"engram.ledger.postgres.{module}")
    except ImportError as error:
        raise LedgerUnavailable(
            f"ledger.url names a PostgreSQL server and {error.name} is not installed: pip install 'engram[postgresql]'"
        ) from error
