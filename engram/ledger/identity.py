"""The first look at a ledger: opens it before anything else runs, and gives a new one its environment."""

from pathlib import Path

from engram.ledger import facts
from engram.ledger.connection import LEDGER_FILE
from engram.ledger.errors import LedgerUnavailable, LedgerUnusable
from engram.ledger.inline import open_inline


def claim(folder: Path, environment: str) -> str:
    """Open, check and migrate the ledger of `folder`, and return its id. Blocks.

    Raises LedgerUnusable for a damaged or newer file, or one of another environment, and LedgerUnavailable when the
    disk refuses (full, read-only, no permission).
    """
    ledger = open_inline(folder / LEDGER_FILE)
    try:
        held, ledger_id = ledger.write_now(
            lambda connection: (facts.claim_environment(connection, environment), facts.ledger_id(connection))
        )
    except LedgerUnavailable as error:
        raise LedgerUnavailable(f"{folder / LEDGER_FILE} cannot be written: {error}") from error
    finally:
        ledger.close()
    if held != environment:
        raise LedgerUnusable(f"{folder} holds the ledger of environment {held}, not {environment}; set data_dir")
    return ledger_id
