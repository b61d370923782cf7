"""What submissions cost: nothing, or what a seller says.

A receiver that sells nothing imports no part of the payments area.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from sqlalchemy import Connection

from engram.api import xeris as api
from engram.api.call import Call
from engram.api.serving import Endpoints
from engram.hotkeys import PublicKey
from engram.http.errors import ApiError
from engram.http.request import Answer, json_answer

UsePaid = Callable[[Connection, PublicKey, float], bool]
"""Uses one submission that a key has paid for, at a time (unix seconds); False when none is left."""
NOT_PAID: Final = "This key has no submission left: buy some at POST /credits."


class Sells(Protocol):
    """Takes payment for submissions."""

    async def must_pay(self, body: bytes) -> bool:
        """Return whether the payload's claimed signer has no submission left for it. Raises LedgerError."""
        ...

    def offered(self, code: str, message: str) -> ApiError:
        """Return the 402 with the offer."""
        ...

    def bind(self, endpoints: Endpoints[None]) -> None:
        """Bind POST /credits and GET /credits/{hotkey}."""
        ...


def bind_free(endpoints: Endpoints[None]) -> None:
    """Bind both endpoints where submissions cost nothing: each answers 404."""

    async def none(_: Call[Any, None]) -> Answer:
        return json_answer(api.Failure(error="submissions cost nothing here", code="not_found"), 404)

    endpoints.bind(api.CREDITS, none)
    endpoints.bind(api.LEFT, none)
