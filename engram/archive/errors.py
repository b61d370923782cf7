"""What can be wrong with an archive, each with a reason that a person can act on."""


class ArchiveError(Exception):
    """Base of this area's exceptions; never raised itself."""


class MalformedItem(ArchiveError):
    """Bytes that are no ANS-104 data item or bundle; `reason` says in which respect."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a valid ANS-104 data item: {reason}")
        self.reason = reason


class Missing(ArchiveError):
    """The archive names a part that its place does not have."""


class NothingThere(ArchiveError):
    """What was asked for of the archive has no rows."""


class Damaged(ArchiveError):
    """A part is there and is not what was written."""


class Forged(ArchiveError):
    """A signature is missing, or not of a key that may write this archive."""


class Foreign(ArchiveError):
    """The part belongs to another archive or another owner."""


class Replayed(ArchiveError):
    """The newest manifest is older than one that was seen before."""


class Locked(ArchiveError):
    """The key given does not open the archive, or the epoch's key was destroyed."""


class AlreadyThere(ArchiveError):
    """A part of this name exists and has other bytes."""


class RowTooLarge(ArchiveError):
    """A row that no segment can hold."""


class InUse(ArchiveError):
    """Another process archives the same node to the same archive."""


class Shrunk(ArchiveError):
    """The node holds so much less than the archive that it may be the wrong node."""


class NotTakenUp(ArchiveError):
    """The archive has a history that this node's folder knows nothing of."""


class PlaceUnavailable(ArchiveError):
    """The place did not answer, or refused; nothing is known of what it holds."""


class PaymentWanted(ArchiveError):
    """The place takes the part only when it is paid for."""


class PaymentUnknown(PlaceUnavailable):
    """A payment was authorized and sent, and the part is not taken: nothing else is paid for it until that is clear."""


class NotAccepted(ArchiveError):
    """The place refused the part for good."""


class TooDear(ArchiveError):
    """What the place asks for is above the limit that was set."""


class CannotErase(ArchiveError):
    """The place keeps everything forever; what must be deletable cannot lie there."""
