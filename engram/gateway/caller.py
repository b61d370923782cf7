"""Authenticates callers by the gateway's signature scheme, once per request, and signs the answers to them."""

import hashlib
from typing import Final

import msgspec

from engram.gateway.services import Services
from engram.hotkeys import AuthError, MalformedHotkey, PublicKey, answers, gateway_scheme, parse_hotkey
from engram.hotkeys.scheme import TIMESTAMP_MS
from engram.http.errors import ApiError
from engram.http.request import Answer, Request

DEV_HOTKEY: Final = hashlib.sha256(b"engram dev hotkey").digest()
"""Stands for callers without X-Hotkey where signature checks are switched off (loopback only)."""


class Caller(msgspec.Struct, frozen=True):
    """The verified caller of a request; not verified where signature checks are switched off."""

    public_key: PublicKey
    message: bytes
    """What was signed; random bytes where signatures are not checked."""
    signed_ms: int | None = None
    """The signature's timestamp, unix ms; None where signatures are not checked."""

    @property
    def message_sha256(self) -> bytes:
        """Together with `public_key`, identifies the signature where it may be used once."""
        return hashlib.sha256(self.message).digest()


def verify(services: Services, request: Request, refusal: str) -> Caller:
    """Return the signer of a request, and mark the request so that its answer is signed.

    `refusal` is the route's fixed 401 text. Raises ApiError 401.
    """
    if not services.settings.gateway.auth_required:
        return _trusted(services, request)
    now_ms = int(services.clock.now() * 1000)
    try:
        signed = gateway_scheme.verify_request(request.lines, request.method, request.raw_path, request.body, now_ms)
    except AuthError as refused:
        services.metrics.auth_refused.labels("gateway", refused.code).inc()
        extra: dict[str, object] = {"detail": refused.message}
        if refused.skew_ms is not None:
            extra["clock_skew_ms"] = refused.skew_ms
            # Clients set their clock by it, so it must be ours.
            request.signed_at = request.header(b"x-timestamp")
        raise ApiError(401, refused.code, refusal, extra=extra) from None
    request.signed_at = signed.timestamp
    return Caller(signed.public_key, signed.message, signed.timestamp_ms)


def replayed(services: Services) -> ApiError:
    """Return the refusal of a signed request that may be sent once and was sent again; it is counted."""
    services.metrics.auth_refused.labels("gateway", "replayed").inc()
    return ApiError(401, "replayed", "this signed request was received before; sign a new one")


def signed_answer(services: Services, request: Request, answer: Answer) -> Answer:
    """Sign the answer to a signed request; return other answers unchanged."""
    if request.signed_at is None:
        return answer
    signed = answers.sign_answer(services.keypair, answer.status, request.signed_at, answer.body)
    return Answer(answer.status, answer.body, (*answer.headers, *signed.items()), answer.media)


def _trusted(services: Services, request: Request) -> Caller:
    hotkey, timestamp = request.header(b"x-hotkey") or "", request.header(b"x-timestamp") or ""
    try:
        public_key = parse_hotkey(hotkey) if hotkey else DEV_HOTKEY
    except MalformedHotkey:
        public_key = hashlib.sha256(hotkey.encode("latin-1")).digest()
    request.signed_at = timestamp if TIMESTAMP_MS.match(timestamp) else None
    return Caller(public_key, bytes.fromhex(services.ids.token(32)))
