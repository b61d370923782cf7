"""One log line for each request of a handler, with the proven caller and the time it took."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import structlog
import trio

from engram.kit.callers import Caller

P = ParamSpec("P")
R = TypeVar("R")

_log = structlog.get_logger("engram.kit")
_SHOWN = 8


Answering: TypeAlias = Callable[Concatenate[Caller, P], Coroutine[Any, Any, R]]


def log_request(handler: Answering[P, R]) -> Answering[P, R]:
    """Log the first characters of the caller's hotkey, the seconds, and the error where there is one."""

    @functools.wraps(handler)
    async def logged(caller: Caller, /, *args: P.args, **kwargs: P.kwargs) -> R:
        started = trio.current_time()
        fields = {"caller": caller.hotkey[:_SHOWN], "handler": handler.__name__}
        try:
            answer = await handler(caller, *args, **kwargs)
        except Exception as error:
            _log.error("request_failed", **fields, seconds=round(trio.current_time() - started, 3), error=repr(error))
            raise
        _log.info("request_completed", **fields, seconds=round(trio.current_time() - started, 3))
        return answer

    return logged
