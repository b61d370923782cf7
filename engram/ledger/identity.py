"""The first look at a ledger: opens it before anything else runs, and gives a new one its environment."""

from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from config.model import LedgerSettings
from engram.ledger import facts
from engram.ledger.errors import LedgerUnavailable, LedgerUnusable
from engram.ledger.opening import EMBEDDED, open_ledger, place_of


def claim(folder: Path, environment: str, settings: LedgerSettings = EMBEDDED) -> str:
    """Open, check and migrate the ledger of `folder`, or that of the settings, and return its id. Blocks.

    Raises LedgerUnusable for a damaged or newer file, or one of another environment, and LedgerUnavailable when the
    disk refuses (full, read-only, no permission).
    """
    place = place_of(settings, folder)
    ledger = open_ledger(settings, folder)
    try:
        ledger.write_now(partial(refuse_moved, place=place))
        held, ledger_id = ledger.write_now(
            lambda connection: (facts.claim_environment(connection, environment), facts.ledger_id(connection))
        )
    except LedgerUnavailable as error:
        raise LedgerUnavailable(f"{place} cannot be written: {error}") from error
    finally:
        ledger.close()
    if held != environment:
        where, setting = (place, "ledger.url") if settings.url else (folder, "data_dir")
        raise LedgerUnusable(f"{where} holds the ledger of environment {held}, not {environment}; set {setting}")
    return ledger_id


def refuse_moved(connection: Connection, place: str) -> None:
    """Raise LedgerUnusable where the ledger was moved elsewhere, or is still being moved here."""
    if (to := facts.get(connection, facts.MOVED_TO)) is not None:
        raise LedgerUnusable(f"{place} was moved to {to}: set ledger.url to it")
    if facts.get(connection, facts.MOVING_FROM) is not None:
        raise LedgerUnusable(f"a ledger is being moved to {place}: run `engram ledger migrate` again until it is done")
