"""A limit of requests per caller over a sliding window."""

import time
from collections import deque
from collections.abc import Callable
from typing import final


@final
class RateLimiter:
    """At most `max_requests` of one caller in any `window_seconds`; monotonic, and bounded in memory."""

    def __init__(
        self,
        max_requests: int,
        window_seconds: float,
        *,
        max_callers: int = 10_000,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take how many callers are remembered at once. Raises ValueError for what is not positive."""
        if min(max_requests, window_seconds, max_callers) <= 0:
            raise ValueError("max_requests, window_seconds and max_callers are more than 0")
        self.max_requests = max_requests
        self.window = window_seconds
        self._max_callers = max_callers
        self._now = now
        self._requests: dict[str, deque[float]] = {}

    def is_allowed(self, caller_id: str) -> bool:
        """Count a request and return whether it is within the limit.

        A refused request is not counted. A caller for whom there is no room is refused; none is forgotten early.
        """
        now = self._now()
        times = self._requests.get(caller_id)
        if times is None:
            if len(self._requests) >= self._max_callers:
                self._forget(now)
            if len(self._requests) >= self._max_callers:
                return False
            times = self._requests[caller_id] = deque()
        while times and now - times[0] >= self.window:
            times.popleft()
        if len(times) >= self.max_requests:
            return False
        times.append(now)
        return True

    def _forget(self, now: float) -> None:
        past = [caller for caller, times in self._requests.items() if not times or now - times[-1] >= self.window]
        for caller in past:
            del self._requests[caller]
