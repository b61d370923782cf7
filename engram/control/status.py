"""How the running process is, put together for /status and `engram status`."""

import platform
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import msgspec
from sqlalchemy import Connection

from actors import NodeInfo
from engram import __version__
from engram.chain.sync.subnets import Subnets
from engram.clock import Clock
from engram.control.model import MoneyToday, SystemStatus, TreeNode
from engram.durable import driver
from engram.ledger import Ledger, facts
from engram.payments import records as payment_records
from engram.payments.model import RefundState
from engram.sessions import counts
from engram.sessions import records as session_records

LIBRARIES: Final = ("trio", "quart", "quart-trio", "wsproto", "httpx2", "msgspec", "SQLAlchemy")
MOST_QUARANTINED: Final = 100
_DAY_S: Final = 86_400


class _Counts(msgspec.Struct, frozen=True):
    ledger_id: str
    sqlite: str
    sessions: dict[str, int]
    payments: dict[str, int]
    quarantined: list[str]
    money: MoneyToday


def status_of(
    environment: str,
    ledger: Ledger,
    clock: Clock,
    subnets: Subnets,
    tree: Callable[[], Iterable[NodeInfo]],
    selling: Callable[[], Awaitable[bool]],
    event_streams: Callable[[], int],
    extra: Callable[[], Awaitable[dict[str, dict[str, object]]]],
) -> Callable[[], Awaitable[SystemStatus]]:
    """Return what to await for the status; uptime counts from this call."""
    started_at, started = clock.now(), clock.monotonic()
    libraries = {name: _version(name) for name in LIBRARIES}

    async def status() -> SystemStatus:
        found = await ledger.read(partial(_counts, now=clock.now()))
        chain = subnets.status()
        ages = {f"subnet {subnet.netuid}": subnet.age_s for subnet in chain.subnets if subnet.age_s is not None}
        return SystemStatus(
            version=__version__,
            environment=environment,
            python=platform.python_version(),
            libraries=libraries,
            sqlite=found.sqlite,
            ledger_id=found.ledger_id,
            started_at=started_at,
            uptime_s=clock.monotonic() - started,
            selling=await selling(),
            sessions=found.sessions,
            payments=found.payments,
            quarantined=found.quarantined,
            event_streams=event_streams(),
            ages_s=ages | ({} if chain.head_age_s is None else {"chain head": chain.head_age_s}),
            chain=chain,
            tree=[tree_node(node) for node in tree()],
            money=found.money,
            extra=await extra(),
        )

    return status


def tree_node(node: NodeInfo) -> TreeNode:
    """Return a node of the live tree, its last error as text."""
    return TreeNode(
        path=node.path,
        kind=str(node.kind),
        state=node.state,
        restarts=node.restarts,
        last_error=None if node.last_error is None else f"{type(node.last_error).__name__}: {node.last_error}",
        mailbox_depth=node.mailbox_depth,
        mailbox_bound=node.mailbox_bound,
        oldest_age_s=node.oldest_age_s,
    )


def _counts(connection: Connection, now: float) -> _Counts:
    quarantined = [
        *session_records.list_quarantined(connection, MOST_QUARANTINED),
        *payment_records.list_quarantined(connection, MOST_QUARANTINED),
    ]
    return _Counts(
        ledger_id=facts.ledger_id(connection),
        sqlite="" if connection.dialect.name == "postgresql" else driver.VERSION,
        sessions={str(state): count for state, count in counts.by_state(connection).items()},
        payments={str(state): count for state, count in payment_records.count_by_state(connection).items()},
        quarantined=quarantined,
        money=_money(connection, now),
    )


def _money(connection: Connection, now: float) -> MoneyToday:
    since = now - now % _DAY_S
    taken, returned = payment_records.moved_since(connection, since)
    open_refunds = [
        amounts
        for state, amounts in payment_records.refunds_by_state(connection).items()
        if state is not RefundState.REFUNDED
    ]
    return MoneyToday(
        since=since,
        in_usd=taken / 1_000_000,
        out_usd=returned / 1_000_000,
        refunds_due=sum(count for count, _ in open_refunds),
        refunds_due_usd=sum(units for _, units in open_refunds) / 1_000_000,
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
