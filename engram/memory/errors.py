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
    """The database could not do it (disk full, read-only, closed); nothing was changed."""


class RecordDamaged(TruthUnavailable):
    """A record is not what its CID says any more: it is neither served nor proved."""


class WriteUnknown(MemoryAreaError, OutcomeUnknown):
    """A commit failed in a way that leaves open whether it happened; reading will tell."""


class TruthUnreadable(MemoryAreaError, Unusable):
    """The database cannot be opened: damaged, or written by a newer program."""


class IndexUnavailable(MemoryAreaError):
    """The vector index did not answer in time (restarting or overloaded); what was committed stays."""


class IndexRestarting(IndexUnavailable):
    """The vector index is down and about to come back: what was asked can be asked again."""


class EmbedderUnavailable(MemoryAreaError):
    """Texts cannot be embedded now; vectors still can be stored and searched."""


class WeightsRefused(MemoryAreaError):
    """Model weights are missing or are not the published file."""
