"""Answers of the gateway to signed requests are signed too, so that a phone can tell its gateway from an impostor.

Headers: `X-Gateway-Hotkey` (SS58 of the gateway's own key, published at /identity) and `X-Gateway-Sig` (128 hex
digits, sr25519) over the UTF-8 message

    engram-gateway:{status}:{timestamp of the request}:{sha256hex(body)}

The timestamp is the X-Timestamp of the request that is answered, as it was sent: an old answer cannot be replayed to
a newer request. An answer to a request without a readable timestamp is not signed.
"""

import hashlib
from collections.abc import Mapping

from engram.hotkeys.errors import AuthError, MalformedHotkey
from engram.hotkeys.keypair import Keypair, verify
from engram.hotkeys.scheme import SIGNATURE
from engram.hotkeys.ss58 import PublicKey, decode

HOTKEY_HEADER = "X-Gateway-Hotkey"
SIGNATURE_HEADER = "X-Gateway-Sig"


def message(status: int, request_timestamp: int | str, body: bytes) -> bytes:
    """Return the bytes that are signed. `request_timestamp` is the request's X-Timestamp, whatever its form."""
    return f"engram-gateway:{status}:{request_timestamp}:{hashlib.sha256(body).hexdigest()}".encode()


def sign_answer(keypair: Keypair, status: int, request_timestamp: int | str, body: bytes) -> dict[str, str]:
    """Return the two headers that sign an answer."""
    signature = keypair.sign(message(status, request_timestamp, body))
    return {HOTKEY_HEADER: keypair.ss58, SIGNATURE_HEADER: signature.hex()}


def verify_answer(
    headers: Mapping[str, str], status: int, request_timestamp: int | str, body: bytes, *, gateway: PublicKey
) -> None:
    """Check that `gateway` signed this answer to the request stamped `request_timestamp`.

    Raises AuthError (missing_header, malformed, signed_for_mismatch when another key signed, bad_signature).
    """
    lines = {name.lower(): value for name, value in headers.items()}
    hotkey, signature = lines.get(HOTKEY_HEADER.lower()), lines.get(SIGNATURE_HEADER.lower())
    if not hotkey or not signature:
        raise AuthError("missing_header", "the answer is not signed")
    try:
        public_key = decode(hotkey)
    except MalformedHotkey as error:
        raise AuthError("malformed", f"{HOTKEY_HEADER}: {error}") from None
    if (digits := SIGNATURE.match(signature)) is None:
        raise AuthError("malformed", f"{SIGNATURE_HEADER} is not 128 hex digits")
    if public_key != gateway:
        raise AuthError("signed_for_mismatch", "the answer was signed by another gateway")
    signed = message(status, request_timestamp, body)
    if not verify(gateway, signed, bytes.fromhex(digits.group(1)), allow_wrapped=False):
        raise AuthError("bad_signature", "the gateway did not sign this answer")
