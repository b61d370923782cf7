"""Sends statements ahead of their results: libpq's pipeline mode, for what a group commit does.

A round trip costs more than most statements. So a statement whose result is not used is only sent, and its result is
read later with those of others. What must be undone when one of them turns out to have failed is settled by savepoints
that need no answer either:

```
begin             BEGIN; fence; turn;           SAVEPOINT ok; Sync
request 1         its statements …              SAVEPOINT ok; Sync
request 2         ROLLBACK TO ok;               its statements …  SAVEPOINT ok; Sync
```

After an error the server skips everything up to the next Sync. `ROLLBACK TO ok` at the head of a request then undoes
what the one before left half done: if that one succeeded, its own savepoint is the newest and nothing is undone; if it
failed, the newest is that of the last success. It is left out when nothing is outstanding. So each request is alone in
its fate, and a group costs two round trips however many requests it has, plus one for each result that is waited for.

Source: PostgreSQL's documentation, "Pipeline Mode"; no result may be left unread for long: `MOST_AHEAD`.
"""

import select
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, final

import psycopg
import psycopg.errors
import sqlalchemy.exc
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, PipelineStatus
from psycopg.pq.abc import PGresult

from engram.ledger.postgres.dialect import NUMBERED
from engram.ledger.postgres.faults import ConnectionGone
from engram.ledger.prepared import Prepared

ANSWER_S: Final = 30.0
"""A server that says nothing for this long is given up; it bounds its statements by itself before."""
MOST_AHEAD: Final = 1_024
"""Statements without a result read; at some 100 bytes each they fit into a socket's buffer."""
Row = tuple[Any, ...]
_NO_ROWS: Final[list[Row]] = []


class SentStatement:
    """A statement that was sent. `rows` and `changed` are its result once it is `done`."""

    __slots__ = ("changed", "done", "error", "request", "rows", "skipped", "sql", "tag")

    def __init__(self, request: int, sql: str) -> None:
        self.request = request
        self.sql = sql
        self.done = False
        self.skipped = False
        self.rows = _NO_ROWS
        self.changed = 0
        self.tag = b""
        self.error: psycopg.Error | None = None


