"""How requests to a memory miner are signed: by fields of their own JSON body.

Network signature: `hotkey` (SS58), `nonce` (integer, unix milliseconds), `signature` (hex, 0x optional) over the UTF-8
message `{nonce}:{endpoint}:{body_hash}`; `endpoint` is the route's name without its slash (`IngestSynapse`); body_hash
is the sha256 in hex of the canonical JSON (python_json.py) of the body without these three fields. Window ±30 s.

Namespace signature: `namespace`, `namespace_hotkey` (SS58), `namespace_sig`, `namespace_timestamp_ms` over
`engram-ns:{namespace}:{timestamp_ms}`; window ±60 s. Attestation: the same form over `engram-attest:…`.

Neither binds the receiving miner: callers add `not_before_ms` and a replay guard on `message_sha256`.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

from engram.hotkeys.errors import AuthError, MalformedHotkey
from engram.hotkeys.keypair import Keypair, verify
from engram.hotkeys.python_json import (
    JsonObject,
    JsonValue,
    MalformedJson,
    canonical,
    canonical_forms,
    parse_object,
)
from engram.hotkeys.scheme import SIGNATURE, SignedRequest, check_window
from engram.hotkeys.ss58 import PublicKey, decode

WINDOW_MS: Final = 30_000
NAMESPACE_WINDOW_MS: Final = 60_000
SIGNING_FIELDS: Final = frozenset({"hotkey", "nonce", "signature"})
NAMESPACE_FIELDS: Final = frozenset({"namespace_hotkey", "namespace_sig", "namespace_timestamp_ms"})
_MAX_MS: Final = 9_999_999_999_999


class SignedBody(msgspec.Struct, frozen=True):
    """A body and who signed it."""

    request: SignedRequest
    fields: JsonObject
    """The whole object, signing fields included."""


class _Claim(msgspec.Struct, frozen=True):
    public_key: PublicKey
    timestamp_ms: int
    signature: bytes


def is_signed(fields: Mapping[str, JsonValue]) -> bool:
    """Whether the body carries any signing field: if so it is verified, never believed."""
    return any(fields.get(name) is not None for name in SIGNING_FIELDS)


def verify_body(
    body_bytes: bytes, endpoint: str, now_ms: int, not_before_ms: int = 0, *, window_ms: int = WINDOW_MS
) -> SignedBody:
    """Return the object in `body_bytes` and who signed it for `endpoint`.

    Raises AuthError: malformed for anything that is no unambiguous JSON object (python_json.py), missing_header when
    a signing field is absent, stale, future or before_start for its nonce, bad_signature.
    """
    try:
        fields = parse_object(body_bytes)
    except MalformedJson as error:
        raise AuthError("malformed", str(error)) from None
    claim = _claim(fields, hotkey="hotkey", timestamp="nonce", signature="signature", now_ms=now_ms)
    check_window(claim.timestamp_ms, now_ms, past_ms=window_ms, future_ms=window_ms, not_before_ms=not_before_ms)
    for text in canonical_forms(body_bytes, without=SIGNING_FIELDS):
        message = _body_message(claim.timestamp_ms, endpoint, text)
        if verify(claim.public_key, message, claim.signature):
            return SignedBody(_believed(claim, message, now_ms), fields)
    raise AuthError(
        "bad_signature", f"the signature is not this hotkey's over this {endpoint} body", claim.timestamp_ms - now_ms
    )


def sign_body(keypair: Keypair, endpoint: str, fields: Mapping[str, JsonValue], now_ms: int) -> JsonObject:
    """Return `fields` with the three signing fields that `verify_body` and the original miner accept."""
    unsigned = {key: value for key, value in fields.items() if key not in SIGNING_FIELDS}
    signature = keypair.sign(_body_message(now_ms, endpoint, canonical(unsigned)))
    return unsigned | {"hotkey": keypair.ss58, "nonce": now_ms, "signature": "0x" + signature.hex()}


def verify_namespace(fields: Mapping[str, JsonValue], now_ms: int, not_before_ms: int = 0) -> SignedRequest:
    """Return who signed for the namespace named in `fields`. Raises AuthError."""
    return _verify_name(
        "engram-ns", fields, now_ms, not_before_ms, "namespace_hotkey", "namespace_timestamp_ms", "namespace_sig"
    )


def sign_namespace(keypair: Keypair, namespace: str, now_ms: int) -> JsonObject:
    """Return the four body fields that sign for `namespace`."""
    signature = keypair.sign(_name_message("engram-ns", namespace, now_ms))
    return {
        "namespace": namespace,
        "namespace_hotkey": keypair.ss58,
        "namespace_sig": "0x" + signature.hex(),
        "namespace_timestamp_ms": now_ms,
    }


def verify_attestation(fields: Mapping[str, JsonValue], now_ms: int, not_before_ms: int = 0) -> SignedRequest:
    """Return who attests for the namespace named in `fields` (`owner_hotkey`, `signature`, `timestamp_ms`).

    Raises AuthError.
    """
    return _verify_name("engram-attest", fields, now_ms, not_before_ms, "owner_hotkey", "timestamp_ms", "signature")


def sign_attestation(keypair: Keypair, namespace: str, now_ms: int) -> JsonObject:
    """Return the body of an attestation of `namespace`."""
    signature = keypair.sign(_name_message("engram-attest", namespace, now_ms))
    return {
        "namespace": namespace,
        "owner_hotkey": keypair.ss58,
        "signature": "0x" + signature.hex(),
        "timestamp_ms": now_ms,
    }


def _verify_name(
    purpose: str,
    fields: Mapping[str, JsonValue],
    now_ms: int,
    not_before_ms: int,
    hotkey: str,
    timestamp: str,
    signature: str,
) -> SignedRequest:
    namespace = fields.get("namespace")
    if not isinstance(namespace, str) or not namespace or not _is_utf8(namespace):
        raise AuthError("malformed", "namespace is not a name")
    claim = _claim(fields, hotkey=hotkey, timestamp=timestamp, signature=signature, now_ms=now_ms)
    check_window(
        claim.timestamp_ms,
        now_ms,
        past_ms=NAMESPACE_WINDOW_MS,
        future_ms=NAMESPACE_WINDOW_MS,
        not_before_ms=not_before_ms,
    )
    message = _name_message(purpose, namespace, claim.timestamp_ms)
    if not verify(claim.public_key, message, claim.signature):
        skew_ms = claim.timestamp_ms - now_ms
        raise AuthError("bad_signature", f"{signature} is not this hotkey's over this namespace", skew_ms)
    return _believed(claim, message, now_ms)


def _claim(fields: Mapping[str, JsonValue], *, hotkey: str, timestamp: str, signature: str, now_ms: int) -> _Claim:
    for name in (hotkey, timestamp, signature):
        if fields.get(name) in (None, ""):
            raise AuthError("missing_header", f"{name} is missing from the body")
    stamped = fields[timestamp]
    if not isinstance(stamped, int) or isinstance(stamped, bool) or not 0 < stamped <= _MAX_MS:
        raise AuthError("malformed", f"{timestamp} is not an integer of unix milliseconds")
    text, digits = fields[hotkey], fields[signature]
    matched = SIGNATURE.match(digits) if isinstance(digits, str) else None
    if matched is None:
        raise AuthError("malformed", f"{signature} is not 128 hex digits", stamped - now_ms)
    try:
        public_key = decode(text if isinstance(text, str) else "")
    except MalformedHotkey as error:
        raise AuthError("malformed", f"{hotkey}: {error}", stamped - now_ms) from None
    return _Claim(public_key=public_key, timestamp_ms=stamped, signature=bytes.fromhex(matched.group(1)))


def _believed(claim: _Claim, message: bytes, now_ms: int) -> SignedRequest:
    return SignedRequest(
        public_key=claim.public_key,
        timestamp_ms=claim.timestamp_ms,
        version=1,
        message_sha256=hashlib.sha256(message).digest(),
        skew_ms=claim.timestamp_ms - now_ms,
    )


def _body_message(nonce_ms: int, endpoint: str, canonical_text: bytes) -> bytes:
    return f"{nonce_ms}:{endpoint}:{hashlib.sha256(canonical_text).hexdigest()}".encode()


def _is_utf8(text: str) -> bool:
    """False for lone surrogates, which JSON can spell and UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _name_message(purpose: str, namespace: str, timestamp_ms: int) -> bytes:
    return f"{purpose}:{namespace}:{timestamp_ms}".encode()
