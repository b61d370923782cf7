"""The operator's switch to stop selling and keep serving. It is stored in the ledger and survives a restart."""

from typing import Final, final

from engram.ledger import Ledger, facts

KEY: Final = "selling"


@final
class Selling:
    """Whether new sessions and extensions are sold; `default` until the switch is first used."""

    def __init__(self, ledger: Ledger, *, default: bool) -> None:
        self._ledger = ledger
        self._default = default
        self._known: bool | None = None

    async def is_on(self) -> bool:
        """Return whether to sell now. Reads the ledger once, then remembers the switch. Raises LedgerError."""
        if self._known is None:
            stored = await self._ledger.read(lambda connection: facts.get(connection, KEY))
            if self._known is None:
                self._known = self._default if stored is None else stored == "on"
        return self._known

    async def switch(self, *, on: bool) -> None:
        """Set the switch durably. Raises LedgerError; after an unknown commit, a restart shows which state holds."""
        await self._ledger.write(lambda connection: facts.put(connection, KEY, "on" if on else "off"))
        self._known = on
