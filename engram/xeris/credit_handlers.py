"""POST /credits and GET /credits/{hotkey}: buying submissions, and how many are left."""

from typing import assert_never, final

from engram.api import xeris as api
from engram.api.call import Call
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.hotkeys import MalformedHotkey, PublicKey, ss58
from engram.http.errors import ApiError
from engram.http.request import Answer, json_answer
from engram.payments import (
    Bought,
    CannotNow,
    Conflict,
    Malformed,
    NoRoom,
    PurchaseAnswer,
    Refused,
    Replayed,
    StillPending,
    receipt_headers,
)
from engram.xeris.selling import Selling


@final
class Credits:
    """Sells submissions over HTTP; a `prices.Sells`."""

    def __init__(self, selling: Selling) -> None:
        self._selling = selling

    async def must_pay(self, body: bytes) -> bool:
        """Return whether the payload's claimed signer has no submission left for it. Raises LedgerError."""
        return await self._selling.must_pay(body)

    def offered(self, code: str, message: str) -> ApiError:
        """Return the 402 with the offer."""
        return _offered(self._selling, code, message)

    def bind(self, endpoints: Endpoints[None]) -> None:
        """Bind both endpoints."""
        selling = self._selling

        async def buy(call: Call[api.CreditBody, None]) -> Answer:
            account = _key(call.request.hotkey)
            return await _answer(selling, account, await selling.buy(account, call.http))

        async def left(call: Call[NoBody, None]) -> api.CreditAnswer:
            account = _key(call.path("hotkey"))
            return api.CreditAnswer(hotkey=ss58.encode(account), left=await selling.left(account), status="none")

        endpoints.bind(api.CREDITS, buy)
        endpoints.bind(api.LEFT, left)


def _offered(selling: Selling, code: str, message: str) -> ApiError:
    challenge = selling.challenge(message)
    return ApiError(402, code, message, headers=challenge.headers, extra=challenge.fields)


async def _answer(selling: Selling, account: PublicKey, answer: PurchaseAnswer) -> Answer:
    match answer:
        case Bought(payment):
            found = api.CreditAnswer(
                hotkey=ss58.encode(account), left=await selling.left(account), status="settled", payment_id=payment.id
            )
            return json_answer(found, 200, list(receipt_headers(payment)))
        case StillPending(payment, retry_after_s):
            found = api.CreditAnswer(
                hotkey=ss58.encode(account), left=await selling.left(account), status="pending", payment_id=payment.id
            )
            return json_answer(found, 200, [("Retry-After", str(retry_after_s))])
        case Refused(code, message):
            raise _offered(selling, code, message)
        case Malformed(code, message):
            raise ApiError(400, code, message[:200])
        case Conflict(message):
            raise ApiError(409, "payment_conflict", message)
        case Replayed(message):
            raise ApiError(401, "replayed", message)
        case NoRoom(code, message, retry_after_s):
            status = 429 if code == "too_many_open_payments" else 503
            raise ApiError(status, code, message, headers=(("Retry-After", str(retry_after_s)),))
        case CannotNow(code, message, retry_after_s):
            raise ApiError(503, code, message, headers=(("Retry-After", str(retry_after_s)),))
        case _:
            assert_never(answer)


def _key(address: str) -> PublicKey:
    try:
        return ss58.decode(address)
    except MalformedHotkey as error:
        raise ApiError(422, "invalid", f"hotkey must be an ss58 address: {error}") from None
