"""Whether the receiver has said itself what it takes, kept over restarts. Inside `ledger.write` or `ledger.read`.

From a receiver that negotiates only a signed acknowledgement counts. Without this, an emitter that starts behind a
portal, which answers 200 to everything, would take it for a receiver of the original that takes everything.
"""

from typing import Final

from sqlalchemy import Connection

from engram.ledger import facts

NEGOTIATED: Final = "relay_negotiated"
"""The URL of the receiver that has negotiated last; empty: none has."""


def has_negotiated(connection: Connection, destination: str) -> bool:
    """Return whether this receiver was the last to negotiate."""
    return bool(destination) and facts.get(connection, NEGOTIATED) == destination


def note_negotiated(connection: Connection, destination: str, negotiated: bool) -> None:
    """Note that the receiver has negotiated, or that it is one that does not."""
    facts.put(connection, NEGOTIATED, destination if negotiated else "")
