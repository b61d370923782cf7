"""One verifier for every scheme that signs HTTP requests with headers; a scheme is a table.

The order of the checks is part of the contract, cheap before dear: exactly one of each header, the version, strict
forms, the receiver, the time window (past and future), and last the signature (42 µs, twice that for a wrong one).
Who may call at all, rates and replays are the caller's: `SignedRequest.public_key` and `message_sha256` are their keys.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

import msgspec

from engram.hotkeys.errors import AuthError, MalformedHotkey
from engram.hotkeys.keypair import verify
from engram.hotkeys.ss58 import PublicKey, decode, encode, parse_hotkey

Headers: TypeAlias = Iterable[tuple[bytes, bytes]] | Iterable[tuple[str, str]]
"""Header lines in the order received, repetitions included (an ASGI scope's `headers`, or a dict's items())."""

Part = Literal["hotkey", "timestamp", "signature", "version", "uuid", "receiver"]

SIGNATURE = re.compile(r"(?:0x)?([0-9a-fA-F]{128})\Z")
SIGNATURE_0X = re.compile(r"0x([0-9a-fA-F]{128})\Z")
TIMESTAMP_MS = re.compile(r"[1-9][0-9]{9,12}\Z")
TIMESTAMP_NS = re.compile(r"[1-9][0-9]{15,18}\Z")
UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\Z")


class Signable(msgspec.Struct, frozen=True):
    """What a scheme's message is made of."""

    method: str
    raw_path: bytes
    """The path's bytes as sent, without the query."""
    body: bytes
    timestamp: str
    """As spelled in the header."""
    version: int
    hotkey: str
    uuid: str = ""
    receiver: str = ""


class Scheme(msgspec.Struct, frozen=True):
    """A request signing scheme as a table."""

    name: str
    headers: dict[str, Part]
    """Lower-case header name -> what it carries."""
    required: frozenset[Part]
    message: Callable[[Signable], bytes]
    past_ms: int
    """How old a request may be; exactly this old passes."""
    future_ms: int
    """How far ahead of our clock a request may be stamped."""
    timestamp: re.Pattern[str] = TIMESTAMP_MS
    ticks_per_ms: int = 1
    signature: re.Pattern[str] = SIGNATURE
    hotkey: Callable[[str], PublicKey] = parse_hotkey
    versions: tuple[str, ...] = ()
    """Accepted values of the version header; absent means the first."""
    allow_wrapped: bool = True
    prefixes: dict[Part, str] = {}
    """Text that a value must start with and that is no part of it (an Authorization scheme)."""


class SignedRequest(msgspec.Struct, frozen=True):
    """A request whose signature holds."""

    public_key: PublicKey
    timestamp_ms: int
    version: int
    message_sha256: bytes
    """sha256 of the signed message: with `public_key` the key of replay guards, whatever a header's spelling."""
    skew_ms: int = 0
    """The sender's timestamp minus our clock."""
    uuid: str = ""
    receiver: PublicKey | None = None

    @property
    def hotkey(self) -> str:
        """The sender's SS58 address."""
        return encode(self.public_key)


