"""The three kinds of database errors. Each area derives its own exceptions from them."""


class DurableError(Exception):
    """Base of the errors of durable databases; never raised itself."""


class NotDone(DurableError):
    """Nothing was changed, or nothing could be read: disk full or read-only, too slow, closed. Trying again is safe."""


class OutcomeUnknown(DurableError):
    """COMMIT failed in a way that leaves open whether it took effect. The process ends; the next opening finds out."""


class Unusable(DurableError):
    """The file cannot be opened: damaged, written by a newer program, or no such database at all."""
