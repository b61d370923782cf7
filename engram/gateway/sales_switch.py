"""The operator's switch: stop selling, keep serving. Durable in the ledger, so that it outlives a restart."""

from typing import Final, final

from engram.ledger import Ledger, facts

KEY: Final = "selling"


@final
class Selling:
    """Whether new sessions and extensions are sold. `default` holds until the switch is used for the first time."""

    def __init__(self, ledger: Ledger, *, default: bool) -> None:
        self._ledger = ledger
        self._default = default
        self._known: bool | None = None

    async def is_on(self) -> bool:
        """Whether to sell now. The ledger is read once; after that the switch is known. Raises LedgerError."""
        if self._known is None:
            stored = await self._ledger.read(lambda connection: facts.get(connection, KEY))
            if self._known is None:
                self._known = self._default if stored is None else stored == "on"
        return self._known

    async def switch(self, *, on: bool) -> None:
        """Set it, durably. Raises LedgerError; an unknown commit shows after a restart."""
        await self._ledger.write(lambda connection: facts.put(connection, KEY, "on" if on else "off"))
        self._known = on
