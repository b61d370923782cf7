"""A gateway's lease: the epoch by which it owns rows, renewed by every group it commits.

Each start of a process is a new epoch; epochs are never used again, and their rows in `gateways` are never deleted.

```
registered --(every group, and each quarter of the ttl)--> renewed …
     |                                                        |
     | SIGTERM                                                | silent for the ttl
     v                                                        v
   ended by itself                              ended by another gateway --> its rows are taken over
                                                                |
                                                                v
                                                   the next group of its own is fenced: the process ends
```

The renewal names the epoch, not the gateway, and holds as long as nobody has set `ended_at`: a gateway that was cut off
for longer than its ttl goes on if no other has taken its rows. Who takes over has been in touch with the server for a
ttl itself, without a gap of half of one up to the renewal of the same group, so that after an outage all of them come
back before any is judged. Time is the server's, no gateway's.

No lease stops a call that is on its way. So an effect outside the ledger begins only while the lease `holds`: until 0.7
of the ttl after the last renewal was sent, by the local monotonic clock. And it carries a key that the other side keeps
(the nonce of an authorization, the token of a node, the hash of a signed transaction).
"""

import time
from collections.abc import Mapping
from typing import Final, final

import msgspec
import psycopg
from sqlalchemy import Connection

from engram.ledger.errors import LedgerUnavailable
from engram.ledger.postgres.faults import text_of
from engram.ledger.postgres.link import Link
from engram.ledger.sql import OWNER, metadata

TTL_S: Final = 10.0
SAFE: Final = 0.7
PAGE: Final = 200
"""Rows of one table that one group takes over."""


@final
class Lease:
    """The lease of this process. All methods are called in the writer's thread, `holds` in any."""

    def __init__(self, epoch: int, ttl_s: float, sent_at: float) -> None:
        self.epoch = epoch
        self.ttl_s = ttl_s
        self._safe_until = sent_at + SAFE * ttl_s
        self._gap_s = ttl_s / 2
        """A longer one between two renewals ends being in touch."""
        self._in_touch_since = sent_at
        self._renewed_at = sent_at - ttl_s / 4  # what is there to be taken over is looked for at once

    @classmethod
    def register(cls, link: Link, name: str, host: str, address: str, ttl_s: float, folder: str = "") -> "Lease":
        """Begin a new epoch, and end the one that this data folder had before. Raises LedgerUnavailable.

        Who starts holds the folder's lock, so the process of before is gone: its work is taken over at once, by this
        one first, which finds its nodes.
        """
        sent_at = time.monotonic()
        query = (
            "WITH before AS (UPDATE gateways SET ended_at = clock_timestamp() "
            "WHERE folder = %s AND folder <> '' AND ended_at IS NULL) "
            "INSERT INTO gateways (name, host, address, folder, expires_at) "
            "VALUES (%s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s)) RETURNING epoch"
        )
        try:
            (epoch,) = link.row(query, (folder, name, host, address, folder, ttl_s))
        except psycopg.Error as error:
            raise LedgerUnavailable(f"this gateway has no lease: {text_of(error)}") from None
        return cls(int(epoch), ttl_s, sent_at)

    @property
    def renewal(self) -> str:
        """The statement that every group begins with; it changes no row when the lease is another's."""
        return (
            f"UPDATE gateways SET expires_at = clock_timestamp() + make_interval(secs => {self.ttl_s!r}), "
            f"groups = groups + 1 WHERE epoch = {self.epoch} AND ended_at IS NULL RETURNING groups"
        )

    def renewed(self, sent_at: float) -> None:
        """Note that a group was committed whose renewal was sent at `sent_at` (monotonic seconds)."""
        if sent_at - self._renewed_at > self._gap_s:
            self._in_touch_since = sent_at
        self._renewed_at = sent_at
        self._safe_until = sent_at + SAFE * self.ttl_s

    @property
    def holds(self) -> bool:
        """Whether an effect outside the ledger may begin."""
        return time.monotonic() < self._safe_until

    @property
    def due_in_s(self) -> float:
        """Seconds until the next renewal without a group."""
        return max(0.0, self._renewed_at + self.ttl_s / 4 - time.monotonic())

    @property
    def may_judge(self) -> bool:
        """Whether this process has been in touch with the server for long enough to say that another is gone.

        To be asked inside a group, once its renewal was answered: the one before says nothing of an outage since then.
        """
        now = time.monotonic()
        return now - self._in_touch_since > self.ttl_s and now - self._renewed_at <= self._gap_s

    def took_effect(self, link: Link, groups: int) -> bool:
        """Return whether the group that made the lease's count `groups` was committed.

        Waits for the transaction that was cut off to end: it holds the row's lock. Raises psycopg.Error.
        """
        (found,) = link.row("SELECT groups FROM gateways WHERE epoch = %s FOR UPDATE", (self.epoch,))
        return int(found) >= groups


def end(connection: Connection, epoch: int) -> bool:
    """End a lease, outside of any group; its rows are taken over by the others. False when it has ended already.

    Groups lock their lease's row before the turn. Who had the turn first and then asked for that row would wait in a
    circle with them, so this locks nothing else.
    """
    query = "UPDATE gateways SET ended_at = clock_timestamp() WHERE epoch = %s AND ended_at IS NULL"
    return connection.exec_driver_sql(query, (epoch,)).rowcount == 1


def drain(connection: Connection, epoch: int) -> bool:
    """Want a gateway to end: it takes over nothing more, and leaves its rows to the others. Outside of any group, as
    `end`. False when it has ended."""
    query = "UPDATE gateways SET draining_at = clock_timestamp() WHERE epoch = %s AND ended_at IS NULL"
    return connection.exec_driver_sql(query, (epoch,)).rowcount == 1


