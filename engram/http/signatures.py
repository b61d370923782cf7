"""Requires signatures in front of an application, for surfaces whose callers sign by headers.

It runs between the Edge, which has read the body within its bounds, and the application, which is only called for
verified requests, with the signer in the scope. The Verifier decides schemes, permitted keys and replay memory
(docs/signing.md).

    refused as                  answer
    not_permitted               403
    busy                        503 with Retry-After: the memory for replays is full
    everything else             401, `clock_skew_ms` with it where the request bore a timestamp

Refusals are raised as ApiError, which the Edge maps to HTTP. A signature is consumed before its key's rate limit is
checked: after a 429 the request must be signed again.
"""

from collections.abc import Callable, Collection
from typing import Final, TypeAlias, final

import trio

from engram.clock import Clock
from engram.hotkeys import AuthError, PublicKey, SignedRequest, Verifier
from engram.http import exchange
from engram.http.app import App
from engram.http.asgi import AsgiApp, Receive, Scope, Send
from engram.http.errors import ApiError
from engram.telemetry.metrics import Metrics

KEY: Final = "engram.signed"
"""The key of an ASGI scope that holds its verified signer."""

RETRY_AFTER_S: Final = 5
_ON_THE_LOOP: Final = 65_536
"""Bodies up to this many bytes are hashed and verified on the loop: well below 1 ms."""
_POLICY_VIOLATION: Final = 1008

Choose: TypeAlias = Callable[[Scope], Verifier | None]
"""Returns the verifier for a request; None where no signature is needed."""


@final
class SignatureGate:
    """ASGI middleware that requires signatures; runs inside an Edge."""

    def __init__(
        self,
        app: AsgiApp,
        choose: Choose,
        *,
        clock: Clock,
        surface: str,
        metrics: Metrics,
        use: Callable[[PublicKey], None] | None = None,
    ) -> None:
        """Take `use`, which counts a request of a verified key and may raise ApiError (429)."""
        self._app = app
        self._choose = choose
        self._clock = clock
        self._surface = surface
        self._metrics = metrics
        self._use = use
        self._judging = trio.CapacityLimiter(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for a verified request. Raises ApiError for others."""
        match scope["type"]:
            case "http":
                if (verifier := self._choose(scope)) is not None:
                    scope[KEY] = await self._believed(verifier, scope)
                await self._app(scope, receive, send)
            case "lifespan":
                await self._app(scope, receive, send)
            case _:
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})

    async def _believed(self, verifier: Verifier, scope: Scope) -> SignedRequest:
        try:
            signed = await self._judged(verifier, scope, exchange.of(scope).body)
            verifier.note(signed, method=scope["method"], now_ms=self._now_ms())
        except AuthError as error:
            self._metrics.auth_refused.labels(self._surface, error.code).inc()
            raise refusal(error) from None
        if self._use is not None:
            self._use(signed.public_key)
        return signed

    async def _judged(self, verifier: Verifier, scope: Scope, body: bytes) -> SignedRequest:
        now_ms = self._now_ms()

        def judge() -> SignedRequest:
            return verifier.judge(
                scope["headers"],
                method=scope["method"],
                raw_path=bytes(scope["raw_path"]).partition(b"?")[0],
                body=body,
                now_ms=now_ms,
            )

        if len(body) <= _ON_THE_LOOP:
            return judge()
        return await trio.to_thread.run_sync(judge, limiter=self._judging)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def demand_signatures(app: App, verifier: Verifier, clock: Clock, *, unsigned: Collection[str] = ()) -> None:
    """Let `app` answer only requests that `verifier` accepts, each key within its rate.

    `unsigned` are the exact paths that need no signature; CORS preflights and fast paths never do.
    """
    free = frozenset(unsigned)

    def choose(scope: Scope) -> Verifier | None:
        return None if scope["path"] in free else verifier

    app.edge.put_behind(
        lambda inner: SignatureGate(
            inner, choose, clock=clock, surface=app.surface, metrics=app.metrics, use=app.limit_hotkey
        )
    )


def refusal(error: AuthError) -> ApiError:
    """Return the error for a request that failed verification."""
    headers = (("Retry-After", str(RETRY_AFTER_S)),) if error.code == "busy" else ()
    extra = {} if error.skew_ms is None else {"clock_skew_ms": error.skew_ms}
    return ApiError(_STATUS.get(error.code, 401), error.code, error.message, headers=headers, extra=extra)


_STATUS: Final = {"not_permitted": 403, "busy": 503}
