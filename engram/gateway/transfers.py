"""An identity on its way from one device to another: POST /transfers keeps it for a while, POST /transfers/take
gives it out once, GET /transfers says to whoever left it whether it was.

What is kept was encrypted on the device, under a key that follows from a code of 80 bits (scrypt); its id follows from
the same code. Whoever has the code takes it, the gateway included; the gateway has it not.
"""

from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update

from engram.api import gateway as api
from engram.api.call import Call
from engram.api.gateway_model import (
    LeaveIdentityBody,
    LeftIdentityAnswer,
    TakeIdentityBody,
    TakenIdentityAnswer,
    TransferAnswer,
)
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.gateway.caller import Caller
from engram.gateway.services import Services
from engram.gateway.tables import identity_transfers
from engram.hotkeys.scheme import TIMESTAMP_MS
from engram.http.errors import ApiError

LIFETIME_S: Final = 600
MOST_AT_ONCE: Final = 5_000
"""Kept by a ledger, of all hotkeys; each takes about 2 kB."""
_DROPPED_AT_ONCE: Final = 100
_OF = identity_transfers.c
_TAKEN: Final = b""
"""In the place of what was taken: whoever left it is told so until its time is over."""


def bind_transfers(endpoints: Endpoints[Caller], services: Services) -> None:
    """Bind the endpoints under /transfers."""

    async def leave(call: Call[LeaveIdentityBody, Caller]) -> LeftIdentityAnswer:
        now, body = services.clock.now(), call.request
        row = {
            "id": bytes.fromhex(body.id),
            "controller": call.caller.public_key,
            "sealed": body.sealed.encode("ascii"),
            "expires_at": now + LIFETIME_S,
        }
        if not await services.ledger.write(lambda connection: _keep(connection, row, now)):
            raise ApiError(
                503, "busy", "Too many identities are on their way; try again in a minute.", (("Retry-After", "60"),)
            )
        return LeftIdentityAnswer(expires_at=now + LIFETIME_S)

    async def show(call: Call[NoBody, Caller]) -> TransferAnswer:
        mine = select(_OF.id, _OF.sealed, _OF.expires_at).where(_OF.controller == call.caller.public_key)
        found = await services.ledger.read(lambda connection: connection.execute(mine).first())
        if found is None:
            raise ApiError(404, "no_transfer", "You left no identity here, or its time is over.")
        return TransferAnswer(
            id=bytes(found.id).hex(), taken=bytes(found.sealed) == _TAKEN, expires_at=found.expires_at
        )

    async def take(call: Call[TakeIdentityBody, Caller]) -> TakenIdentityAnswer:
        # As for pay links: whoever takes it has no key yet that could sign.
        if TIMESTAMP_MS.match(timestamp := call.header("x-timestamp") or ""):
            call.http.signed_at = timestamp
        now, wanted = services.clock.now(), bytes.fromhex(call.request.id)
        sealed = await services.ledger.write(lambda connection: _take(connection, wanted, now))
        if sealed is None:
            raise ApiError(
                404,
                "no_transfer",
                "Nothing waits under this code: it was used, or is over. Make another one.",
            )
        return TakenIdentityAnswer(sealed=sealed.decode("ascii"))

    endpoints.bind(api.LEAVE_IDENTITY, leave)
    endpoints.bind(api.SHOW_TRANSFER, show)
    endpoints.bind(api.TAKE_IDENTITY, take)


def _keep(connection: Connection, row: dict[str, object], now_s: float) -> bool:
    """Keep a transfer in the place of the hotkey's earlier one; False where there are too many."""
    old = select(_OF.id).where(_OF.expires_at <= now_s).limit(_DROPPED_AT_ONCE).scalar_subquery()
    connection.execute(delete(identity_transfers).where(_OF.id.in_(old)))
    same = (_OF.controller == row["controller"]) | (_OF.id == row["id"])
    connection.execute(delete(identity_transfers).where(same))
    if connection.execute(select(func.count()).select_from(identity_transfers)).scalar_one() >= MOST_AT_ONCE:
        return False
    connection.execute(insert(identity_transfers).values(row))
    return True


def _take(connection: Connection, wanted: bytes, now_s: float) -> bytes | None:
    """Return what waits under an id, which is used up by that; None for nothing, or what is over."""
    waits = (_OF.id == wanted) & (_OF.sealed != _TAKEN) & (_OF.expires_at > now_s)
    sealed = connection.execute(select(_OF.sealed).where(waits)).scalar_one_or_none()
    # Of two gateways on one ledger that read it at once, the update lets one pass.
    taking = update(identity_transfers).where(waits).values(sealed=_TAKEN)
    return bytes(sealed) if sealed is not None and connection.execute(taking).rowcount == 1 else None
