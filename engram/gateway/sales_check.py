"""Looks at what a sale depends on, and says why nothing can be sold; the rule itself is rules.py."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, final

import msgspec
import structlog
import trio

from actors import Context
from engram.clock import Clock
from engram.gateway.rules import CODES, Facts, Reason, reasons
from engram.gateway.sales_switch import Selling
from engram.ledger import Ledger, LedgerError
from engram.payments import NoRoom
from engram.sessions import records as session_records
from engram.telemetry.metrics import Metrics

DISK_KEPT_S: Final = 1.0
"""The free space is looked at again after this."""
LOOK_EVERY_S: Final = 5.0
FIRST_LOOK_S: Final = 2.0
"""Until then the facilitator and the pool of keys have been asked."""

_log = structlog.get_logger("engram.gateway")


@final
class Disk:
    """The free space where the ledger and the nodes are."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._read_at = -DISK_KEPT_S
        self._free_bytes: int | None = None

    async def free_bytes(self) -> int | None:
        """Bytes that are left, at most DISK_KEPT_S old; None when it cannot be told."""
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
    """What a sale depends on beside the ledger; as defaults, nothing stands in the way."""

    fixed: Facts = Facts()
    """What does not change while the process runs: parts, prices, recipient."""
    usable_keys: Callable[[], int | None] = lambda: None
    places: Callable[[], int | None] = lambda: None
    free_bytes: Callable[[], Awaitable[int | None]] = _unknown
    chain_read: Callable[[], bool | None] = lambda: None
    facilitator: Callable[[int | None], NoRoom | None] = lambda amount: None
    """Why an amount (atomic units; None: any) would not be settled now."""


@final
class Sales:
    """Says why nothing can be sold."""

    def __init__(self, ledger: Ledger, selling: Selling, conditions: Conditions) -> None:
        self._ledger = ledger
        self._selling = selling
        self._conditions = conditions

    async def reasons(self) -> tuple[Reason, ...]:
        """Every reason, whoever buys whatever. Raises LedgerError."""
        facts = await self._facts(None)
        held = await self._ledger.read(session_records.count_held)
        return reasons(msgspec.structs.replace(facts, held=held))

    async def refusal(self, amount: int | None) -> NoRoom | None:
        """What a buyer of something for `amount` is answered, None when it can be sold. Raises LedgerError.

        Whether a place is free is left to the transaction that takes it.
        """
        found = reasons(await self._facts(amount))
        return found[0].answer if found else None

    async def _facts(self, amount: int | None) -> Facts:
        conditions = self._conditions
        return msgspec.structs.replace(
            conditions.fixed,
            selling=await self._selling.is_on(),
            usable_keys=conditions.usable_keys(),
            places=conditions.places(),
            free_bytes=await conditions.free_bytes(),
            chain_read=conditions.chain_read(),
            facilitator=conditions.facilitator(amount),
        )

    async def measure(self, metrics: Metrics) -> None:
        """Set the gauge of every code. Raises LedgerError."""
        found = {reason.code for reason in await self.reasons()}
        for code in CODES:
            metrics.sales_blocked.labels(code).set(code in found)

    async def watch(self, context: Context) -> None:
        """Tell the log, at start and whenever it changes, why nothing can be sold; lasting reasons as warnings."""
        context.ready()
        told: tuple[str, ...] = ()
        await trio.sleep(FIRST_LOOK_S)
        while True:
            try:
                found = await self.reasons()
            except LedgerError as error:
                _log.warning("sales_unknown", reason=str(error))
            else:
                codes = tuple(reason.code for reason in found)
                if codes != told:
                    _tell(found)
                told = codes
            await trio.sleep(LOOK_EVERY_S)


def _tell(found: tuple[Reason, ...]) -> None:
    if not found:
        _log.info("sales_open")
    for reason in found:
        (_log.warning if reason.lasting else _log.info)("cannot_sell", code=reason.code, reason=reason.text)
