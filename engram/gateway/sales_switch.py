"""The operator's switch to stop selling and keep serving. It is stored in the ledger and survives a restart."""

from typing import Final, final

import trio

from engram.ledger import Ledger, facts

KEY: Final = "selling"
KEPT_S: Final = 1.0
"""So long a reading holds: another gateway of the same ledger may use the switch."""


@final
class Selling:
    """Whether new sessions and extensions are sold; `default` until the switch is first used."""

    def __init__(self, ledger: Ledger, *, default: bool) -> None:
        self._ledger = ledger
        self._default = default
        self._known: bool | None = None
        self._until = 0.0
        """On the loop's clock; the ledger is read again then."""

    async def is_on(self) -> bool:
        """Return whether to sell now, as it was at most KEPT_S ago. Raises LedgerError."""
        began = trio.current_time()
        if self._known is None or began >= self._until:
            stored = await self._ledger.read(lambda connection: facts.get(connection, KEY))
            if began >= self._until:  # else it was used or read meanwhile
                self._note(self._default if stored is None else stored == "on")
        assert self._known is not None
        return self._known

    async def switch(self, *, on: bool) -> None:
        """Set the switch durably. Raises LedgerError; after an unknown commit, the next reading shows what holds."""
        await self._ledger.write(lambda connection: facts.put(connection, KEY, "on" if on else "off"))
        self._note(on)

    def _note(self, known: bool) -> None:
        self._known, self._until = known, trio.current_time() + KEPT_S
