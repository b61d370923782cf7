"""How many deployments are created in one block."""

from typing import final

import trio

from engram.provisioning.akash.ports import AkashParts


@final
class Pace:
    """At most so many creates in one block: an outage of one provider does not flood the others."""

    def __init__(self, parts: AkashParts) -> None:
        self._parts = parts
        self._height = 0
        self._made = 0

    async def wait(self) -> None:
        """Return when one more may be created. Raises Unavailable."""
        while True:
            head = await self._parts.chain.endpoints.head()
            if head.height > self._height:
                self._height, self._made = head.height, 0
            if self._made < self._parts.creates_per_block:
                self._made += 1
                return
            await trio.sleep(self._parts.poll_s / 4)
