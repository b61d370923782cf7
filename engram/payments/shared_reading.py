"""Readings of a chain that many looks of the same moment share."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, final

import trio

from engram.payments.errors import RpcFailed

T = TypeVar("T")


@final
class SharedReading(Generic[T]):
    """A value that is read once for all callers that wait; a failed reading fails for all of them."""

    def __init__(self, kept_s: float) -> None:
        """Keep a value for `kept_s` seconds."""
        self._kept_s = kept_s
        self._reading = trio.Lock()
        self._read: tuple[T, object, float] | None = None
        self._failed: tuple[str, float] | None = None

    async def get(self, read: Callable[[], Awaitable[T]], of: object = None) -> T:
        """Return the value `of` this, from `read` if it is not known. Raises RpcFailed."""
        began = trio.current_time()
        async with self._reading:
            now = trio.current_time()
            if self._failed is not None and self._failed[1] > began:
                raise RpcFailed(self._failed[0])
            if self._read is not None and self._read[1] == of and now < self._read[2] + self._kept_s:
                return self._read[0]
            try:
                value = await read()
            except RpcFailed as failed:
                self._failed = str(failed), trio.current_time()
                raise
            self._read, self._failed = (value, of, now), None
            return value
