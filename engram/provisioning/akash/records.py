"""Deployments and providers in the ledger. Functions are called inside `ledger.write` or `ledger.read`."""

from collections.abc import Iterable
from typing import Final

import msgspec
from sqlalchemy import Connection, RowMapping, delete, func, insert, literal_column, select, update

from engram import wire
from engram.ledger import facts
from engram.ledger.sql import upsert
from engram.provisioning.akash.bidding import Attempt
from engram.provisioning.akash.model import Deployment, DeploymentState, ProviderMemory
from engram.provisioning.akash.numbering import next_dseq
from engram.provisioning.akash.tables import deployments, providers, transactions
from engram.sessions import records as session_records

_DRAWN: Final = "akash_dseq"
_CLOSED = str(DeploymentState.CLOSED)
KEPT_S = 90 * 86_400.0
"""Closed deployments are kept this long, for `engram akash costs`."""


def insert_deployment(connection: Connection, row: Deployment) -> None:
    """Write down a deployment before it is created. Raises IntegrityError when its node has one that is not closed."""
    connection.execute(insert(deployments).values(_columns(row)))


def save(connection: Connection, before: Deployment, after: Deployment) -> bool:
    """Write what `after` changes if the row is still in the state of `before`; False when it is not.

    Only what differs is written: others move `ends_at` and the deposit meanwhile.
    """
    was, columns = _columns(before), _columns(after)
    values = {"state": columns["state"], **{name: value for name, value in columns.items() if value != was[name]}}
    changed = connection.execute(
        update(deployments)
        .where(deployments.c.dseq == before.dseq, deployments.c.state == str(before.state))
        .values(values)
    )
    return changed.rowcount == 1


def get(connection: Connection, dseq: int) -> Deployment | None:
    """Return the deployment of that number."""
    return _one(connection.execute(select(deployments).where(deployments.c.dseq == dseq)).mappings().first())


def live(connection: Connection, token: str) -> Deployment | None:
    """Return the deployment of the node that is not closed; there is at most one."""
    query = select(deployments).where(deployments.c.token == token, deployments.c.state != _CLOSED)
    return _one(connection.execute(query).mappings().first())


def all_live(connection: Connection) -> list[Deployment]:
    """Return every deployment that is not closed, oldest first."""
    query = select(deployments).where(deployments.c.state != _CLOSED).order_by(deployments.c.dseq)
    return [_deployment(row) for row in connection.execute(query).mappings()]


def live_here(connection: Connection) -> list[Deployment]:
    """Return those of them whose session no other gateway works, oldest first."""
    elsewhere = session_records.worked_elsewhere(connection)
    query = select(deployments).where(deployments.c.state != _CLOSED, deployments.c.session_id.not_in(elsewhere))
    return [_deployment(row) for row in connection.execute(query.order_by(deployments.c.dseq)).mappings()]


def live_numbers(connection: Connection) -> set[int]:
    """Return the numbers of the deployments that are not closed; their manifests are not read."""
    return set(connection.execute(select(deployments.c.dseq).where(deployments.c.state != _CLOSED)).scalars())


def all_of(connection: Connection) -> list[Deployment]:
    """Return every deployment, closed ones too, oldest first."""
    query = select(deployments).order_by(deployments.c.dseq)
    return [_deployment(row) for row in connection.execute(query).mappings()]


def of_token(connection: Connection, token: str) -> list[Deployment]:
    """Return all deployments of the node, oldest first."""
    query = select(deployments).where(deployments.c.token == token).order_by(deployments.c.dseq)
    return [_deployment(row) for row in connection.execute(query).mappings()]


def attempts(connection: Connection, token: str) -> list[Attempt]:
    """Return the node's deployments that came to nothing, oldest first."""
    return [
        Attempt(row.reason or "", row.wide, row.closed_at or row.state_since)
        for row in of_token(connection, token)
        if row.state is DeploymentState.CLOSED
    ]


def providers_left(connection: Connection, session_id: str, since: float) -> set[str]:
    """Return the providers of the session's deployments that were closed after `since` (unix seconds)."""
    query = select(deployments.c.provider).where(
        deployments.c.state == literal_column(f"'{_CLOSED}'"),  # written out, so that the partial index serves
        deployments.c.closed_at > since,
        deployments.c.session_id == session_id,
        deployments.c.provider.is_not(None),
    )
    return set(connection.execute(query).scalars())


def by_hash(connection: Connection, hashes: Iterable[bytes]) -> dict[bytes, Deployment]:
    """Return the deployments with those manifest hashes, closed ones too."""
    wanted, found = list(hashes), {}
    for first in range(0, len(wanted), 500):
        query = select(deployments).where(deployments.c.hash.in_(wanted[first : first + 500]))
        for row in connection.execute(query).mappings():
            found[row["hash"]] = _deployment(row)
    return found


