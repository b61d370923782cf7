"""What is answered to a request that is not believed: the ending, and the text that clients of the original read."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from engram.hotkeys import AuthError
from engram.proxy.authorization import Refuses
from engram.proxy.exchange.refusing import Refusal

_ENDINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "signed_for_mismatch": "wrong_receiver",
        "stale": "clock_skew",
        "future": "clock_skew",
        "before_start": "clock_skew",
        "bad_signature": "bad_signature",
        "replay": "replay",
        "busy": "replays_full",
    }
)
"""Endings by the code of the error; `unsigned` for all others."""

_DIPPY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing_header": "Missing Epistula authentication headers",
        "duplicate_header": "Missing Epistula authentication headers",
        "malformed": "Invalid Signature Format",
        "bad_version": "Unable to process authentication headers",
        "signed_for_missing": "Missing Epistula authentication headers",
        "signed_for_mismatch": "Invalid signed_for address",
        "stale": "Request is too stale",
        "future": "Invalid Timestamp",
        "before_start": "Request is too stale",
        "bad_signature": "Signature Mismatch",
        "replay": "Request was received before",
        "busy": "Authentication service not available",
    }
)
_X_EPISTULA: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing_header": "Missing Epistula headers",
        "stale": "Timestamp too old",
        "future": "Timestamp too old",
        "before_start": "Timestamp too old",
        "malformed": "Invalid signature",
        "bad_signature": "Signature verification failed",
    }
)
_NOT_A_VALIDATOR: Final = frozenset({"no_authority", "no_permit", "not_registered", "stake_too_low"})
RETRY_AFTER_S: Final = 5.0


def unbelieved(error: AuthError, *, x_epistula: bool, bare: bool) -> Refusal:
    """Return the refusal for an AuthError; `x_epistula`: the request has that scheme's headers, `bare`: no scheme's."""
    texts = {**_DIPPY, **_X_EPISTULA} if x_epistula else _DIPPY
    detail = texts.get(error.code, "Unable to process authentication headers")
    if error.code == "malformed" and not x_epistula:
        detail = _malformed(error.message)
    if bare:
        detail = "Authorization header required"
    extra = {} if error.skew_ms is None else {"clock_skew_ms": error.skew_ms}
    code = _ENDINGS.get(error.code, "unsigned")
    retry_after_s = RETRY_AFTER_S if error.code == "busy" else None
    return Refusal(code, detail, reason=error.code, message=error.message, extra=extra, retry_after_s=retry_after_s)


def _malformed(message: str) -> str:
    """Return the original's text for a malformed value, by the header that it is in."""
    lower = message.lower()
    if "start with" in lower:
        return "Invalid authorization scheme"
    if "timestamp" in lower:
        return "Invalid Timestamp"
    if "signed-for" in lower:
        return "Invalid signed_for address"
    if "signed-by" in lower or "hotkey" in lower:
        return "Invalid Keypair"
    if "another signature" in lower:
        return "Authorization signature mismatch"
    return "Invalid Signature Format"


def unauthorized(refused: Refuses, *, x_epistula: bool) -> Refusal:
    """Return the refusal for a caller that may not call."""
    if refused.status == 503:
        return Refusal(
            "chain_stale",
            "Authentication service not available",
            reason=refused.reason,
            message=refused.message,
            extra=refused.extra,
            retry_after_s=RETRY_AFTER_S,
        )
    detail = "Not a validator" if x_epistula and refused.reason in _NOT_A_VALIDATOR else "Sender not allowed"
    return Refusal("refused", detail, reason=refused.reason, message=refused.message, extra=refused.extra)
