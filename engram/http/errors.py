"""What goes wrong on the wire: answers that surfaces give, and requests of ours that fail."""

from collections.abc import Iterable, Mapping
from typing import final


@final
class ApiError(Exception):
    """An answer of a surface that is no success; the only exception that handlers raise towards HTTP.

    Rendered as `{"error": message, "code": code, "request_id": …, **extra}` with `status` and `headers`. `message`
    tells a person what to do next and holds nothing secret; `code` is a stable word for programs.
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
    """A whole answer came back, and it is not what it should be (no JSON, an unknown encoding)."""


def reason(error: BaseException) -> str:
    """Return what an error says, without the number that Python puts before the words of the operating system."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
