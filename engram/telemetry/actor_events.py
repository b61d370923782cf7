"""Turns the events of a supervision tree into log lines and metrics."""

import traceback
from collections.abc import Callable
from typing import Final

import structlog

from actors import (
    ActorEvent,
    Crashed,
    DeadLetter,
    GaveUp,
    HintLost,
    MailboxHighWater,
    Restarted,
    Started,
    StartSlow,
    Stopped,
)
from engram.telemetry.metrics import Metrics

TRACEBACK_LINES: Final = 40

_log = structlog.get_logger("engram.actors")


def observer(metrics: Metrics) -> Callable[[ActorEvent], None]:
    """Return a listener for `EventStream.listen`; it never logs the messages themselves, which may be private."""

    def observe(event: ActorEvent) -> None:
        match event:
            case Crashed(path=path, reason=reason, starting=starting):
                _log.error("actor_crashed", actor=path, starting=starting, **_cause(reason.error))
            case Restarted(path=path, restarts=restarts):
                metrics.actor_restarts.labels(_branch(path)).inc()
                _log.warning("actor_restarted", actor=path, restarts=restarts)
            case StartSlow(path=path, seconds=seconds):
                _log.warning("actor_start_slow", actor=path, seconds=seconds)
            case GaveUp(path=path, child=child, disabled=disabled):
                _log.error("supervisor_gave_up", supervisor=path, child=child, disabled=disabled)
            case DeadLetter(name=name, message=message, cause=cause):
                metrics.dead_letters.labels(cause).inc()
                if cause in ("dropped_newest", "dropped_oldest"):  # only mailboxes for hints drop messages
                    metrics.hints_lost.labels(name).inc()
                _log.warning("dead_letter", actor=name, kind=type(message).__name__, cause=cause)
            case HintLost(name=name, message=message, cause=cause):
                metrics.hints_lost.labels(name).inc()
                _log.info("hint_lost", to=name, kind=type(message).__name__, cause=cause)
            case MailboxHighWater(name=name, depth=depth, bound=bound):
                _log.warning("mailbox_filling", actor=name, depth=depth, bound=bound)
            case Started(path=path):
                metrics.actor_restarts.labels(_branch(path))
                _log.debug("actor_started", actor=path)
            case Stopped(path=path):
                _log.debug("actor_stopped", actor=path)

    return observe


def _cause(error: BaseException | None) -> dict[str, str]:
    if error is None:
        return {"error": "unknown"}
    lines = traceback.format_exception(error)
    return {"error": f"{type(error).__name__}: {error}", "trace": "".join(lines[-TRACEBACK_LINES:])}


def _branch(path: str) -> str:
    """Return the part of a path that does not name a single payment or session."""
    return "/".join(path.split("/")[:3])
