"""What /ready asks: each probe says in a few words what is wrong with one part, or nothing."""

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
    """Whether the ledger can be read."""

    async def probe() -> str:
        try:
            await ledger.read(facts.ledger_id)
        except LedgerError as error:
            return str(error)
        return ""

    return probe


def disk_probe(folder: Path) -> Probe:
    """Whether the ledger and new nodes find room on the disk of the data folder."""

    async def probe() -> str:
        told = await trio.to_thread.run_sync(os.statvfs, folder)
        left = told.f_bavail * told.f_frsize
        return "" if left >= LEAST_FREE_BYTES else f"the disk has {left // 1024**2} MB left: free some space"

    return probe


def sales_probe(sales: Sales) -> Probe:
    """Whether something could be sold as things are configured; being full, or switched off, is well."""

    async def probe() -> str:
        try:
            return not_ready(await sales.reasons())
        except LedgerError:
            return ""  # the ledger's own probe says so

    return probe


def chain_probe(subnets: Subnets) -> Probe:
    """Whether a subnet has been read and the finalized head goes on; a chain that stands still is told, not refused."""

    async def probe() -> str:
        return "" if subnets.synced else "no subnet has been read yet"

    return probe


def parts_probe(missing: Callable[[], Sequence[str]]) -> Probe:
    """Whether the actors that sales depend on run; `missing` names those that do not."""

    async def probe() -> str:
        return ", ".join(missing())

    return probe
