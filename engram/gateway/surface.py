"""The parts that all gateway endpoints share: signed callers, JSON bodies, ledger errors, signed answers."""

from collections.abc import Callable
from typing import Any, TypeVar, final

import msgspec

from actors import ActorDown, CallTimeout
from engram import wire
from engram.api.call import Call, Reply, Surface, encoded
from engram.gateway.caller import Caller, signed_answer, verify
from engram.gateway.replies import INVALID_JSON, json_object, ledger_refusal
from engram.gateway.services import Services
from engram.hotkeys import PublicKey
from engram.http.errors import ApiError
from engram.http.request import Answer, refusal
from engram.ledger import CommitUnknown, LedgerError

Q = TypeVar("Q")


@final
class GatewaySurface(Surface[Caller]):
    """The public surface: callers are identified by signed headers alone, and get signed answers."""

    def __init__(self, services: Services, limit: Callable[[PublicKey], None]) -> None:
        """Take `limit`, which counts a request of a hotkey and raises ApiError 429 when there are too many."""
        self._services = services
        self._limit = limit

    async def identify(self, call: Call[Any, Caller]) -> Caller | None:
        """Return the signer of the request; None where a ticket replaces the signature. Raises ApiError 401, 429."""
        if "ticket" in call.route.callers and call.query("ticket") is not None:
            return None
        caller = verify(self._services, call.http, call.route.unsigned)
        self._limit(caller.public_key)
        return caller

    def decode(self, call: Call[Any, Caller], kind: type[Q]) -> Q:
        """Return the body's object as the row's request. Raises ApiError 400."""
        try:
            return wire.convert(json_object(call.http.body, call.route.max_values), kind)
        except msgspec.ValidationError as error:
            raise ApiError(400, "invalid_json", INVALID_JSON, extra={"detail": str(error)}) from None

    def refuse(self, call: Call[Any, Caller], error: Exception) -> Answer | None:
        """Return the answer to an ApiError or LedgerError (503); None for any other exception.

        A ledger whose actor does not answer, or not in time, is one whose outcome is unknown.
        """
        if isinstance(error, (ActorDown, CallTimeout)):
            error = CommitUnknown(str(error))
        if isinstance(error, LedgerError):
            error = ledger_refusal(error)
        return refusal(call.http, error) if isinstance(error, ApiError) else None

    async def finish(self, call: Call[Any, Caller], given: Reply[object] | Answer) -> Answer:
        """Return the answer, signed where the request was."""
        answer = given if isinstance(given, Answer) else encoded(call.route, given)
        return signed_answer(self._services, call.http, answer)
