"""What can be wrong with an archive, each with a reason that a person can act on."""


class ArchiveError(Exception):
    """Base of this area's exceptions; never raised itself."""


class MalformedItem(ArchiveError):
    """Bytes that are no ANS-104 data item or bundle; `reason` says in which respect."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a valid ANS-104 data item: {reason}")
        self.reason = reason
