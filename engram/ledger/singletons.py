"""Work that only one process does at a time, of those that share a ledger.

A process that has the work keeps it until its lease ends (engram.ledger.postgres.lease); then the next that looks has
it. So two of them work at once only while one whose lease was ended has not noticed yet: what they do outside the
ledger begins with `Ledger.holds`, or carries a key that the other side keeps.

A process that has the ledger for itself has all the work from the start.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog
import trio
from sqlalchemy import Connection, select

from actors import Context, Job
from engram.ledger import owners
from engram.ledger.errors import LedgerError
from engram.ledger.port import Ledger
from engram.ledger.tables import singletons

LOOK_S: Final = 1.0

_CLAIM: Final = (
    "INSERT INTO singletons (role, owner_epoch) VALUES (%(role)s, %(me)s) ON CONFLICT (role) DO UPDATE "
    "SET owner_epoch = excluded.owner_epoch WHERE singletons.owner_epoch <> excluded.owner_epoch AND NOT EXISTS "
    "(SELECT FROM gateways WHERE gateways.epoch = singletons.owner_epoch AND gateways.ended_at IS NULL)"
)

_log = structlog.get_logger("engram.ledger")


def claim(connection: Connection, role: str) -> bool:
    """Take the role unless a process with a lease has it; return whether this one has it."""
    me = owners.me(connection)
    if me == owners.ALONE:
        return True
    connection.exec_driver_sql(_CLAIM, {"role": role, "me": me})
    return holder(connection, role) == me


def holder(connection: Connection, role: str) -> int | None:
    """Return the epoch of the process that has the role; None before the first, and where one has all roles."""
    query = select(singletons.c.owner_epoch).where(singletons.c.role == role)
    return connection.execute(query).scalar_one_or_none()


def one_at_a_time(ledger: Ledger, role: str, run: Callable[[Context], Awaitable[None]]) -> Job:
    """Return the job that runs `run` once this process has the role; it counts as started before."""

    async def waiting(context: Context) -> None:
        context.ready()
        await wait_for_turn(ledger, role)
        await run(context)

    return Job(waiting)


async def wait_for_turn(ledger: Ledger, role: str) -> None:
    """Return once this process has the role, which it then keeps until it ends."""
    while True:
        if await _claimed(ledger, role):
            return
        await trio.sleep(LOOK_S)


async def _claimed(ledger: Ledger, role: str) -> bool:
    try:
        # Reading first: where another has the role for days, nothing is written.
        return await ledger.read(partial(_is_free, role=role)) and await ledger.write(partial(claim, role=role))
    except LedgerError as error:
        _log.warning("turn_not_known", role=role, reason=str(error))
        return False


def _is_free(connection: Connection, role: str) -> bool:
    me = owners.me(connection)
    if me == owners.ALONE:
        return True
    query = (
        "SELECT NOT EXISTS (SELECT FROM singletons JOIN gateways ON gateways.epoch = singletons.owner_epoch "
        "WHERE role = %(role)s AND owner_epoch <> %(me)s AND gateways.ended_at IS NULL)"
    )
    return bool(connection.exec_driver_sql(query, {"role": role, "me": me}).scalar_one())