def is_draining(connection: Connection, epoch: int) -> bool:
    """Return whether the operator wants this gateway to end."""
    query = "SELECT draining_at IS NOT NULL FROM gateways WHERE epoch = %s"
    return bool(connection.exec_driver_sql(query, (epoch,)).scalar_one())


def end_expired(connection: Connection, me: int) -> list[int]:
    """End the leases of gateways that were silent for longer than their ttl; return their epochs."""
    query = (
        "UPDATE gateways SET ended_at = clock_timestamp() WHERE epoch IN (SELECT epoch FROM gateways "
        "WHERE ended_at IS NULL AND expires_at < clock_timestamp() AND epoch <> %s FOR UPDATE SKIP LOCKED) "
        "RETURNING epoch"
    )
    return [epoch for (epoch,) in connection.exec_driver_sql(query, (me,))]


def end_stopped(connection: Connection, ttl_s: float) -> int:
    """End the server's sessions for gateways that have stopped within a group; return how many. Outside of any group.

    A session that has not got all of what its client sends ahead is not idle to the server, which bounds only idle
    ones: it would keep the turn for as long as its client is stopped.
    """
    query = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() "
        "AND usename = current_user AND application_name = current_setting('application_name') "
        "AND pid <> pg_backend_pid() AND backend_xid IS NOT NULL AND state = 'active' AND wait_event = 'ClientRead' "
        "AND xact_start < clock_timestamp() - make_interval(secs => %s)"
    )
    return int(connection.exec_driver_sql(query, (ttl_s,)).scalar_one())


_GAPS: Final = (
    "SELECT epoch AS after, lead(epoch, 1, 9223372036854775807) OVER (ORDER BY epoch) AS before "
    "FROM (SELECT epoch FROM gateways WHERE ended_at IS NULL UNION ALL SELECT -1) AS live"
)
"""The epochs between those of live leases: a row of an owner there is left. Each is one look into an index of open rows
by owner, however many rows the live ones have."""


def take_over(connection: Connection, me: int, now: float, page: int = PAGE) -> dict[str, int]:
    """Take the open rows of ended leases, at most `page` of each table; return how many of each.

    Which rows are open is said with the table: `Table.info["open"]`, and the column that says when they are due next,
    by their owner's clock: `Table.info["due"]`. They are due at `now` (unix seconds) then. Rows of epoch 0 are those of
    a ledger that was moved here.
    """
    taken: dict[str, int] = {}
    for table in metadata.tables.values():
        condition, due = table.info.get("open"), table.info.get("due")
        if condition is None:
            continue
        (key,) = (column.name for column in table.primary_key)
        values = f"{OWNER} = {me}" if due is None else f"{OWNER} = {me}, {due} = {now!r}"
        query = (
            f"UPDATE {table.name} SET {values} "
            f"WHERE {key} = ANY (ARRAY(SELECT left_there.{key} FROM ({_GAPS}) AS gaps, LATERAL "
            f"(SELECT {key} FROM {table.name} WHERE {condition} AND {OWNER} > after AND {OWNER} < before "
            f"ORDER BY {OWNER} LIMIT {page}) AS left_there LIMIT {page}))"
        )
        if count := connection.exec_driver_sql(query).rowcount:
            taken[table.name] = count
    return taken


def lock_ms(ttl_s: float) -> int:
    """Return for how many milliseconds a connection waits for a lock: buyers are answered 503 after half a lease."""
    return int(ttl_s * 500)


def owner_settings(ttl_s: float) -> Mapping[str, object]:
    """Return the server's settings for a writing connection, so that one that is stopped holds up nobody for long."""
    ms = int(ttl_s * 1000)
    return {
        "idle_in_transaction_session_timeout": ms // 3,
        "lock_timeout": lock_ms(ttl_s),
        "statement_timeout": max(ms, 5_000),
        "timezone": "UTC",
    }


class LeaseHolder(msgspec.Struct, frozen=True):
    """A process that has a lease, or had one."""

    epoch: int
    name: str
    host: str
    address: str
    started_at: float
    expires_in_s: float
    state: str
    """live, draining, expired (about to be taken over) or ended."""
    payments: int
    """Those of its rows that have work left."""
    sessions: int
    roles: str
    """What it does for all of them: engram.ledger.singletons."""


def listed(connection: Connection) -> list[LeaseHolder]:
    """Return the gateways that have a lease or had one in the last day, newest first, with what they own."""
    query = (
        "SELECT epoch, name, host, address, extract(epoch FROM started_at)::float AS started_at, "
        "extract(epoch FROM expires_at - clock_timestamp())::float AS expires_in_s, "
        "CASE WHEN ended_at IS NOT NULL THEN 'ended' WHEN expires_at < clock_timestamp() THEN 'expired' "
        "WHEN draining_at IS NOT NULL THEN 'draining' ELSE 'live' END AS state, "
        "(SELECT count(*) FROM payments WHERE owner_epoch = epoch AND next_attempt_at IS NOT NULL) AS payments, "
        "(SELECT count(*) FROM sessions WHERE owner_epoch = epoch AND ended_at IS NULL) AS sessions, "
        "(SELECT coalesce(string_agg(role, ', ' ORDER BY role), '') FROM singletons WHERE owner_epoch = epoch) "
        "AS roles "
        "FROM gateways WHERE ended_at IS NULL OR ended_at > clock_timestamp() - interval '1 day' ORDER BY epoch DESC"
    )
    return [LeaseHolder(**row) for row in connection.exec_driver_sql(query).mappings()]
