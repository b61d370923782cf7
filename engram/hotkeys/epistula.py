"""Epistula and its dialects: how validators sign requests to miners, as tables.

    V2          {sha256hex(body)}.{uuid}.{timestamp}.{signed_for}     ms
    DIPPY       the same message; the signature stands in Authorization
    APEX        {sha256hex(body)}.{timestamp}.{signed_for}            ms, no uuid
    X_EPISTULA  {timestamp}.{sha256hex(body)}                         ns, no receiver
    V1, HONE    the raw body, which carries nonce, sender and receiver   ns

The tables are strict: a receiver is required wherever the dialect has one, since a request that names none can be
passed on to another miner; the originals' unbounded future is bounded. What the originals also take is in LENIENT of
profiles.py. None covers method or path: only a replay guard keeps a request from being sent to a second path.
Source: epistula.sybil.com/protocol, and the originals' code where it differs.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from typing import Final

import msgspec

from engram.hotkeys import content_digest
from engram.hotkeys.errors import AuthError
from engram.hotkeys.keypair import Keypair
from engram.hotkeys.python_json import JsonValue, MalformedJson, parse_object
from engram.hotkeys.scheme import (
    NANOSECONDS,
    SIGNATURE,
    SIGNATURE_0X,
    Headers,
    Scheme,
    Signable,
    SignedRequest,
    sign_headers,
    verify_signed,
)
from engram.hotkeys.ss58 import PublicKey, decode, encode

PAST_MS: Final = 8_000
FUTURE_MS: Final = 2_000


def sign_v1(
    keypair: Keypair, content: JsonValue, *, now_ns: int, receiver: PublicKey | None = None
) -> tuple[bytes, dict[str, str]]:
    """Return a version 1 body around `content` and the header that signs it; hone and the others both take it.

    Send these bytes: any other spelling of the JSON breaks the signature. Raises ValueError for NaN and Infinity.
    """
    envelope = {
        "data": content,
        "nonce": now_ns,
        "signed_by": keypair.ss58,
        "signed_for": None if receiver is None else encode(receiver),
        "version": 1,
    }
    body = json.dumps(envelope, sort_keys=True, allow_nan=False).encode("ascii")
    scheme = msgspec.structs.replace(V1, required=V1.required - {"receiver"})
    return body, sign_headers(scheme, keypair, now_ns=now_ns, body=body)


def sign_request(keypair: Keypair, body: bytes, *, uuid: str, receiver: PublicKey, now_ns: int) -> dict[str, str]:
    """Return the headers of a version 2 request: those that sign it, and Content-Digest where it has a body.

    With that a proxy proves the request from its headers, and passes a large body on while it arrives. Raises
    ValueError for a uuid that is none.
    """
    headers = sign_headers(V2, keypair, now_ns=now_ns, body=body, uuid=uuid, receiver=receiver)
    return headers | content_digest.lines_of(body) if body else headers


def sign_answer(keypair: Keypair, body: bytes, *, uuid: str, receiver: PublicKey, now_ns: int) -> dict[str, str]:
    """Return the version 2 headers that sign a miner's answer for the validator `receiver`.

    With the request's own `uuid`, the answer cannot be passed off as the answer to another request.
    """
    return sign_headers(V2, keypair, now_ns=now_ns, body=body, uuid=uuid, receiver=receiver)


def sign_answer_hash(
    keypair: Keypair, body_hash: str, *, uuid: str, receiver: PublicKey, now_ns: int
) -> dict[str, str]:
    """Return what `sign_answer` does, for a body of which the SHA-256 (hex) is known."""
    return sign_headers(V2, keypair, now_ns=now_ns, body_hash=body_hash, uuid=uuid, receiver=receiver)


def verify_answer(
    headers: Headers,
    body: bytes,
    *,
    now_ms: int,
    self_key: PublicKey,
    sender: PublicKey,
    request_uuid: str | None = None,
) -> SignedRequest:
    """Return the proof that `sender` signed this answer for us; `request_uuid` is demanded when it is given.

    Raises AuthError: not_permitted when another key signed, replay when it answers another request, and whatever a
    version 2 request can be refused for.
    """

    def admit(public_key: PublicKey) -> None:
        if public_key != sender:
            raise AuthError("not_permitted", "the answer was signed by another key")

    signed = verify_signed(
        V2, headers, method="", raw_path=b"", body=body, now_ms=now_ms, self_key=self_key, admit=admit
    )
    if request_uuid is not None and signed.uuid.lower() != request_uuid.lower():
        raise AuthError("replay", "the answer is to another request", signed.skew_ms)
    return signed


def secret_messages(receiver: PublicKey, now_ms: int) -> tuple[bytes, bytes, bytes]:
    """Return what the three secret signatures of version 2 sign, as the Python reference does.

    Their intervals are 1 ms apart, by a slip of the reference; receivers do not look at them.
    """
    middle = math.ceil(now_ms / 10_000) * 10_000
    address = encode(receiver)
    before, at, after = (f"{float(interval)}.{address}".encode() for interval in (middle - 1, middle, middle + 1))
    return before, at, after


def sign_secrets(keypair: Keypair, receiver: PublicKey, now_ms: int) -> dict[str, str]:
    """Return the three optional Epistula-Secret-Signature headers, for subnets that ask for them."""
    return {
        f"Epistula-Secret-Signature-{index}": "0x" + keypair.sign(message).hex()
        for index, message in enumerate(secret_messages(receiver, now_ms))
    }


def _v2_messages(parts: Signable) -> tuple[bytes]:
    return (f"{parts.body_sha256}.{parts.uuid}.{parts.timestamp}.{parts.receiver}".encode("ascii"),)


def stripped_body_messages(parts: Signable) -> Iterator[bytes]:
    """Return the message of version 2; for a GET without a body also that of `{}`, which CDNs drop from GETs."""
    yield from _v2_messages(parts)
    if parts.method == "GET" and not parts.body and not parts.body_hash:
        yield from _v2_messages(msgspec.structs.replace(parts, body=b"{}"))


def sorted_body_messages(parts: Signable) -> Iterator[bytes]:
    """Yield the raw body, then hone's spelling of it: the same JSON with sorted keys, not the bytes that were sent."""
    yield parts.body
    with contextlib.suppress(MalformedJson):
        yield json.dumps(parse_object(parts.body), sort_keys=True).encode("ascii")


