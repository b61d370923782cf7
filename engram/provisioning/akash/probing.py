"""Whether the chain still speaks what this program does: looked at from the start, and again and again.

A chain that was upgraded takes a deployment's deposit, and its bids or leases can then not be read: nothing is sold on
it, nor begun.
"""

from typing import final

import structlog

from engram.provisioning.akash.errors import UnknownVersion
from engram.provisioning.akash.ports import AkashParts

_log = structlog.get_logger("engram.provisioning.akash")


@final
class Probing:
    """What is known of the versions of the chain's modules."""

    def __init__(self, parts: AkashParts) -> None:
        self._parts = parts
        self._is_spoken = False
        self._trouble = ""

    async def look(self) -> None:
        """Look at every module that is used. Raises Unavailable."""
        try:
            await self._parts.chain.probe()
        except UnknownVersion as error:
            if str(error) != self._trouble:
                _log.error("akash_unknown_version", reason=str(error))
            self._is_spoken, self._trouble = False, str(error)
            raise
        if self._trouble:
            _log.warning("akash_known_version", before=self._trouble)
        self._is_spoken, self._trouble = True, ""

    async def require(self) -> None:
        """Raise Unavailable naming the module and version that the chain does not speak."""
        if not self._is_spoken:
            await self.look()
