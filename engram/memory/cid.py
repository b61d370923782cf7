"""Content identifiers: `v1::` and the SHA-256 of the vector's bytes and the canonical metadata.

Source: the canonical (native) form of the original, whose vectors are in tests/data/engram.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping

import msgspec

from engram import wire

PREFIX = "v1"
_DIGEST_LENGTH = 64
_decode_metadata = wire.decoder(dict[str, str]).decode
_canonical = msgspec.json.Encoder(order="sorted").encode
_HEX = frozenset("0123456789abcdef")
_TOP_OF_NON_FINITE = (0x7F, 0xFF)
"""The highest byte of every f32 that is infinite or no number, and of finite ones from 2^127 on."""


def canonical_metadata(metadata: Mapping[str, str], model_version: str) -> bytes:
    """Return compact JSON in raw UTF-8, keys in byte order; `model_version` wins over a key of that name."""
    complete = {**metadata, "model_version": model_version}
    return _canonical(complete)


def compute(embedding: bytes, metadata: Mapping[str, str], model_version: str = "v1") -> str:
    """Return the CID of a vector (f32 little-endian bytes) with normalized metadata.

    The prefix is `v1` whatever `model_version` says: it names the algorithm, not the model.
    """
    digest = hashlib.sha256(embedding + canonical_metadata(metadata, model_version)).hexdigest()
    return f"{PREFIX}::{digest}"


def is_cid(text: str) -> bool:
    """Return whether the text has the form of a CID."""
    version, separator, digest = text.partition("::")
    return version == PREFIX and separator == "::" and len(digest) == _DIGEST_LENGTH and _HEX.issuperset(digest)


def fault_of(cid: str, embedding: bytes, metadata: str, model_version: str) -> str | None:
    """Return what is wrong with a stored record; None when it matches its CID."""
    try:
        decoded = _decode_metadata(metadata)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "its metadata is no JSON object of strings"
    computed = compute(embedding, decoded, model_version)
    if computed != cid:
        return f"its vector and metadata give {computed}"
    if not _is_finite(embedding):
        return "its vector has numbers that are none"
    return None


def _is_finite(embedding: bytes) -> bool:
    if len(embedding) % 4:
        return False
    tops = embedding[3::4]
    if not any(top in tops for top in _TOP_OF_NON_FINITE):  # 1 µs; unpacking takes 12
        return True
    return math.isfinite(sum(struct.unpack(f"<{len(embedding) // 4}f", embedding)))
