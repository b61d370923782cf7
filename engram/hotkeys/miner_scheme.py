"""How requests to a memory miner are signed: by fields of their own JSON body.

Network signature: `hotkey` (SS58), `nonce` (integer, unix milliseconds), `signature` (hex, 0x optional) over the UTF-8
message `{nonce}:{endpoint}:{body_hash}`; `endpoint` is the route's name without its slash (`IngestSynapse`); body_hash
is the sha256 in hex of the canonical JSON (python_json.py) of the body without these three fields. Window ±30 s.

Namespace signature: `namespace`, `namespace_hotkey` (SS58), `namespace_sig`, `namespace_timestamp_ms` over
`engram-ns:{namespace}:{timestamp_ms}`; window ±60 s. Attestation: the same form over `engram-attest:…`.

Version 2 of it, marked by `namespace_sig_version: 2`, holds for one request only: it is over
`engram-ns-2:{endpoint}:{namespace}:{timestamp_ms}:{body_hash}`, the hash being that of the body without namespace and
signing fields. A body that names a receiver (`signed_for`) is bound to it, since both hashes cover that field.

Otherwise nothing binds the receiving miner: callers add `not_before_ms` and a replay guard (replay_guard.py).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from engram.hotkeys.errors import AuthError
from engram.hotkeys.keypair import Keypair
from engram.hotkeys.python_json import (
    JsonObject,
    JsonValue,
    MalformedJson,
    ReadObject,
    canonical,
)
from engram.hotkeys.scheme import Part, Scheme, Signable, SignedRequest, sign_fields, verify_fields
from engram.hotkeys.ss58 import decode

WINDOW_MS: Final = 30_000
NAMESPACE_WINDOW_MS: Final = 60_000
SIGNING_FIELDS: Final = frozenset({"hotkey", "nonce", "signature"})
NAMESPACE_FIELDS: Final = frozenset({"namespace_hotkey", "namespace_sig", "namespace_timestamp_ms"})
NAMESPACE_VERSION: Final = "namespace_sig_version"
SIGNED_FOR: Final = "signed_for"
"""Body field that names the one miner (SS58) for which a request is meant."""
_NAMESPACE_UNSIGNED: Final = SIGNING_FIELDS | NAMESPACE_FIELDS | {NAMESPACE_VERSION}


class SignedBody(msgspec.Struct, frozen=True):
    """A body and who signed it."""

    request: SignedRequest
    fields: JsonObject
    """The whole object, signing fields included."""


def is_signed(fields: Mapping[str, JsonValue]) -> bool:
    """Whether the body carries any signing field: if so it is verified, never believed."""
    return any(fields.get(name) is not None for name in SIGNING_FIELDS)


def verify_read_body(read: ReadObject, endpoint: str, now_ms: int, not_before_ms: int = 0) -> SignedRequest:
    """As `verify_body`, for a body that was read already. Raises AuthError."""
    return verify_fields(BODY, read, raw_path=endpoint.encode(), now_ms=now_ms, not_before_ms=not_before_ms)


def verify_body(
    body_bytes: bytes, endpoint: str, now_ms: int, not_before_ms: int = 0, *, window_ms: int = WINDOW_MS
) -> SignedBody:
    """Return the object in `body_bytes` and who signed it for `endpoint`.

    Raises AuthError: malformed for anything that is no unambiguous JSON object (python_json.py), missing_header when
    a signing field is absent, stale, future or before_start for its nonce, bad_signature.
    """
    try:
        read = ReadObject(body_bytes)
    except MalformedJson as error:
        raise AuthError("malformed", str(error)) from None
    scheme = BODY if window_ms == WINDOW_MS else msgspec.structs.replace(BODY, past_ms=window_ms, future_ms=window_ms)
    request = verify_fields(scheme, read, raw_path=endpoint.encode(), now_ms=now_ms, not_before_ms=not_before_ms)
    return SignedBody(request, read.fields)


def sign_body(keypair: Keypair, endpoint: str, fields: Mapping[str, JsonValue], now_ms: int) -> JsonObject:
    """Return `fields` with the three signing fields that `verify_body` and the original miner accept.

    Raises ValueError for NaN and Infinity, MalformedJson for nesting deeper than MAX_DEPTH: no miner reads those.
    """
    unsigned = {key: value for key, value in fields.items() if key not in SIGNING_FIELDS}
    text = canonical(unsigned)
    return sign_fields(BODY, keypair, unsigned, raw_path=endpoint.encode(), body=text, now_ns=now_ms * 1_000_000)


def signed_body(keypair: Keypair, endpoint: str, fields: Mapping[str, JsonValue], now_ms: int) -> bytes:
    """Return the body that `sign_body` describes as the SDK sends it, for callers who sign thousands of vectors.

    `fields` must hold none of the signing fields. Raises ValueError and MalformedJson as `sign_body`.
    """
    text = msgspec.json.encode(fields)
    digest = hashlib.sha256(canonical(dict(fields))).hexdigest()
    signature = keypair.sign(f"{now_ms}:{endpoint}:{digest}".encode()).hex()
    signing = f'"hotkey":"{keypair.ss58}","nonce":{now_ms},"signature":"0x{signature}"}}'
    return text[:-1] + (b"," if len(text) > 2 else b"") + signing.encode("ascii")


def verify_namespace(fields: Mapping[str, JsonValue], now_ms: int, not_before_ms: int = 0) -> SignedRequest:
    """Return who signed for the namespace named in `fields`. Raises AuthError."""
    return verify_fields(NAMESPACE, fields, now_ms=now_ms, not_before_ms=not_before_ms)


def sign_namespace(keypair: Keypair, namespace: str, now_ms: int) -> JsonObject:
    """Return the four body fields that sign for `namespace`."""
    return sign_fields(NAMESPACE, keypair, {"namespace": namespace}, now_ns=now_ms * 1_000_000)


def sign_namespace_request(
    keypair: Keypair, endpoint: str, namespace: str, fields: Mapping[str, JsonValue], now_ms: int
) -> JsonObject:
    """Return `fields` with a namespace signature of version 2: good for this endpoint, namespace and body alone.

    Raises as `sign_body`.
    """
    named = {key: value for key, value in fields.items() if key not in _NAMESPACE_UNSIGNED} | {"namespace": namespace}
    return sign_fields(
        NAMESPACE_REQUEST,
        keypair,
        named,
        raw_path=endpoint.encode(),
        body=canonical(named),
        now_ns=now_ms * 1_000_000,
    )


def verify_namespace_request(read: ReadObject, endpoint: str, now_ms: int, not_before_ms: int = 0) -> SignedRequest:
    """Return who signed version 2 for the namespace, endpoint and body. Raises AuthError.

    Whom a `signed_for` in the body names is the caller's to check; the signature covers it.
    """
    return verify_fields(
        NAMESPACE_REQUEST, read, raw_path=endpoint.encode(), now_ms=now_ms, not_before_ms=not_before_ms
    )


def verify_attestation(fields: Mapping[str, JsonValue], now_ms: int, not_before_ms: int = 0) -> SignedRequest:
    """Return who attests for the namespace named in `fields` (`owner_hotkey`, `signature`, `timestamp_ms`).

    Raises AuthError.
    """
    return verify_fields(ATTESTATION, fields, now_ms=now_ms, not_before_ms=not_before_ms)


def sign_attestation(keypair: Keypair, namespace: str, now_ms: int) -> JsonObject:
    """Return the body of an attestation of `namespace`."""
    return sign_fields(ATTESTATION, keypair, {"namespace": namespace}, now_ns=now_ms * 1_000_000)


def _body_messages(parts: Signable) -> Iterator[bytes]:
    for text in _read(parts).canonical_forms(without=SIGNING_FIELDS):
        yield b"%s:%s:%s" % (parts.timestamp.encode(), parts.raw_path, hashlib.sha256(text).hexdigest().encode())


def _name_messages(purpose: str) -> Callable[[Signable], Iterator[bytes]]:
    def messages(parts: Signable) -> Iterator[bytes]:
        yield f"{purpose}:{_namespace(parts)}:{parts.timestamp}".encode()

    return messages


def _namespace_request_messages(parts: Signable) -> Iterator[bytes]:
    namespace, endpoint = _namespace(parts), parts.raw_path.decode()
    for text in _read(parts).canonical_forms(without=_NAMESPACE_UNSIGNED):
        digest = hashlib.sha256(text).hexdigest()
        yield f"engram-ns-2:{endpoint}:{namespace}:{parts.timestamp}:{digest}".encode()


def _read(parts: Signable) -> ReadObject:
    return parts.read or ReadObject(parts.body)


def _namespace(parts: Signable) -> str:
    namespace = parts.fields.get("namespace")
    if not isinstance(namespace, str) or not namespace or not _is_utf8(namespace):
        raise AuthError("malformed", "namespace is not a name")
    return namespace


def _is_utf8(text: str) -> bool:
    """Return False for lone surrogates, which JSON can spell and UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


