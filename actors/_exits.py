"""Why an actor ended: the vocabulary of supervision decisions."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

_TOLD_AT_MOST = 200

ExitKind = Literal["normal", "shutdown", "killed", "crashed"]


class ExitReason(msgspec.Struct, frozen=True):
    """Why an actor, a job or a supervisor ended.

    `normal`: it had nothing left to do. `shutdown`: it was asked to end (`detail` says why).
    `killed`: it was cancelled without being asked, or did not end within its shutdown time.
    `crashed`: `error` escaped from it. Only `killed` and `crashed` are abnormal.
    """

    kind: ExitKind
    detail: str = ""
    error: BaseException | None = None

    @property
    def abnormal(self) -> bool:
        """True when a transient child with this reason is restarted."""
        return self.kind == "killed" or self.kind == "crashed"

    def __str__(self) -> str:
        """One line of at most 200 characters and the kind."""
        told = self.detail or ("" if self.error is None else f"{type(self.error).__name__}: {self.error}")
        told = " ".join(told.split())
        if len(told) > _TOLD_AT_MOST:
            told = told[: _TOLD_AT_MOST - 1] + "\N{HORIZONTAL ELLIPSIS}"
        return f"{self.kind} ({told})" if told else self.kind


NORMAL: Final = ExitReason("normal")
SHUTDOWN: Final = ExitReason("shutdown")
KILLED: Final = ExitReason("killed")


def crashed(error: BaseException) -> ExitReason:
    """The reason of an actor from which `error` escaped."""
    return ExitReason("crashed", error=error)
