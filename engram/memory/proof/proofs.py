"""Storage proofs: the form that existing validators check, and a second that requires the vector itself.

The first shows only that the hash of a vector is held. The second is an HMAC over all bytes of the vector under a
key that is unknown before the challenge: it shows that the node could read the bytes when it answered. It does not show
where they are: a node may fetch them from elsewhere in time.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

NONCE_BYTES = 32
KEY_BYTES = 32
DOMAIN = b"engram-storage-proof-2"


class Challenge(msgspec.Struct, frozen=True):
    """What a proof of the second form binds. Keys, nonce and root are 32 bytes each; `expires_at` is unix seconds.

    `root` and `count` are those of the namespace's keyed tree; `namespace` is its name as the client spells it.
    """

    miner: bytes
    validator: bytes
    nonce: bytes
    cid: str
    namespace: str
    root: bytes
    count: int
    expires_at: int


def embedding_hash(embedding: bytes) -> str:
    """Return the SHA-256 (hex) of the vector's f32 little-endian bytes."""
    return hashlib.sha256(embedding).hexdigest()


def storage_proof(embedding: bytes, nonce: bytes, validator: bytes = bytes(KEY_BYTES)) -> str:
    """Return the HMAC-SHA256 (hex) of the embedding hash's ASCII hex under sha256(validator key, nonce).

    `nonce` and `validator` (a public key, zeros when unknown) are 32 bytes each. Raises ValueError otherwise.
    """
    if len(nonce) != NONCE_BYTES or len(validator) != KEY_BYTES:
        raise ValueError("nonce and validator key must be 32 bytes each")
    key = hashlib.sha256(validator + nonce).digest()
    return hmac.new(key, embedding_hash(embedding).encode(), hashlib.sha256).hexdigest()


def transcript(challenge: Challenge) -> bytes:
    """Return what the proof's key and the miner's signature cover: every field behind its length (4 bytes).

    Raises ValueError when a key, the nonce or the root is not 32 bytes, or a number does not fit 8 bytes.
    """
    fixed = (challenge.miner, challenge.validator, challenge.nonce, challenge.root)
    if any(len(each) != KEY_BYTES for each in fixed) or not 0 <= challenge.expires_at < 2**63:
        raise ValueError("keys, nonce and root must be 32 bytes each, the expiry unix seconds")
    parts = (
        *(DOMAIN, challenge.miner, challenge.validator, challenge.nonce, challenge.cid.encode()),
        *(challenge.namespace.encode(), challenge.root),
        *(challenge.count.to_bytes(8), challenge.expires_at.to_bytes(8)),
    )
    return b"".join(len(part).to_bytes(4) + part for part in parts)


def possession_proof(embedding: bytes, challenge: Challenge) -> str:
    """Return the HMAC-SHA256 (hex) over all bytes of the vector under sha256(transcript)."""
    return hmac.new(hashlib.sha256(transcript(challenge)).digest(), embedding, hashlib.sha256).hexdigest()


def verify_possession(proof: str, embedding: bytes, challenge: Challenge) -> bool:
    """Return whether the proof is that of the vector, whose bytes the verifier has."""
    return hmac.compare_digest(possession_proof(embedding, challenge).encode(), proof.encode("utf-8", "replace"))
