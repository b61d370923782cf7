"""The SQLite foundation of ledger and memory, with the same guarantees for every file.

A file is opened with the same settings, check and migrations (`connection`); written by one thread in group commits
that answer done, refused, failed or unknown (`writer`, `group`); read on snapshots within a time budget (`readers`);
cleared of deleted data (`erasing`); copied while in use (`copies`); and replaced atomically (`restoring`).
"""

import importlib
from typing import TYPE_CHECKING, Final

from engram.durable.database import Database
from engram.durable.errors import DurableError, NotDone, OutcomeUnknown, Unusable
from engram.durable.group import Commits, Group, Outcome

if TYPE_CHECKING:
    from engram.durable.commit_thread import CommitThread, WriteRequest
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

_ON_A_LOOP: Final = {
    "CommitThread": "commit_thread",
    "Readers": "readers",
    "WriteRequest": "commit_thread",
    "Writer": "writer",
}
"""By their modules, which import trio. A program that only reads a file, such as the index worker, does without."""


def __getattr__(name: str) -> object:
    if name not in _ON_A_LOOP:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ON_A_LOOP[name]}"), name)
