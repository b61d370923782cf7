"""The ledger of durable facts: SQLite with one writer, group commit, and replies only after COMMIT."""

from engram.durable import Commits, Group
from engram.ledger.actor import CountCommits, LedgerActor, LedgerClient, Transact
from engram.ledger.connection import LEDGER_FILE
from engram.ledger.errors import (
    CommitPending,
    CommitUnknown,
    FolderInUse,
    LedgerError,
    LedgerUnavailable,
    LedgerUnusable,
)
from engram.ledger.folder import data_folder
from engram.ledger.inline import InlineLedger, open_inline
from engram.ledger.lane import LaneClosed, Lookup, lookup
from engram.ledger.port import Ledger, Server
from engram.ledger.prepared import Prepared, Row

__all__ = [
    "LEDGER_FILE",
    "CommitPending",
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
    "Server",
    "Transact",
    "data_folder",
    "lookup",
    "open_inline",
]
