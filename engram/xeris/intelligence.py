"""What the receiver shows of accepted payloads, over HTTP and MCP alike."""

from typing import Final

import trio
from sqlalchemy import Connection

from engram.api import xeris as api
from engram.xeris import anchoring, records

_OF_OURS: Final = ("anchor_id", "leaf", "overdue")


class Arrivals:
    """Wakes who waits for the next accepted payload. A lost wake-up costs one polling interval."""

    def __init__(self) -> None:
        self._next = trio.Event()

    def wake(self) -> None:
        """Wake everyone who waits."""
        woken, self._next = self._next, trio.Event()
        woken.set()

    async def wait(self, at_most_s: float) -> None:
        """Wait for the next payload, or that long."""
        with trio.move_on_after(at_most_s):
            await self._next.wait()


def state_of(found: records.AcceptedHead) -> str:
    """Return `anchored`, `overdue` (not anchored in time) or `accepted`."""
    if found.anchor_id is not None:
        return "anchored"
    return "overdue" if found.overdue == anchoring.LATE else "accepted"


def reason_of(found: records.AcceptedHead) -> str:
    """Return why a payload stays `accepted`; empty: it is anchored, or may be yet."""
    if found.anchor_id is None and found.overdue == anchoring.CANNOT:
        return f"its signer is not registered on subnet {found.netuid}, and can commit no root"
    return ""


def shown(found: records.Accepted, anchor: api.Inclusion | None = None) -> api.Intelligence:
    """Return a payload whole."""
    fields = {name: getattr(found, name) for name in records.Accepted.__struct_fields__ if name not in _OF_OURS}
    return api.Intelligence(**fields, state=state_of(found), reason=reason_of(found), anchor=anchor)


def summary(found: records.AcceptedHead) -> api.IntelligenceSummary:
    """Return a payload without its document."""
    names = api.IntelligenceSummary.__struct_fields__
    fields = {name: getattr(found, name) for name in names if name not in ("state", "reason")}
    return api.IntelligenceSummary(**fields, state=state_of(found), reason=reason_of(found))


def with_proof(connection: Connection, found: records.Accepted) -> api.Intelligence:
    """Return a payload with where it stands under its root on the chain, where it is anchored."""
    if found.anchor_id is None or found.leaf is None:
        return shown(found)
    return shown(found, anchoring.inclusion(connection, found.anchor_id, found.leaf))


def one(connection: Connection, signed_hash: str) -> api.Intelligence | None:
    """Return an accepted payload with its proof; None where there is none of this hash."""
    found = records.by_hash(connection, signed_hash)
    return None if found is None else with_proof(connection, found)
