"""Errors of HTTP: error answers of our surfaces, and failures of our own requests."""

from collections.abc import Iterable, Mapping
from typing import Final, final

CODES: Final = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
}
"""The codes of refusals before any handler."""
TEXTS: Final = {
    404: "there is nothing at this path",
    405: "this path does not take this method",
}


@final
class ApiError(Exception):
    """An error answer of a surface; the only exception that handlers raise toward HTTP.

    Rendered as `{"error": message, "code": code, "request_id": …, **extra}` with `status` and `headers`. `message`
    says what to do next and contains nothing secret; `code` is a stable word for programs.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: Iterable[tuple[str, str]] = (),
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = tuple(headers)
        self.extra: Mapping[str, object] = extra or {}


class HttpError(Exception):
    """Base of what the outbound client raises; never raised itself."""


@final
class NotSent(HttpError):
    """Nothing of the request left this machine (no route, no connection, no room in the pool): it did not happen."""


@final
class NoPlace(HttpError):
    """Every connection to the server that may be open at once is in use; nothing left this machine, and nothing is
    known against the server."""


@final
class Interrupted(HttpError):
    """The request left, or may have left, and no whole answer came back: its outcome is unknown."""


@final
class TooLarge(HttpError):
    """The answer is larger than the caller allows; the request was taken. `status` is the answer's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@final
class BadAnswer(HttpError):
    """A whole answer came back and is unusable (not JSON, an unknown encoding, compressed data that is cut)."""


def reason(error: BaseException) -> str:
    """Return an error's text without the errno that Python puts before the operating system's message."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
