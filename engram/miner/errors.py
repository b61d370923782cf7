"""Errors that keep a node from starting, and refusals of requests."""

from __future__ import annotations


class NodeError(Exception):
    """Base of errors that keep a node from starting; never raised itself."""


class FolderInUse(NodeError):
    """Another process owns the data folder."""


class NoFolder(NodeError):
    """A file is in the place of the data folder."""


class RecordsMissing(NodeError):
    """The record database is missing while files that belong to it exist."""


class Refused(Exception):
    """A request is refused: `status` is the HTTP status, `code` a stable word; the text says what to do.

    `field` names the field that is wrong, when it is one.
    """

    def __init__(self, status: int, code: str, text: str, *, field: str | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.field = field
        self.names_private = False
        """Whether the request is known to name a private namespace."""
