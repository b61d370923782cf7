"""POST /credits and GET /credits/{hotkey}: buying submissions, and how many are left."""

from typing import Final, assert_never

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

NOT_PAID: Final = "This key has no submission left: buy some at POST /credits."


def bind_credits(endpoints: Endpoints[None], selling: Selling | None) -> None:
    """Bind both; without `selling` each answers 404."""

    async def buy(call: Call[api.CreditBody, None]) -> Answer:
        if selling is None:
            return _costs_nothing()
        account = _key(call.request.hotkey)
        return await _answer(selling, account, await selling.buy(account, call.http))

    async def left(call: Call[NoBody, None]) -> api.CreditAnswer | Answer:
        if selling is None:
            return _costs_nothing()
        account = _key(call.path("hotkey"))
        return api.CreditAnswer(hotkey=ss58.encode(account), left=await selling.left(account), status="none")

    endpoints.bind(api.CREDITS, buy)
    endpoints.bind(api.LEFT, left)


def offered(selling: Selling, code: str, message: str) -> ApiError:
    """Return the 402 with the offer."""
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
            raise offered(selling, code, message)
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


def _costs_nothing() -> Answer:
    return json_answer(api.Failure(error="submissions cost nothing here", code="not_found"), 404)