V2: Final = Scheme(
    name="epistula-v2",
    headers={
        "epistula-version": "version",
        "epistula-timestamp": "timestamp",
        "epistula-uuid": "uuid",
        "epistula-signed-by": "hotkey",
        "epistula-signed-for": "receiver",
        "epistula-request-signature": "signature",
    },
    required=frozenset({"timestamp", "uuid", "hotkey", "receiver", "signature"}),
    messages=_v2_messages,
    past_ms=PAST_MS,
    future_ms=FUTURE_MS,
    signature=SIGNATURE_0X,
    signs_0x=True,
    hotkey=decode,
    versions=("2",),
)

DIPPY: Final = Scheme(
    name="dippy",
    names_receiver=True,
    headers={
        "authorization": "signature",
        "epistula-signature": "second_signature",
        "epistula-timestamp": "timestamp",
        "epistula-uuid": "uuid",
        "epistula-signed-by": "hotkey",
        "epistula-signed-for": "receiver",
    },
    required=frozenset({"timestamp", "uuid", "hotkey", "receiver", "signature"}),
    messages=_v2_messages,
    past_ms=PAST_MS,
    future_ms=FUTURE_MS,
    signature=SIGNATURE,
    signs_0x=True,
    hotkey=decode,
    prefixes={"signature": "Epistula "},
)

APEX: Final = Scheme(
    name="apex",
    headers={
        "epistula-timestamp": "timestamp",
        "epistula-signed-by": "hotkey",
        "epistula-signed-for": "receiver",
        "epistula-request-signature": "signature",
    },
    required=frozenset({"timestamp", "hotkey", "receiver", "signature"}),
    messages=lambda parts: (f"{parts.body_sha256}.{parts.timestamp}.{parts.receiver}".encode("ascii"),),
    past_ms=PAST_MS,
    future_ms=FUTURE_MS,
    signature=SIGNATURE_0X,
    signs_0x=True,
    hotkey=decode,
)

X_EPISTULA: Final = Scheme(
    name="x-epistula",
    headers={
        "x-epistula-timestamp": "timestamp",
        "x-epistula-signature": "signature",
        "x-epistula-hotkey": "hotkey",
    },
    required=frozenset({"timestamp", "hotkey", "signature"}),
    messages=lambda parts: (f"{parts.timestamp}.{parts.body_sha256}".encode("ascii"),),
    past_ms=60_000,
    future_ms=60_000,
    unit=NANOSECONDS,
    hotkey=decode,
)

V1: Final = Scheme(
    name="epistula-v1",
    headers={"body-signature": "signature"},
    fields={"nonce": "timestamp", "signed_by": "hotkey", "signed_for": "receiver", "version": "version"},
    integers=frozenset({"timestamp", "version"}),
    required=frozenset({"timestamp", "hotkey", "receiver", "version", "signature"}),
    messages=lambda parts: (parts.body,),
    past_ms=5_000,
    future_ms=FUTURE_MS,
    unit=NANOSECONDS,
    signature=SIGNATURE_0X,
    signs_0x=True,
    hotkey=decode,
    versions=("1",),
)

HONE: Final = msgspec.structs.replace(V1, name="hone")
