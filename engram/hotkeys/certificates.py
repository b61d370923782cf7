"""Certificates by which a hotkey lends its name to a session key, for one session and a few minutes.

A node on a machine of somebody else has no hotkey: it signs with a key that it makes when it starts. A certificate is
three parts joined by points: `engram-cert-1`, the base64url of a JSON object, and the base64url of the hotkey's sr25519
signature over the first two parts with their point. Whoever trusts the hotkey then trusts what the session key signs
until `not_after`, and nothing else: other schemes sign other beginnings (docs/node-keys.md).
"""

import base64
import binascii
from typing import Final, final

import msgspec

from engram import wire
from engram.hotkeys.errors import HotkeyError, MalformedHotkey
from engram.hotkeys.keypair import Keypair, verify
from engram.hotkeys.ss58 import PublicKey, decode

PREFIX: Final = "engram-cert-1"
HEADER: Final = "X-Engram-Certificate"
"""The request header (any value) by which a client says that it checks certificates."""
LONGEST: Final = 2_048
"""Characters of a certificate."""
LEEWAY_S: Final = 60
"""How far the clocks of gateway and client may differ."""


@final
class CertificateRefused(HotkeyError):
    """A certificate, or what was signed by its key, does not hold.

    `code` is one of malformed, bad_signature, other_hotkey, other_session, other_controller, not_yet_valid, expired.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Certificate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a certificate says. Keys are SS58, times whole unix seconds."""

    hotkey: str
    """Whose name is lent."""
    session_key: str
    """To which key."""
    box_key: str
    """64 hex digits: the X25519 key for secrets that are sent to the node."""
    controller: str
    """Who bought the session."""
    session_id: str
    launch_token: str
    not_before: int
    not_after: int
    ends_at: int
    """When the node ends by itself."""
    secrets: str = ""
    """SHA-256 (hex) of the sealed secrets that come with the certificate; empty: none come."""


def issue(hotkey: Keypair, certificate: Certificate) -> str:
    """Return the signed text. Raises ValueError when the key is not the certificate's hotkey."""
    if hotkey.ss58 != certificate.hotkey:
        raise ValueError(f"the certificate is of {certificate.hotkey}, the key is {hotkey.ss58}")
    signed = f"{PREFIX}.{_encoded(msgspec.json.encode(certificate))}"
    return f"{signed}.{_encoded(hotkey.sign(signed.encode()))}"


def check(
    text: str,
    *,
    hotkey: PublicKey,
    at: float,
    session_id: str | None = None,
    controller: PublicKey | None = None,
) -> Certificate:
    """Return the certificate when `hotkey` signed it and it is valid at that time (unix seconds).

    `session_id` and `controller`, where they are known, must be the certificate's. Raises CertificateRefused.
    """
    certificate = verified(text, hotkey)
    if session_id is not None and certificate.session_id != session_id:
        raise CertificateRefused("other_session", f"the certificate is of session {certificate.session_id}")
    if controller is not None and _key(certificate.controller) != controller:
        raise CertificateRefused("other_controller", f"the certificate is of {certificate.controller}'s session")
    if is_early(certificate, at):
        raise CertificateRefused("not_yet_valid", f"the certificate is valid from {certificate.not_before} on")
    if not is_current(certificate, at):
        raise CertificateRefused("expired", f"the certificate was valid until {certificate.not_after}")
    return certificate


def is_early(certificate: Certificate, at: float) -> bool:
    """Return whether the certificate is not valid yet at that time (unix seconds)."""
    return at < certificate.not_before - LEEWAY_S


def is_current(certificate: Certificate, at: float) -> bool:
    """Return whether the certificate is valid at that time (unix seconds)."""
    return not is_early(certificate, at) and at <= certificate.not_after + LEEWAY_S


def verified(text: str, hotkey: PublicKey) -> Certificate:
    """Return what the certificate says when `hotkey` signed it, valid now or not. Raises CertificateRefused."""
    certificate, signed, signature = _read(text)
    if _key(certificate.hotkey) != hotkey:
        raise CertificateRefused("other_hotkey", f"the certificate is of hotkey {certificate.hotkey}")
    if not verify(hotkey, signed, signature, allow_wrapped=False):
        raise CertificateRefused("bad_signature", "the hotkey did not sign the certificate")
    return certificate


def claimed(text: str) -> Certificate:
    """Return what a text claims that nobody has checked, to look up whose it could be. Raises CertificateRefused."""
    return _read(text)[0]


def require_signed(
    hotkey: PublicKey,
    message: bytes,
    signature: bytes,
    certificate: str | None,
    *,
    at: float,
    session_id: str | None = None,
) -> Certificate | None:
    """Check that the node with this hotkey signed the message: by the hotkey, or by a session key certified now, for
    that session where it is known.

    Returns the certificate, None when the hotkey itself signed. Raises CertificateRefused.
    """
    if certificate is None:
        if not verify(hotkey, message, signature):
            raise CertificateRefused("bad_signature", "the hotkey did not sign it")
        return None
    found = check(certificate, hotkey=hotkey, at=at, session_id=session_id)
    if not verify(_key(found.session_key), message, signature, allow_wrapped=False):
        raise CertificateRefused("bad_signature", "the certified session key did not sign it")
    return found


def session_key_of(certificate: Certificate) -> PublicKey:
    """Return the certified key. Raises CertificateRefused when it is no key."""
    return _key(certificate.session_key)


def _read(text: str) -> tuple[Certificate, bytes, bytes]:
    prefix, _, rest = text.partition(".")
    payload, _, signature = rest.partition(".")
    if prefix != PREFIX or len(text) > LONGEST:
        raise CertificateRefused(
            "malformed", f"a certificate begins with {PREFIX} and has at most {LONGEST} characters"
        )
    try:
        certificate = wire.decode(_decoded(payload), Certificate)
        return certificate, f"{PREFIX}.{payload}".encode(), _decoded(signature)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise CertificateRefused("malformed", f"the certificate cannot be read: {error}") from None


def _key(address: str) -> PublicKey:
    try:
        return decode(address)
    except MalformedHotkey as error:
        raise CertificateRefused("malformed", f"the certificate cannot be read: {error}") from None


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    """Decode the one spelling that `_encoded` gives. Raises ValueError for any other."""
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(f"{error}") from None
    if _encoded(content) != text:
        raise ValueError("not in base64url")
    return content
