"""What can go wrong with a database, in three answers. Each area derives its own exceptions from these."""


class DurableError(Exception):
    """Base of the errors of durable databases; never raised itself."""


class NotDone(DurableError):
    """Nothing was changed, or nothing could be read: disk full or read-only, too slow, closed. Trying again is safe."""


class OutcomeUnknown(DurableError):
    """COMMIT failed in a way that leaves open whether it took effect. The process ends; opening again finds out."""


class Unusable(DurableError):
    """The file cannot be opened: damaged, written by a newer program, or no such database at all."""
