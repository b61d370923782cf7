"""What can go wrong with the memory of a node."""

from engram.durable.errors import NotDone, OutcomeUnknown, Unusable


class MemoryAreaError(Exception):
    """Base of this area's errors; never raised itself."""


class InvalidRequest(MemoryAreaError):
    """The request is malformed: a field has the wrong type or form. The text says which."""


class InvalidInput(MemoryAreaError):
    """The request is well formed, but what it asks to store or find breaks a rule. The text says which."""


class NotFound(MemoryAreaError):
    """Nothing is stored under that identifier in that namespace."""


class QuotaExceeded(MemoryAreaError):
    """The data folder has reached what the node may use; nothing was stored."""


class TruthUnavailable(MemoryAreaError, NotDone):
    """The database could not carry out a request (disk full, read-only, closed); nothing was changed."""


class RecordDamaged(TruthUnavailable):
    """A record no longer matches its CID: it is neither served nor proved."""


class WriteUnknown(MemoryAreaError, OutcomeUnknown):
    """A commit failed and it is unknown whether it took effect; read the data to find out."""


class TruthUnreadable(MemoryAreaError, Unusable):
    """The database cannot be opened: damaged, or written by a newer program."""


class IndexUnavailable(MemoryAreaError):
    """The vector index did not answer in time (restarting or overloaded); committed records stay."""


class IndexRestarting(IndexUnavailable):
    """The vector index is restarting: the request may be sent again."""


class EmbedderUnavailable(MemoryAreaError):
    """Texts cannot be embedded now; vectors can still be stored and searched."""


class WeightsRefused(MemoryAreaError):
    """Model weights are missing or are not the published file."""
