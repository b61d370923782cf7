"""What a buyer can ask of a session that cannot be had."""


class SessionError(Exception):
    """Base of this area's errors; never raised itself."""


class UnknownTier(SessionError):
    """No such size is on sale."""


class InvalidDuration(SessionError):
    """Not a number of hours within the limits."""