_SIGNING: Final[frozenset[Part]] = frozenset({"hotkey", "timestamp", "signature"})

BODY: Final = Scheme(
    name="miner body",
    fields={"hotkey": "hotkey", "nonce": "timestamp", "signature": "signature"},
    required=_SIGNING,
    integers=frozenset({"timestamp"}),
    messages=_body_messages,
    past_ms=WINDOW_MS,
    future_ms=WINDOW_MS,
    hotkey=decode,
    versions=("1",),
    signs_0x=True,
)
"""`raw_path` is the endpoint's name."""

NAMESPACE: Final = Scheme(
    name="namespace",
    fields={"namespace_hotkey": "hotkey", "namespace_timestamp_ms": "timestamp", "namespace_sig": "signature"},
    required=_SIGNING,
    integers=frozenset({"timestamp"}),
    messages=_name_messages("engram-ns"),
    past_ms=NAMESPACE_WINDOW_MS,
    future_ms=NAMESPACE_WINDOW_MS,
    hotkey=decode,
    versions=("1",),
    signs_0x=True,
)

NAMESPACE_REQUEST: Final = Scheme(
    name="namespace request",
    fields={**NAMESPACE.fields, NAMESPACE_VERSION: "version"},
    required=_SIGNING,
    integers=frozenset({"timestamp", "version"}),
    messages=_namespace_request_messages,
    past_ms=NAMESPACE_WINDOW_MS,
    future_ms=NAMESPACE_WINDOW_MS,
    hotkey=decode,
    versions=("2",),
    signs_0x=True,
)
"""`raw_path` is the endpoint's name."""

ATTESTATION: Final = msgspec.structs.replace(
    NAMESPACE,
    name="attestation",
    fields={"owner_hotkey": "hotkey", "timestamp_ms": "timestamp", "signature": "signature"},
    messages=_name_messages("engram-attest"),
)
