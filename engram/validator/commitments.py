"""Where miners say by their commitments that they serve, beside the axons of the metagraph."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, final

import structlog

from engram.chain.errors import ChainError
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.view import open_view
from engram.chain.registry.registrations import Registration, read_entries
from engram.hotkeys import PublicKey

Committed = Callable[[], Awaitable[Mapping[PublicKey, Registration]]]
"""Returns the registrations of a subnet, by hotkey."""
NO_COMMITMENTS: Final[Mapping[PublicKey, Registration]] = {}

_log = structlog.get_logger("engram.validator")


async def no_commitments() -> Mapping[PublicKey, Registration]:
    """Return none: for subnets whose miners announce axons alone."""
    return NO_COMMITMENTS


@final
class Commitments:
    """Reads the registrations of a subnet; while the chain does not answer, those read last stand."""

    def __init__(self, nodes: Sequence[ChainEndpoint], netuid: int) -> None:
        self._nodes = nodes
        self._netuid = netuid
        self._last = NO_COMMITMENTS
        self._failure = ""

    async def __call__(self) -> Mapping[PublicKey, Registration]:
        """Return the valid registrations by hotkey; other commitments are none."""
        try:
            entries = await read_entries(await open_view(self._nodes), self._netuid)
        except ChainError as error:
            if str(error) != self._failure:
                _log.warning("commitments_not_read", reason=str(error))
            self._failure = str(error)
            return self._last
        self._failure = ""
        self._last = {each.hotkey: each.registration for each in entries if each.registration is not None}
        return self._last
