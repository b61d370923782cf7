"""What all endpoints of a kit miner share: callers, their rate, and errors with the `detail` that clients read."""

from typing import Any, Final, TypeVar, final

import msgspec

from engram import wire
from engram.api.call import Call, Surface
from engram.hotkeys import AuthError
from engram.http.errors import ApiError
from engram.http.request import Answer
from engram.kit.callers import Caller, Callers, NotAuthorized, is_x_epistula
from engram.kit.rate_limiter import RateLimiter
from engram.kit.words import misfit
from engram.proxy.exchange.auth_texts import unauthorized, unbelieved
from engram.proxy.exchange.refusing import Refusal, body_of

Q = TypeVar("Q")
WINDOW_S: Final = 60.0


@final
class MinerSurface(Surface[Caller]):
    """A miner's own surface."""

    def __init__(self, callers: Callers, limiter: RateLimiter) -> None:
        self._callers = callers
        self._limiter = limiter

    async def identify(self, call: Call[Any, Caller]) -> Caller:
        """Return the caller. Raises AuthError, NotAuthorized, ApiError 429."""
        caller = self._callers.identify(call.http)
        if not self._limiter.is_allowed(caller.hotkey):
            text = f"more than {self._limiter.max_requests} requests of this hotkey in a minute"
            raise ApiError(429, "rate_limited", text, (("Retry-After", "10"),))
        return caller

    def decode(self, call: Call[Any, Caller], kind: type[Q]) -> Q:
        """Decode the body. Raises ApiError 400, with the field that does not fit."""
        body = call.http.body
        if not body and not call.route.body_required:
            body = b"{}"
        try:
            return wire.decode(body, kind)
        except msgspec.ValidationError as error:
            wrong = misfit(str(error))
            raise ApiError(400, "invalid", wrong.detail, extra={"field": wrong.field}) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ApiError(400, "bad_json", "The body is not JSON") from None

    def refuse(self, call: Call[Any, Caller], error: Exception) -> Answer | None:
        """Return the answer to an expected error, None for a bug."""
        x_epistula = is_x_epistula(call.http)
        match error:
            case AuthError():
                x_epistula = x_epistula or self._callers.takes_x_epistula_alone
                bare = error.code == "missing_header" and not x_epistula
                return _refused(call, unbelieved(error, x_epistula=x_epistula, bare=bare))
            case NotAuthorized():
                return _refused(call, unauthorized(error.refused, x_epistula=x_epistula))
            case ApiError():
                body = {
                    "detail": error.message,
                    "error": error.message,
                    "code": error.code,
                    "request_id": call.exchange.request_id,
                    **error.extra,
                }
                return Answer(error.status, msgspec.json.encode(body), error.headers)
            case _:
                return None


def _refused(call: Call[Any, Caller], refusal: Refusal) -> Answer:
    headers = tuple((name.decode(), value.decode()) for name, value in refusal.headers)
    return Answer(refusal.status, body_of(refusal, call.exchange.request_id), headers)
