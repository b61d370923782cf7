"""Group commits on an open ledger."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

from engram.durable import Commits, Outcome
from engram.durable.group import run_group as run
from engram.ledger.connection import LEDGER
from engram.ledger.prepared import driver

__all__ = ["Commits", "Transaction", "run_group"]

Transaction = Callable[[Connection], Any]


def run_group(connection: Connection, transactions: Sequence[Transaction], commits: Commits) -> list[Outcome]:
    return run(LEDGER, driver(connection), connection, transactions, commits)
