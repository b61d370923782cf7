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
    """What is claimed. `owner` is an SS58 address, empty for none; `at_ms` is unix milliseconds."""

    deed: Deed
    namespace: str
    cid: str
    owner: str
    key: str
    searchable: bool
    root_hex: str
    count: int
    at_ms: int

    def message(self) -> bytes:
        """Return what is signed: the fields in their order, those of a client's choice as digests or checked names."""
        key = hashlib.sha256(self.key.encode()).hexdigest() if self.key else ""
        state = "searchable" if self.searchable else "not-searchable"
        subject = f"{self.deed}:{self.namespace}:{self.cid}:{self.owner}:{key}:{state}"
        return f"engram-receipt-1:{subject}:{self.root_hex}:{self.count}:{self.at_ms}".encode()
