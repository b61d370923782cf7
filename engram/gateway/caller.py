"""Who is asking: the gateway scheme checked once per request, and the answer signed in return."""

import hashlib
from collections.abc import Callable
from typing import Final, cast

import msgspec
from quart import Response, current_app, g
from quart import request as quart_request

from engram.gateway.replies import body_bytes
from engram.gateway.services import Services
from engram.hotkeys import AuthError, MalformedHotkey, PublicKey, answers, gateway_scheme, parse_hotkey
from engram.hotkeys.replay_guard import SingleUse
from engram.hotkeys.scheme import TIMESTAMP_MS, Headers
from engram.http.app import App
from engram.http.direct import Answer, Request
from engram.http.errors import ApiError

DEV_HOTKEY: Final = hashlib.sha256(b"engram dev hotkey").digest()
"""Who asks without X-Hotkey where signature checks are switched off (loopback only)."""
BUSY_RETRY_S: Final = 5


class Caller(msgspec.Struct, frozen=True):
    """A request whose signature holds (or need not)."""

    public_key: PublicKey
    message_sha256: bytes
    """With `public_key` the key of the replay guard."""
    signed_ms: int | None = None
    """The signature's stamp, unix ms; None where signatures are not checked."""


def raw_path() -> bytes:
    """The path's bytes as sent, without the query."""
    return bytes(quart_request.scope["raw_path"]).partition(b"?")[0]


def header_lines() -> list[tuple[bytes, bytes]]:
    """The request's header lines in the order received."""
    return list(quart_request.scope["headers"])


class Identified(msgspec.Struct, frozen=True):
    """Who asks, and the stamp that the answer's signature answers to (None: the answer goes out unsigned)."""

    caller: Caller
    signed_at: str | None


def authenticate(
    services: Services,
    lines: Headers,
    method: str,
    path: bytes,
    body: bytes,
    limit: Callable[[PublicKey], None],
    refusal: str = "Unauthorized.",
) -> Identified:
    """Return who signed a request, whatever it came through; `path` is raw and without query.

    `refusal` is the route's fixed 401 text; `limit` counts a request of this hotkey. Raises ApiError 401, or what
    `limit` raises.
    """
    identified = (
        _verified(services, lines, method, path, body, refusal)
        if services.settings.gateway.auth_required
        else _trusted(services, lines)
    )
    limit(identified.caller.public_key)
    return identified


def identify_request(services: Services, request: Request, refusal: str = "Unauthorized.") -> Caller:
    """Return who signed a request, and note that its answer is to be signed. Raises as `authenticate`."""
    identified = authenticate(
        services,
        request.lines,
        request.method,
        request.raw_path,
        request.body,
        request.surface.limit_hotkey,
        refusal,
    )
    request.signed_at = identified.signed_at
    return identified.caller


async def identify(services: Services, refusal: str = "Unauthorized.") -> Caller:
    """Return who signed the request that Quart now handles, and note that its answer is to be signed.

    `refusal` is the route's fixed 401 text. Raises ApiError 401, or 429 above the hotkey's rate.
    """
    app = cast(App, current_app)
    identified = authenticate(
        services, header_lines(), quart_request.method, raw_path(), await body_bytes(), app.limit_hotkey, refusal
    )
    if identified.signed_at is not None:
        g.signed_at = identified.signed_at
    return identified.caller


def _verified(services: Services, lines: Headers, method: str, path: bytes, body: bytes, refusal: str) -> Identified:
    now_ms = int(services.clock.now() * 1000)
    try:
        signed = gateway_scheme.verify_request(lines, method, path, body, now_ms)
    except AuthError as refused:
        services.metrics.auth_refused.labels("gateway", refused.code).inc()
        extra: dict[str, object] = {"detail": refused.message}
        if refused.skew_ms is not None:
            extra["clock_skew_ms"] = refused.skew_ms
        raise ApiError(401, refused.code, refusal, extra=extra) from None
    caller = Caller(signed.public_key, signed.message_sha256, signed.timestamp_ms)
    return Identified(caller, _header(lines, b"x-timestamp"))


def _header(lines: Headers, name: bytes) -> str:
    found = next((value for each, value in lines if each == name), b"")
    return found if isinstance(found, str) else found.decode("latin-1")


def consume_signature(services: Services, guard: SingleUse, caller: Caller) -> None:
    """Accept the signature of this request for the last time.

    Raises ApiError: 401 `replayed`, `before_start` or `stale`, 503 `busy` when no more can be remembered.
    """
    if caller.signed_ms is None:
        return
    now_ms = int(services.clock.now() * 1000)
    try:
        guard.accept(caller.public_key, caller.message_sha256, caller.signed_ms, now_ms=now_ms)
    except AuthError as refused:
        code = "replayed" if refused.code == "replay" else refused.code
        services.metrics.auth_refused.labels("gateway", code).inc()
        if code == "busy":
            raise ApiError(503, code, refused.message, headers=(("Retry-After", str(BUSY_RETRY_S)),)) from None
        extra = {} if refused.skew_ms is None else {"clock_skew_ms": refused.skew_ms}
        raise ApiError(401, code, refused.message, extra=extra) from None


def _trusted(services: Services, lines: Headers) -> Identified:
    hotkey = _header(lines, b"x-hotkey")
    try:
        public_key = parse_hotkey(hotkey) if hotkey else DEV_HOTKEY
    except MalformedHotkey:
        public_key = hashlib.sha256(hotkey.encode("latin-1")).digest()
    timestamp = _header(lines, b"x-timestamp")
    caller = Caller(public_key, bytes.fromhex(services.ids.token(32)))
    return Identified(caller, timestamp if TIMESTAMP_MS.match(timestamp) else None)


def leave_unsigned() -> None:
    """Let the answer to the request now handled go out as it is: a stream has no body to sign beforehand."""
    g.pop("signed_at", None)


def signed_answer(services: Services, request: Request, answer: Answer) -> Answer:
    """Sign the answer to a signed request; answers to strangers go out as they are."""
    if request.signed_at is None:
        return answer
    signed = answers.sign_answer(services.keypair, answer.status, request.signed_at, answer.body)
    return Answer(answer.status, answer.body, (*answer.headers, *signed.items()))


async def sign(services: Services, response: Response) -> Response:
    """Sign the answer to a signed request; answers to strangers go out as they are."""
    signed_at: str | None = g.get("signed_at")
    if signed_at is None:
        return response
    body = await response.get_data(as_text=False)
    assert isinstance(body, bytes)
    for name, value in answers.sign_answer(services.keypair, response.status_code, signed_at, body).items():
        response.headers[name] = value
    return response
