"""Moves the ledger of a data folder, which the caller has locked, to a server."""

from collections.abc import Callable
from pathlib import Path

from config.model import LedgerSettings
from engram.ledger import facts
from engram.ledger.connection import LEDGER_FILE
from engram.ledger.errors import LedgerUnusable
from engram.ledger.inline import open_inline
from engram.ledger.opening import postgres, server_of
from engram.ledger.prepared import driver


def to_server(folder: Path, url: str, on_progress: Callable[[int, int], None]) -> dict[str, int]:
    """Move it, and note in the file where it went; return how many rows each table has. Blocks.

    Raises LedgerUnusable and LedgerUnavailable; the file is unchanged then.
    """
    if not (folder / LEDGER_FILE).is_file():
        raise LedgerUnusable(f"{folder} holds no ledger; set data_dir")
    server = server_of(LedgerSettings(url=url))
    assert server is not None, "it has an address"
    ledger = open_inline(folder / LEDGER_FILE)
    moved_to = ledger.read_now(lambda connection: facts.get(connection, facts.MOVED_TO))
    if moved_to not in (None, server.place):
        ledger.close()
        raise LedgerUnusable(f"{folder / LEDGER_FILE} was moved to {moved_to}: set ledger.url to it")

    def close_source() -> None:
        ledger.write_now(lambda connection: facts.put(connection, facts.MOVED_TO, server.place))

    try:
        link = server.open_inline()
        try:
            moved = postgres("moving").move(driver(ledger.handle), link, on_progress, close_source)
        finally:
            link.close()
    finally:
        ledger.close()
    rows: dict[str, int] = moved.rows
    return rows
