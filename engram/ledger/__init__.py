"""Durable facts: SQLite with one writer, group commit, and replies only after COMMIT."""

from .actor import CountCommits, LedgerActor, LedgerClient, Transact
from .connection import LEDGER_FILE
from .errors import CommitUnknown, FolderInUse, LedgerError, LedgerUnavailable, LedgerUnusable
from .folder import data_folder
from .group import Commits, Group
from .inline import InlineLedger, open_inline
from .lane import LaneClosed, Lookup, Row, lookup
from .port import Ledger
from .prepared import Prepared

__all__ = [
    "LEDGER_FILE",
    "CommitUnknown",
    "Commits",
    "CountCommits",
    "FolderInUse",
    "Group",
    "InlineLedger",
    "LaneClosed",
    "Ledger",
    "LedgerActor",
    "LedgerClient",
    "LedgerError",
    "LedgerUnavailable",
    "LedgerUnusable",
    "Lookup",
    "Prepared",
    "Row",
    "Transact",
    "data_folder",
    "lookup",
    "open_inline",
]
