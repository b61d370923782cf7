"""Durable facts: SQLite with one writer, group commit, and replies only after COMMIT."""

from .connection import LEDGER_FILE
from .errors import CommitUnknown, FolderInUse, LedgerError, LedgerUnavailable, LedgerUnusable
from .folder import data_folder
from .group import Commits
from .inline import InlineLedger, open_inline
from .port import Ledger

__all__ = [
    "LEDGER_FILE",
    "CommitUnknown",
    "Commits",
    "FolderInUse",
    "InlineLedger",
    "Ledger",
    "LedgerError",
    "LedgerUnavailable",
    "LedgerUnusable",
    "data_folder",
    "open_inline",
]
