"""One connection to the server, as the ledger uses it: psycopg's, SQLAlchemy's view of it, and what is sent ahead."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, LiteralString, TypeVar, final
from urllib.parse import quote

import psycopg
import sqlalchemy
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from engram.ledger.errors import LedgerUnavailable, ServerAway
from engram.ledger.postgres.ahead import Ahead
from engram.ledger.postgres.dialect import DRIVER
from engram.ledger.postgres.faults import text_of

T = TypeVar("T")

_CONNECTION: Final[Mapping[str, object]] = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "target_session_attrs": "primary",
}
"""A peer that is gone is noticed within some 15 s, and of several hosts the primary is taken. The URL may say
otherwise."""


class _Whole(Loader):
    """Loads a sum of bigints, which PostgreSQL returns as numeric, as the integer that it is."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data)
        return float(text) if b"." in text else int(text)


class LedgerConnection(psycopg.Connection[Any]):
    """Psycopg's connection with what prepared statements are sent by."""

    ahead: Ahead


@final
class Link:
    """A connection and its views. For one thread at a time."""

    def __init__(self, url: str, settings: Mapping[str, object]) -> None:
        """Connect; `settings` are the server's for this connection. Blocks. Raises LedgerUnavailable."""
        try:
            given = conninfo_to_dict(url)
            options = " ".join(f"-c {name}={value}" for name, value in settings.items())
            wanted: dict[str, Any] = {**_CONNECTION, "application_name": "engram", **given}
            wanted["options"] = f"{given.get('options') or ''} {options}".strip()
            self.raw = LedgerConnection.connect(make_conninfo("", **wanted), autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise ServerAway(f"{place_of(url)} cannot be reached: {text_of(error)}") from None
        self.raw.adapters.register_loader("numeric", _Whole)
        self.raw.ahead = self.ahead = Ahead(self.raw)
        self._engine = sqlalchemy.create_engine(
            f"{DRIVER}://",
            creator=lambda: self.raw,
            poolclass=StaticPool,
            pool_reset_on_return=None,
            isolation_level="AUTOCOMMIT",  # transactions are begun and ended by the group
            skip_autocommit_rollback=True,
            hide_parameters=True,  # parameters contain payments and keys, and errors are logged
            execution_options={"preserve_rowcount": True},  # else -1 for an INSERT that returns a key
        )

        @event.listens_for(self._engine, "before_cursor_execute")
        def results_first(*_: object) -> None:
            self.ahead.leave()

        try:
            self.handle: Connection = self._engine.connect()
        except (psycopg.Error, SQLAlchemyError) as error:
            self.raw.close()
            raise LedgerUnavailable(f"{place_of(url)} cannot be used: {text_of(error)}") from None

    @property
    def usable(self) -> bool:
        """Whether the connection is open and outside a transaction."""
        return not self.raw.closed and self.raw.pgconn.transaction_status == TransactionStatus.IDLE

    def outside(self) -> Connection:
        """Return the connection for statements that are committed one by one, outside of any group."""
        self.ahead.new_group()  # an error of the last one is not theirs
        return self.handle

    def row(self, query: LiteralString, values: Sequence[object]) -> tuple[Any, ...]:
        """Run a statement by itself; return its one row. Raises psycopg.Error."""
        self.ahead.leave()
        found: tuple[Any, ...] | None = self.raw.execute(query, values).fetchone()
        assert found is not None, "it returns a row"
        return found

    def read(self, query: Callable[[Connection], T], budget_s: float) -> T:
        """Run a query on a snapshot, for at most `budget_s` seconds. Raises what it raises.

        The connection is closed where it cannot be used again.
        """
        self.ahead.new_group()
        try:
            self.ahead.send("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            self.ahead.send(f"SET LOCAL statement_timeout = {max(1, int(budget_s * 1000))}")
            self.ahead.sync()
            return query(self.handle)
        finally:
            self._end_read()

    def _end_read(self) -> None:
        try:
            self.ahead.sync()
            self.ahead.send("ROLLBACK")
            self.ahead.settle()
            self.ahead.new_group()
            self.ahead.leave()
        except psycopg.Error:
            self.close()

    def close(self) -> None:
        """Close the connection, whatever its state. Raises nothing."""
        self.raw.close()
        self._engine.dispose(close=False)


def place_of(url: str) -> str:
    """Return where a URL leads, without its password; it is a URL that leads there as well.

    >>> place_of("postgresql://engram:secret@db.example:5433/ledger")
    'postgresql://engram@db.example:5433/ledger'
    >>> place_of("postgresql://db.example/ledger?options=-csearch_path%3Dengram&sslmode=require")
    'postgresql://db.example/ledger?options=-csearch_path%3Dengram'
    """
    try:
        found = conninfo_to_dict(url)
    except psycopg.Error:
        return "ledger.url"
    user = f"{found['user']}@" if "user" in found else ""
    port = f":{found['port']}" if "port" in found else ""
    options = f"?options={quote(str(found['options']))}" if "options" in found else ""
    return f"postgresql://{user}{found.get('host', '')}{port}/{found.get('dbname', '')}{options}"
