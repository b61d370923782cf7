"""What can be wrong on the way to Akash, before anything is sent."""

from typing import final

from engram.provisioning.errors import Unavailable


class AkashError(Exception):
    """Base of this room's errors; never raised itself."""


class MalformedMessage(AkashError, ValueError):
    """The bytes are not this message in its only canonical form."""


@final
class UnknownType(MalformedMessage):
    """The message is of a type that is not sent here."""


@final
class MalformedAddress(AkashError, ValueError):
    """The text is no address of this chain."""


@final
class UnusableKey(AkashError):
    """The account's key cannot be read or used. The message names the file, never the secret."""


@final
class InvalidSdl(AkashError):
    """The stack definition cannot be deployed. The message says which part, and what it may be."""


class UnknownVersion(Unavailable):
    """The chain speaks another version of a module than this program."""
