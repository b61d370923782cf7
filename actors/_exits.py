"""Why an actor ended: the vocabulary of supervision decisions."""

from __future__ import annotations

import types
from typing import Any, Final, Literal

import msgspec

_DETAIL_AT_MOST = 200

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
        """Return one line of at most 200 characters and the kind."""
        detail = self.detail or ("" if self.error is None else f"{type(self.error).__name__}: {self.error}")
        detail = " ".join(detail.split())
        if len(detail) > _DETAIL_AT_MOST:
            detail = detail[: _DETAIL_AT_MOST - 1] + "\N{HORIZONTAL ELLIPSIS}"
        return f"{self.kind} ({detail})" if detail else self.kind


NORMAL: Final = ExitReason("normal")
SHUTDOWN: Final = ExitReason("shutdown")
KILLED: Final = ExitReason("killed")


def without_frames(reason: ExitReason) -> ExitReason:
    """`reason` with its error's class, arguments and attributes but no traceback, whose frames hold what the dead life
    held. The error itself stays as it is for everybody who has it."""
    error = reason.error
    if error is None or error.__traceback__ is None:
        return reason
    return ExitReason(reason.kind, reason.detail, _twin(error))


_REDUCES: Final = (BaseException.__reduce__, OSError.__reduce__)


def _twin(error: BaseException) -> BaseException:
    kind = type(error)
    try:
        if isinstance(error, BaseExceptionGroup):
            return error.derive([_twin(one) for one in error.exceptions])
        if isinstance(kind.__init__, types.FunctionType):  # which may want other arguments than it keeps
            twin: BaseException = kind.__new__(kind, *error.args)
            twin.args = error.args
        else:
            made: Any = error.__reduce__()
            twin = made[0](*made[1])
            if len(made) == 2 and kind.__reduce__ in _REDUCES:  # it has no attributes; to look would give it a dict
                return twin
        for name, held in vars(error).items():
            twin.__dict__[name] = without_frames(held) if isinstance(held, ExitReason) else held
    except Exception:  # noqa: BLE001  # a class whose making takes more than its arguments
        return Exception(f"{kind.__name__}: {error}")
    return twin


def crashed(error: BaseException) -> ExitReason:
    """Return the reason of an actor from which `error` escaped."""
    return ExitReason("crashed", error=error)
