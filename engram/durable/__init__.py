"""The SQLite foundation of ledger and memory, with the same guarantees for every file.

A file is opened with the same settings, check and migrations (`connection`); written by one thread in group commits
that answer done, refused, failed or unknown (`writer`, `group`); read on snapshots within a time budget (`readers`);
cleared of deleted data (`erasing`); copied while in use (`copies`); and replaced atomically (`restoring`).
"""

from engram.durable.commit_thread import CommitThread, WriteRequest
from engram.durable.database import Database
from engram.durable.errors import DurableError, NotDone, OutcomeUnknown, Unusable
from engram.durable.group import Commits, Group, Outcome
from engram.durable.readers import Readers
from engram.durable.writer import Writer

__all__ = [
    "CommitThread",
    "Commits",
    "Database",
    "DurableError",
    "Group",
    "NotDone",
    "Outcome",
    "OutcomeUnknown",
    "Readers",
    "Unusable",
    "WriteRequest",
    "Writer",
]
