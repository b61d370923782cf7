"""What a client sends to a running application: a bounded queue that a vanished client can always end.

hypercorn uses a memory channel, on which the note that the client is gone waits behind a full queue: an application
that answers without reading a large body is then never told, and both sides wait for ever.
"""

from collections import deque
from typing import Any, Final, final

import trio

_BOUND: Final = 16
"""Messages (of up to 64 KiB) that wait; the connection stops reading beyond it."""


@final
class Inbox:
    """One writer (the connection's reader), one reader (the application)."""

    def __init__(self) -> None:
        self._messages: deque[dict[str, Any]] = deque()
        self._parked = trio.lowlevel.ParkingLot()
        self._gone = False

    async def put(self, message: dict[str, Any]) -> None:
        """Queue an ASGI message, waiting for room; `http.disconnect` never waits, and drops what comes after it."""
        if message["type"] == "http.disconnect":
            self._gone = True
        else:
            while len(self._messages) >= _BOUND and not self._gone:
                await self._parked.park()
            if self._gone:
                return
            if self._messages and message.get("body") == b"":  # the end of a body: the application need not ask for it
                self._messages[-1]["more_body"] = message.get("more_body", False)
                return
            self._messages.append(message)
        self._parked.unpark_all()

    async def receive(self) -> dict[str, Any]:
        """The next message: first what arrived, then for ever that the client is gone."""
        while not self._messages:
            if self._gone:
                return {"type": "http.disconnect"}
            await self._parked.park()
        message = self._messages.popleft()
        self._parked.unpark_all()
        return message
