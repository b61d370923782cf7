"""Asking a facilitator over HTTP, with answers that never confuse "not sent", "refused" and "unknown"."""

from collections.abc import Callable
from typing import Protocol, final

import msgspec

from engram.http.client import BadAnswer, HttpClient, Interrupted, NotSent, Response, TooLarge
from engram.payments import outcomes, rules
from engram.payments.errors import MalformedPayment
from engram.payments.model import Transferable
from engram.payments.outcomes import Settlement, Unavailable, Unknown, Verification
from engram.payments.x402 import strict_json

MAX_ANSWER_BYTES = 65_536
CONNECT_S = 3.0


class Facilitator(Protocol):
    """Who verifies and settles payments. Nothing is raised for what the other side does."""

    async def verify(self, transfer: Transferable) -> Verification:
        """Verify that a transfer would be settled. Moves nothing."""
        ...

    async def settle(self, transfer: Transferable) -> Settlement:
        """Settle it. Asking twice with the same payment moves money once."""
        ...


@final
class HttpFacilitator:
    """A facilitator at `base_url` (read at each request: an embedded one gets its port late)."""

    def __init__(
        self, http: HttpClient, base_url: Callable[[], str], *, verify_timeout_s: float, settle_timeout_s: float
    ) -> None:
        self._http = http
        self._base_url = base_url
        self._verify_timeout_s = verify_timeout_s
        self._settle_timeout_s = settle_timeout_s

    async def verify(self, transfer: Transferable) -> Verification:
        """Ask POST /verify; anything but a verdict is Unavailable."""
        try:
            answer = await self._post("verify", transfer, self._verify_timeout_s)
        except (NotSent, Interrupted, TooLarge, BadAnswer) as error:
            return Unavailable(type(error).__name__)
        return rules.read_verification(answer.status, _json(answer), transfer.payer)

    async def settle(self, transfer: Transferable) -> Settlement:
        """Ask POST /settle; only a request that never left is NotSent."""
        try:
            answer = await self._post("settle", transfer, self._settle_timeout_s)
        except NotSent as error:
            return outcomes.NotSent(str(error))
        except (Interrupted, TooLarge, BadAnswer) as error:
            return Unknown(type(error).__name__)
        return rules.read_settlement(answer.status, _json(answer), transfer.network, transfer.payer)

    async def _post(self, verb: str, transfer: Transferable, timeout_s: float) -> Response:
        return await self._http.request(
            "POST",
            f"{self._base_url().rstrip('/')}/{verb}",
            content=request_body(transfer),
            headers={"content-type": "application/json"},
            connect_s=min(CONNECT_S, timeout_s),
            read_s=timeout_s,
            total_s=timeout_s,
            max_bytes=MAX_ANSWER_BYTES,
        )


def request_body(transfer: Transferable) -> bytes:
    """Return the body of /verify and /settle: the stored payload and requirements, byte for byte the same each time."""
    return msgspec.json.encode(
        {
            "x402Version": 2,
            "paymentPayload": msgspec.Raw(transfer.payload),
            "paymentRequirements": msgspec.Raw(transfer.requirements),
        }
    )


def _json(answer: Response) -> object:
    try:
        return strict_json(answer.content)
    except MalformedPayment:
        return None
