"""The probes behind /ready: each returns in a few words what is wrong with one part, or an empty text."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from engram.chain.sync.subnets import Subnets
from engram.gateway.rules import LEAST_FREE_BYTES, not_ready
from engram.gateway.sales_check import Sales
from engram.gateway.services import Probe
from engram.ledger import Ledger, LedgerError, facts


def ledger_probe(ledger: Ledger) -> Probe:
    """Return a probe that fails when the ledger cannot be read."""

    async def probe() -> str:
        try:
            await ledger.read(facts.ledger_id)
        except LedgerError as error:
            return str(error)
        return ""

    return probe


def disk_probe(folder: Path) -> Probe:
    """Return a probe that fails when the data folder's disk has no room for the ledger and new nodes."""

    async def probe() -> str:
        disk = await trio.to_thread.run_sync(os.statvfs, folder)
        left = disk.f_bavail * disk.f_frsize
        return "" if left >= LEAST_FREE_BYTES else f"the disk has {left // 1024**2} MB left: free some space"

    return probe


def sales_probe(sales: Sales) -> Probe:
    """Return a probe that fails for lasting reasons not to sell; being full or switched off is not a failure."""

    async def probe() -> str:
        try:
            return not_ready(await sales.reasons())
        except LedgerError:
            return ""  # the ledger's own probe says so

    return probe


def chain_probe(subnets: Subnets) -> Probe:
    """Return a probe that fails until a subnet has been read; a chain that stalls later does not fail it."""

    async def probe() -> str:
        return "" if subnets.synced else "no subnet has been read yet"

    return probe


def parts_probe(missing: Callable[[], Sequence[str]]) -> Probe:
    """Return a probe that fails while an actor that sales depend on does not run; `missing` names those."""

    async def probe() -> str:
        return ", ".join(missing())

    return probe
