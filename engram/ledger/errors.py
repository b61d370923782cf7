"""The ledger's errors, in three kinds: not done, outcome unknown, unusable file."""

from engram.durable import NotDone, OutcomeUnknown, Unusable


class LedgerError(Exception):
    """Base of the ledger's errors; never raised itself."""


class LedgerUnavailable(LedgerError, NotDone):
    """The transaction was not committed: the disk is full or read-only, or the ledger is closed. Nothing was lost."""


class ServerAway(LedgerUnavailable):
    """The server of the ledger does not answer; a start that meets this is worth trying again."""

    may_pass = True


class CommitUnknown(LedgerError, OutcomeUnknown):
    """COMMIT failed in a way that leaves open whether it took effect. The process ends; the next start finds out."""


class CommitPending(CommitUnknown):
    """The writer has not answered in time: the transaction may still be committed, or not. The process goes on, and
    reading the ledger later finds out."""


class LedgerUnusable(LedgerError, Unusable):
    """The file cannot be opened as a ledger: damaged, newer than this program, or not a ledger at all."""


class FolderInUse(LedgerError):
    """Another process holds the data folder."""
