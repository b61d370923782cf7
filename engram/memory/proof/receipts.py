"""Receipts: what a node signs about a record that it has just stored or deleted.

A receipt names the namespace, the record, its owner and key, whether a search finds it now, and a root over the
namespace. With it comes the proof that the record is under that root, or that it is not. Whoever keeps a receipt can
show later what the node has claimed. It says nothing about how long the record is kept.
"""

from __future__ import annotations

import hashlib
from typing import Literal, TypeAlias

import msgspec

Deed: TypeAlias = Literal["stored", "deleted"]


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What is claimed. `owner` is an SS58 address and `key_digest` that of the record's key, empty for none; `at_ms` is
    unix milliseconds."""

    deed: Deed
    namespace: str
    cid: str
    owner: str
    key_digest: str
    searchable: bool
    root_hex: str
    count: int
    at_ms: int

    def message(self) -> bytes:
        """Return what is signed: the fields in their order, those of a client's choice as digests or checked names."""
        state = "searchable" if self.searchable else "not-searchable"
        subject = f"{self.deed}:{self.namespace}:{self.cid}:{self.owner}:{self.key_digest}:{state}"
        return f"engram-receipt-1:{subject}:{self.root_hex}:{self.count}:{self.at_ms}".encode()


def key_digest(key: str) -> str:
    """Return the SHA-256 of a record's key, empty for none: a key may have any character."""
    return hashlib.sha256(key.encode()).hexdigest() if key else ""


def digest_in(signed: str, deed: Deed, namespace: str, cid: str, owner: str) -> str:
    """Return the digest of the key in a signed receipt about that record; empty when it is not about it."""
    subject = f"engram-receipt-1:{deed}:{namespace}:{cid}:{owner}:"
    return signed.removeprefix(subject).partition(":")[0] if signed.startswith(subject) else ""
