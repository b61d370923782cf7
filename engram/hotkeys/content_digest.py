"""Content-Digest (RFC 9530): the hash of a body, in the headers before it. Pure.

A reverse proxy that knows it believes a signed request from its headers alone, and passes the body on while it comes.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from typing import Final

HEADER: Final = "Content-Digest"
_MEMBER: Final = re.compile(rb"([a-z*][a-z0-9_.*-]{0,31})[ \t]*=[ \t]*:([A-Za-z0-9+/]{0,128}={0,2}):")
_SHA256_BYTES: Final = 32


class BadDigest(ValueError):
    """Content-Digest is there and cannot be used."""


def sha256_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the SHA-256 (hex) that Content-Digest names; None where it names none. Raises BadDigest.

    >>> sha256_of([(b"content-digest", b"sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:")])[:8]
    'e3b0c442'
    """
    values = [value for name, value in headers if name == b"content-digest"]
    if not values:
        return None
    found: list[bytes] = []
    for member in b",".join(values).split(b","):
        match = _MEMBER.fullmatch(member.strip(b" \t"))
        if match is None:
            raise BadDigest("Content-Digest is not a dictionary of digests, such as sha-256=:BASE64:")
        if match[1] == b"sha-256":
            found.append(match[2])
    if not found:
        return None
    if len(found) > 1:
        raise BadDigest("Content-Digest names sha-256 more than once")
    try:
        digest = base64.b64decode(found[0], validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != _SHA256_BYTES:
        raise BadDigest("the sha-256 of Content-Digest is not 32 bytes in base64")
    return digest.hex()


def header_value(digest: bytes) -> str:
    """Return the header's value for a SHA-256."""
    return f"sha-256=:{base64.b64encode(digest).decode('ascii')}:"


def lines_of(body: bytes) -> dict[str, str]:
    """Return the header of a body, to be sent with it.

    >>> lines_of(b"")
    {'Content-Digest': 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:'}
    """
    return {HEADER: header_value(hashlib.sha256(body).digest())}
