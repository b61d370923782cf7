"""Storage proofs in the form that existing validators check.

The answer of a node shows that it holds the hash of a vector at the time of the challenge. It needs no more
than that hash, so it does not show that the vector itself is held, nor where.
"""

from __future__ import annotations

import hashlib
import hmac

NONCE_BYTES = 32
KEY_BYTES = 32


def embedding_hash(embedding: bytes) -> str:
    """Returns the SHA-256 (hex) of the vector's f32 little-endian bytes."""
    return hashlib.sha256(embedding).hexdigest()


def storage_proof(embedding: bytes, nonce: bytes, validator: bytes = bytes(KEY_BYTES)) -> str:
    """Returns the HMAC-SHA256 (hex) of the embedding hash's ASCII hex under sha256(validator key, nonce).

    `nonce` and `validator` (a public key, zeros when unknown) are 32 bytes each. Raises ValueError otherwise.
    """
    if len(nonce) != NONCE_BYTES or len(validator) != KEY_BYTES:
        raise ValueError("nonce and validator key must be 32 bytes each")
    key = hashlib.sha256(validator + nonce).digest()
    return hmac.new(key, embedding_hash(embedding).encode(), hashlib.sha256).hexdigest()