@final
class Ahead:
    """What was sent on one connection and not read yet. For one thread."""

    def __init__(self, raw: "psycopg.Connection[Any]") -> None:
        self._pg = raw.pgconn
        self._poll = select.poll()
        self._poll.register(self._pg.socket, select.POLLIN)
        self._outstanding: deque[SentStatement] = deque()
        self._names: dict[str, bytes] = {}
        self._statements: dict[Prepared, tuple[str, bytes, tuple[str, ...]]] = {}
        self.request = 0
        """The number of the request whose statements are sent now; 0 is the group's own."""
        self.errors: dict[int, psycopg.Error] = {}
        """The first error of each request that has failed."""

    # Statements of requests.

    def rows(self, prepared: Prepared, parameters: Mapping[str, object]) -> list[Row]:
        """Run a statement and return its rows. Raises sqlalchemy.exc.DBAPIError."""
        return self._answer(self._execute(prepared, parameters)).rows

    def change(self, prepared: Prepared, parameters: Mapping[str, object]) -> int:
        """Run a statement and return how many rows it changed. Raises sqlalchemy.exc.DBAPIError."""
        return self._answer(self._execute(prepared, parameters)).changed

    def apply(self, prepared: Prepared, parameters: Mapping[str, object]) -> None:
        """Send a statement; if it fails, its request fails."""
        self._execute(prepared, parameters)

    # The group's own.

    def send(self, sql: str) -> SentStatement:
        """Send a statement without parameters."""
        self._enter()
        self._pg.send_query_params(sql.encode(), None)
        return self._sent(SentStatement(self.request, sql))

    def sync(self) -> None:
        """Let what follows run although something before may have failed."""
        self._enter()
        self._pg.pipeline_sync()
        self._sent(SentStatement(self.request, ""))

    @property
    def outstanding(self) -> bool:
        """Whether results are still to be read."""
        return bool(self._outstanding)

    def leave(self) -> None:
        """Read all results and leave pipeline mode, so that the driver can be used directly.

        Raises the error of the request under way, if it has one.
        """
        if self._pg.pipeline_status == PipelineStatus.OFF:
            return
        if self._outstanding:
            self.sync()
            self._read_until(self._outstanding[-1])
        self._pg.exit_pipeline_mode()
        if (error := self.errors.get(self.request)) is not None:
            raise error

    def settle(self) -> None:
        """Read all results; what failed is in `errors`. Raises ConnectionGone."""
        if self._outstanding:
            self.sync()
            self._read_until(self._outstanding[-1])

    def new_group(self) -> None:
        """Forget the errors of the last group."""
        self.errors.clear()
        self.request = 0

    # Parts.

    def _execute(self, prepared: Prepared, parameters: Mapping[str, object]) -> SentStatement:
        sql, name, order = self._statements.get(prepared) or self._prepare(prepared)
        values: list[bytes | None] = []
        formats: list[int] = []
        for key in order:
            if key not in parameters:
                raise translated(sql, psycopg.ProgrammingError(f"the parameter {key} has no value"))
            value = parameters[key]
            match value:
                case None:
                    values.append(None)
                    formats.append(0)
                case bytes():
                    values.append(value)
                    formats.append(1)
                case _:
                    text = str(value).encode()
                    if b"\0" in text:  # libpq takes it for the end
                        raise translated(sql, psycopg.DataError(f"the text of {key} contains NUL"))
                    values.append(text)
                    formats.append(0)
        self._enter()
        self._pg.send_query_prepared(name, values, formats)
        return self._sent(SentStatement(self.request, sql))

    def _prepare(self, prepared: Prepared) -> tuple[str, bytes, tuple[str, ...]]:
        compiled = prepared.compiled(NUMBERED)
        sql = str(compiled)
        name = f"engram_{len(self._statements)}".encode()
        self._enter()
        self._pg.send_prepare(name, sql.encode())
        self._answer(self._sent(SentStatement(self.request, sql)))
        self._statements[prepared] = found = (sql, name, tuple(compiled.positiontup or ()))
        return found

    def _enter(self) -> None:
        if self._pg.pipeline_status == PipelineStatus.OFF:
            if self._pg.status != ConnStatus.OK:
                raise ConnectionGone("the connection to the server is lost")
            self._pg.nonblocking = 1
            self._pg.enter_pipeline_mode()

    def _sent(self, sent: SentStatement) -> SentStatement:
        self._outstanding.append(sent)
        if len(self._outstanding) > MOST_AHEAD:
            self._wait_for(sent)
        return sent

    def _wait_for(self, sent: SentStatement) -> None:
        """Read what was sent up to this. It is followed by a Sync and not only by a Flush: a server has no timeout for
        a session that is idle between statements without one, and one that is stopped there would keep the turn."""
        self._pg.pipeline_sync()
        self._outstanding.append(SentStatement(self.request, ""))
        self._read_until(sent)

    def _answer(self, sent: SentStatement) -> SentStatement:
        if not sent.done:
            self._wait_for(sent)
        error = self.errors.get(sent.request)  # the first: what comes after it fails because of it
        if error is None and sent.skipped:  # the group has failed before its first request
            error = self.errors.get(0) or psycopg.errors.InFailedSqlTransaction("a statement before it has failed")
        if error is not None:
            raise translated(sent.sql, error)
        return sent

    def _read_until(self, last: SentStatement) -> None:
        self._flush()
        while not last.done:
            sent = self._outstanding[0]
            result = self._next_result()
            if result is None:
                continue  # ends the results of the statement before
            self._outstanding.popleft()
            sent.done = True
            self._take(sent, result)

    def _take(self, sent: SentStatement, result: PGresult) -> None:
        match result.status:
            case ExecStatus.TUPLES_OK:
                sent.rows = _decoded(result)
                sent.changed = result.command_tuples or 0
            case ExecStatus.COMMAND_OK:
                sent.changed = result.command_tuples or 0
                sent.tag = result.command_status or b""
            case ExecStatus.PIPELINE_SYNC:
                return
            case ExecStatus.PIPELINE_ABORTED:
                sent.skipped = True
            case _:
                sent.error = _error_of(result)
                self.errors.setdefault(sent.request, sent.error)
                if self._pg.status != ConnStatus.OK:
                    raise ConnectionGone(str(sent.error))

    def _next_result(self) -> PGresult | None:
        while self._pg.is_busy():
            if not self._poll.poll(ANSWER_S * 1000):
                raise ConnectionGone(f"the server has not answered for {ANSWER_S:.0f} s")
            self._consume()
        result = self._pg.get_result()
        if result is None and self._pg.status != ConnStatus.OK:
            raise ConnectionGone("the server closed the connection")
        return result

    def _flush(self) -> None:
        while self._flushed():
            writable = select.poll()
            writable.register(self._pg.socket, select.POLLIN | select.POLLOUT)
            ready = writable.poll(ANSWER_S * 1000)
            if not ready:
                raise ConnectionGone(f"the server has not read for {ANSWER_S:.0f} s")
            if ready[0][1] & select.POLLIN:
                self._consume()

    def _flushed(self) -> int:
        try:
            return self._pg.flush()
        except psycopg.Error as error:
            raise ConnectionGone(str(error)) from error

    def _consume(self) -> None:
        try:
            self._pg.consume_input()
        except psycopg.Error as error:
            raise ConnectionGone(str(error)) from error


def translated(sql: str, error: psycopg.Error) -> sqlalchemy.exc.DBAPIError:
    """Return an error as SQLAlchemy's, so that callers handle one kind of error."""
    found = sqlalchemy.exc.DBAPIError.instance(sql, None, error, psycopg.Error, hide_parameters=True, dialect=NUMBERED)
    assert isinstance(found, sqlalchemy.exc.DBAPIError)
    return found


def _error_of(result: PGresult) -> psycopg.Error:
    state = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
    words = (result.error_field(DiagnosticField.MESSAGE_PRIMARY) or result.error_message).decode(errors="replace")
    try:
        kind: type[psycopg.Error] = psycopg.errors.lookup(state)
    except KeyError:
        kind = psycopg.OperationalError if not state else psycopg.DatabaseError
    return kind(words)


def _decoded(result: PGresult) -> list[Row]:
    columns = range(result.nfields)
    loaders = [_LOADERS.get(result.ftype(column), _text) for column in columns]
    return [
        tuple(
            None if (found := result.get_value(row, column)) is None else loaders[column](found) for column in columns
        )
        for row in range(result.ntuples)
    ]


def _text(value: bytes) -> str:
    return value.decode()


def _bytea(value: bytes) -> bytes:
    return bytes.fromhex(value[2:].decode())


def _number(value: bytes) -> int | float:
    """Return a sum of bigints as the integer that it is."""
    return float(value) if b"." in value else int(value)


_LOADERS: Final[Mapping[int, Any]] = {
    16: lambda value: int(value == b"t"),
    17: _bytea,
    20: int,
    21: int,
    23: int,
    700: float,
    701: float,
    1700: _number,
}
"""By the ids of the types; text is the rest."""