def verify_signed(
    scheme: Scheme,
    headers: Headers,
    *,
    method: str,
    raw_path: bytes,
    body: bytes,
    now_ms: int,
    self_key: PublicKey | None = None,
    not_before_ms: int = 0,
) -> SignedRequest:
    """Return who signed the request under `scheme`.

    `self_key` is the receiver's own key, for schemes that name one. Requests stamped before `not_before_ms` are
    refused: it is how a replay guard without a memory survives a restart. Raises AuthError.
    """
    values = _one_of_each(scheme, headers)
    version = _version(scheme, values)
    timestamp = values["timestamp"]
    if scheme.timestamp.match(timestamp) is None:
        raise AuthError("malformed", f"{_name(scheme, 'timestamp')} is not a timestamp of the right unit and length")
    timestamp_ms = int(timestamp) // scheme.ticks_per_ms
    skew_ms = timestamp_ms - now_ms
    if (signature := scheme.signature.match(values["signature"])) is None:
        raise AuthError("malformed", f"{_name(scheme, 'signature')} is not 128 hex digits", skew_ms)
    try:
        public_key = scheme.hotkey(values["hotkey"])
    except MalformedHotkey as error:
        raise AuthError("malformed", f"{_name(scheme, 'hotkey')}: {error}", skew_ms) from None
    uuid = values.get("uuid", "")
    if uuid and UUID.match(uuid) is None:
        raise AuthError("malformed", f"{_name(scheme, 'uuid')} is not a UUID", skew_ms)
    receiver = _receiver(scheme, values, self_key, skew_ms)
    check_window(timestamp_ms, now_ms, past_ms=scheme.past_ms, future_ms=scheme.future_ms, not_before_ms=not_before_ms)
    message = scheme.message(
        Signable(
            method=method,
            raw_path=raw_path,
            body=body,
            timestamp=timestamp,
            version=version,
            hotkey=values["hotkey"],
            uuid=uuid,
            receiver=values.get("receiver", ""),
        )
    )
    if not verify(public_key, message, bytes.fromhex(signature.group(1)), allow_wrapped=scheme.allow_wrapped):
        raise AuthError("bad_signature", f"the signature is not this hotkey's over this {scheme.name} request", skew_ms)
    return SignedRequest(
        public_key=public_key,
        timestamp_ms=timestamp_ms,
        version=version,
        message_sha256=hashlib.sha256(message).digest(),
        skew_ms=skew_ms,
        uuid=uuid,
        receiver=receiver,
    )


def check_window(timestamp_ms: int, now_ms: int, *, past_ms: int, future_ms: int, not_before_ms: int = 0) -> None:
    """Raise AuthError (stale, future, before_start) unless the timestamp is inside the window; bounds pass."""
    skew_ms = timestamp_ms - now_ms
    if skew_ms < -past_ms:
        raise AuthError("stale", _skew_text(skew_ms, past_ms), skew_ms)
    if skew_ms > future_ms:
        raise AuthError("future", _skew_text(skew_ms, future_ms), skew_ms)
    if timestamp_ms < not_before_ms:
        raise AuthError("before_start", "the request is older than this server's start; sign it again", skew_ms)


def _skew_text(skew_ms: int, allowed_ms: int) -> str:
    side = "behind" if skew_ms < 0 else "ahead of"
    return (
        f"the request's timestamp is {abs(skew_ms) / 1000:.3f} s {side} the server's clock "
        f"({allowed_ms / 1000:g} s allowed): check the clock and sign again"
    )


def _one_of_each(scheme: Scheme, headers: Headers) -> dict[Part, str]:
    values: dict[Part, str] = {}
    parts = scheme.headers
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1") if isinstance(raw_name, bytes) else raw_name
        part = parts.get(name.lower())
        if part is None:
            continue
        if part in values:
            raise AuthError("duplicate_header", f"{name} was sent more than once")
        value = raw_value.decode("latin-1") if isinstance(raw_value, bytes) else raw_value
        if (prefix := scheme.prefixes.get(part)) is not None:
            if not value.startswith(prefix):
                raise AuthError("malformed", f"{name} does not start with {prefix!r}")
            value = value.removeprefix(prefix)
        values[part] = value
    for part in scheme.required:
        if not values.get(part):
            code = "signed_for_missing" if part == "receiver" else "missing_header"
            raise AuthError(code, f"{_name(scheme, part)} is missing")
    return values


def _version(scheme: Scheme, values: dict[Part, str]) -> int:
    if not scheme.versions:
        return 0
    version = values.get("version", scheme.versions[0])
    if version not in scheme.versions:
        known = " or ".join(scheme.versions)
        raise AuthError("bad_version", f"{_name(scheme, 'version')} must be {known}")
    return int(version)


def _receiver(scheme: Scheme, values: dict[Part, str], self_key: PublicKey | None, skew_ms: int) -> PublicKey | None:
    text = values.get("receiver")
    if not text:
        return None
    try:
        receiver = decode(text)
    except MalformedHotkey as error:
        raise AuthError("malformed", f"{_name(scheme, 'receiver')}: {error}", skew_ms) from None
    if receiver != self_key:
        raise AuthError("signed_for_mismatch", "the request was signed for another receiver", skew_ms)
    return receiver


def _name(scheme: Scheme, part: Part) -> str:
    names = [name for name, carried in scheme.headers.items() if carried == part]
    return "/".join("-".join(word.capitalize() for word in name.split("-")) for name in names) or part
