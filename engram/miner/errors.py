"""What keeps a node from starting or a caller from being served."""

from __future__ import annotations


class NodeError(Exception):
    """Base of what keeps a node from starting; never raised itself."""


class FolderInUse(NodeError):
    """Another process owns the data folder."""


class NoFolder(NodeError):
    """There is a file where the data folder should be."""


class RecordsMissing(NodeError):
    """The record database is gone while what goes with it is there."""


class Refused(Exception):
    """A request is refused: `status` is the HTTP status, `code` a stable word, the text tells what to do.

    `field` is the one that is at fault, where it is one.
    """

    def __init__(self, status: int, code: str, text: str, *, field: str | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.field = field
        self.names_private = False
        """Whether the request names a private namespace, where that is known."""
