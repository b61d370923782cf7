"""What an error of PostgreSQL says of the database, by SQLSTATE: a fault of the server, or of the statement.

| class or state | what happened | what is true |
|---|---|---|
| none, 08, 57P01-57P05 | the connection or the server is gone | nothing is known of a COMMIT on its way |
| 53, 58, XX, 57014, 55P03, 25P03, 25006 | disk full, broken, too slow, waited too long, read-only | not committed |
| 40 | serialization, deadlock | not committed, safe to repeat |
| the rest (22, 23, 42, …) | the statement's own error | its request is undone, the others stand |

Source: PostgreSQL's documentation, appendix A, "PostgreSQL Error Codes".
"""

from typing import Final

import psycopg

_HINTS: Final = {
    "53100": "the server's disk is full: free some space there",
    "53200": "the server is out of memory",
    "53300": "the server has no connection left: raise its max_connections",
    "25006": "the server is read-only: connect to the primary (name it in ledger.url)",
    "55P03": "another gateway or session held the ledger for too long",
    "57014": "it takes too long",
    "25P03": "this process was stopped for too long inside a transaction",
}
_FAULTS: Final = ("08", "25006", "25P03", "40", "53", "55P03", "57", "58", "F0", "XX")


class ConnectionGone(psycopg.OperationalError):
    """The connection ended, or did not answer in time."""


def original(error: BaseException | None) -> BaseException | None:
    """Return the driver's error under one that SQLAlchemy has wrapped, else the error itself."""
    return getattr(error, "orig", None) or error


def is_fault(error: BaseException | None) -> bool:
    """Return whether an error is a fault of the server or the connection rather than of a statement."""
    found = original(error)
    if not isinstance(found, psycopg.Error):
        return False
    if found.sqlstate is None:
        return isinstance(found, psycopg.OperationalError | psycopg.InterfaceError)
    return found.sqlstate.startswith(_FAULTS)


def text_of(error: BaseException | None) -> str:
    """Return an error as an operator should read it, on one line and with what to do."""
    found = original(error)
    words = " ".join(str(found).split()) or type(found).__name__
    state = found.sqlstate if isinstance(found, psycopg.Error) else None
    return f"{words}; {_HINTS.get(state or '', 'check the server and the network to it')}"