def draw_dseq(connection: Connection, ledger_id: str, now: float) -> int:
    """Return the number of a deployment that is made at `now` (unix seconds), and give it to nobody else: gateways that
    share the ledger draw at the same time."""
    highest = connection.execute(select(func.max(deployments.c.dseq))).scalar_one_or_none() or 0
    drawn = next_dseq(ledger_id, now, max(highest, int(facts.get(connection, _DRAWN) or 0)))
    facts.put(connection, _DRAWN, str(drawn))
    return drawn


def set_values(connection: Connection, dseq: int, **values: float | str | None) -> None:
    """Set columns that belong to no state, such as `ends_at`, `stopped_at`, `restarts` and `cost_uact`."""
    connection.execute(update(deployments).where(deployments.c.dseq == dseq).values(values))


def add_deposit(connection: Connection, dseq: int, amount_uact: int) -> None:
    """Count a deposit that the chain took."""
    connection.execute(
        update(deployments)
        .where(deployments.c.dseq == dseq)
        .values(deposit_uact=deployments.c.deposit_uact + amount_uact)
    )


def list_closed(connection: Connection, since: float) -> list[Deployment]:
    """Return what was closed since then, latest first."""
    query = (
        select(deployments)
        .where(deployments.c.state == _CLOSED, deployments.c.closed_at >= since)
        .order_by(deployments.c.closed_at.desc())
    )
    return [_deployment(row) for row in connection.execute(query).mappings()]


def unpriced(connection: Connection, since: float, limit: int = 100) -> list[Deployment]:
    """Return closed deployments whose final cost is not known yet."""
    query = (
        select(deployments)
        .where(deployments.c.state == _CLOSED, deployments.c.closed_at >= since, deployments.c.cost_uact.is_(None))
        .limit(limit)
    )
    return [_deployment(row) for row in connection.execute(query).mappings()]


def forget_closed(connection: Connection, before: float, limit: int = 500) -> int:
    """Delete what was closed before then, and the transactions of then that belong to no deployment; return how many
    deployments that were."""
    old = (
        select(deployments.c.dseq).where(deployments.c.state == _CLOSED, deployments.c.closed_at < before).limit(limit)
    )
    numbers = list(connection.execute(old).scalars())
    connection.execute(delete(transactions).where(transactions.c.dseq.in_(numbers), transactions.c.state != "open"))
    forgotten = connection.execute(delete(deployments).where(deployments.c.dseq.in_(numbers))).rowcount
    # Mints, and closes of orphans: found by the index of numbers alone, the bytes are not read.
    is_nobodys = transactions.c.dseq.is_(None) | transactions.c.dseq.not_in(select(deployments.c.dseq))
    numbered = select(transactions.c.dseq).where(transactions.c.created_at < before, is_nobodys).distinct().limit(limit)
    of = list(connection.execute(numbered).scalars())
    is_close = transactions.c.subject == "close"  # of an orphan, which the next comparison closes by another one
    is_old = (transactions.c.created_at < before) & ((transactions.c.state != "open") | is_close)
    connection.execute(delete(transactions).where(is_old, transactions.c.dseq.in_([one for one in of if one])))
    if None in of:
        connection.execute(delete(transactions).where(is_old, transactions.c.dseq.is_(None)))
    return forgotten


def memories(connection: Connection) -> dict[str, ProviderMemory]:
    """Return how every known provider did."""
    rows = connection.execute(select(providers)).mappings()
    return {row["provider"]: ProviderMemory(**row) for row in rows}


def memory(connection: Connection, provider: str) -> ProviderMemory:
    """Return how the provider did; an empty memory for one never met."""
    row = connection.execute(select(providers).where(providers.c.provider == provider)).mappings().first()
    return ProviderMemory(provider=provider) if row is None else ProviderMemory(**row)


def remember(connection: Connection, after: ProviderMemory) -> None:
    """Write down how the provider did."""
    columns = msgspec.structs.asdict(after)
    statement = upsert(providers).values(columns)
    connection.execute(statement.on_conflict_do_update(index_elements=["provider"], set_=columns))


def _columns(row: Deployment) -> dict[str, object]:
    columns = msgspec.structs.asdict(row)
    columns["state"] = str(row.state)
    columns["excluded"] = msgspec.json.encode(row.excluded).decode()
    columns["wide"] = int(row.wide)
    return columns


def _one(row: RowMapping | None) -> Deployment | None:
    return None if row is None else _deployment(row)


def _deployment(row: RowMapping) -> Deployment:
    fields = {
        **row,
        "state": DeploymentState(row["state"]),
        "wide": bool(row["wide"]),
        "excluded": wire.decode(row["excluded"], tuple[str, ...]),
    }
    return Deployment(**fields)
