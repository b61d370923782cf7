"""Collects the facts that a sale depends on and applies the rule of rules.py to them."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, final

import msgspec
import structlog
import trio

from actors import Context
from engram.clock import Clock
from engram.gateway.rules import CODES, Reason, SalesFacts, reasons
from engram.gateway.sales_switch import Selling
from engram.ledger import Ledger, LedgerError
from engram.payments import NoRoom
from engram.sessions import counts
from engram.telemetry.metrics import Metrics

DISK_KEPT_S: Final = 1.0
"""How long a reading of the free space is reused."""
LOOK_EVERY_S: Final = 5.0
FIRST_LOOK_S: Final = 2.0
"""By then the facilitator has been polled and the pool of keys counted."""

_log = structlog.get_logger("engram.gateway")


@final
class Disk:
    """The free space on the disk of the ledger and the nodes."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._read_at = -DISK_KEPT_S
        self._free_bytes: int | None = None

    async def free_bytes(self) -> int | None:
        """Return the free bytes, at most DISK_KEPT_S old; None when they cannot be read."""
        now = self._clock.monotonic()
        if now - self._read_at >= DISK_KEPT_S:
            self._read_at = now
            try:
                found = await trio.to_thread.run_sync(os.statvfs, self._folder)
            except OSError:
                self._free_bytes = None
            else:
                self._free_bytes = found.f_bavail * found.f_frsize
        return self._free_bytes


async def _unknown() -> int | None:
    return None


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a sale depends on besides the ledger; with the defaults nothing prevents a sale."""

    fixed: SalesFacts = SalesFacts()
    """The facts that do not change while the process runs: parts, prices, recipient."""
    usable_keys: Callable[[], int | None] = lambda: None
    places: Callable[[], int | None] = lambda: None
    silent_backends: Callable[[], tuple[str, ...]] = tuple
    """Returns the backends that nodes run on, where none of them answers."""
    free_bytes: Callable[[], Awaitable[int | None]] = _unknown
    chain_read: Callable[[], bool | None] = lambda: None
    facilitator: Callable[[int | None], NoRoom | None] = lambda amount: None
    """Returns why an amount (atomic units; None: any) would not be settled now."""


@final
class Sales:
    """Tells why nothing can be sold."""

    def __init__(self, ledger: Ledger, selling: Selling, conditions: Conditions) -> None:
        self._ledger = ledger
        self._selling = selling
        self._conditions = conditions

    async def reasons(self) -> tuple[Reason, ...]:
        """Return every reason that holds for all purchases. Raises LedgerError."""
        facts = await self._facts(None)
        held = await self._ledger.read(counts.held)
        return reasons(msgspec.structs.replace(facts, held=held))

    async def refusal(self, amount: int | None) -> NoRoom | None:
        """Return the refusal of a purchase for `amount`, None when it can be sold. Raises LedgerError.

        Does not check for a free place: the transaction that takes the place does.
        """
        found = reasons(await self._facts(amount))
        return found[0].answer if found else None

    async def _facts(self, amount: int | None) -> SalesFacts:
        conditions = self._conditions
        return msgspec.structs.replace(
            conditions.fixed,
            selling=await self._selling.is_on(),
            usable_keys=conditions.usable_keys(),
            places=conditions.places(),
            silent_backends=conditions.silent_backends(),
            free_bytes=await conditions.free_bytes(),
            chain_read=conditions.chain_read(),
            facilitator=conditions.facilitator(amount),
        )

    async def measure(self, metrics: Metrics) -> None:
        """Set the gauge of every code. Raises LedgerError."""
        found = {reason.code for reason in await self.reasons()}
        metrics.sales_blocked.show({code: code in found for code in CODES})

    async def watch(self, context: Context) -> None:
        """Log why nothing can be sold, at start and at each change; lasting reasons are logged as warnings."""
        context.ready()
        logged: tuple[str, ...] = ()
        await trio.sleep(FIRST_LOOK_S)
        while True:
            try:
                found = await self.reasons()
            except LedgerError as error:
                _log.warning("sales_unknown", reason=str(error))
            else:
                codes = tuple(reason.code for reason in found)
                if codes != logged:
                    _tell(found)
                logged = codes
            await trio.sleep(LOOK_EVERY_S)


def _tell(found: tuple[Reason, ...]) -> None:
    if not found:
        _log.info("sales_open")
    for reason in found:
        (_log.warning if reason.lasting else _log.info)("cannot_sell", code=reason.code, reason=reason.text)
