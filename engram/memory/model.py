"""Records and values of a node's memory."""

from __future__ import annotations

import msgspec

PUBLIC = "__public__"
"""The namespace that everyone may read. All others are private."""


class Validity(msgspec.Struct, frozen=True, array_like=True):
    """How long a record is what its owner holds to be true; no CID and no root covers it.

    A record with a `key` supersedes the earlier ones with that key: of the same namespace, and in the public one of the
    same owner. `supersedes` is the CID of one more that it supersedes. From `expires_at` (unix seconds) on, searches no
    longer find it.
    """

    key: str | None = None
    supersedes: str | None = None
    expires_at: float | None = None


ALWAYS = Validity()
"""A record without a key, which supersedes none and does not expire."""


class Entry(msgspec.Struct, frozen=True):
    """Something to store. `embedding` is f32 little-endian, exactly the bytes that the CID covers."""

    namespace: str
    cid: str
    embedding: bytes
    text: str | None
    metadata: dict[str, str]
    model_version: str
    owner: bytes | None
    """Public key (32 bytes) of the signer who stored it; None when the request was not signed."""
    validity: Validity = ALWAYS
    made_here: bool | None = None
    """Whether this node made the vector from the text; None: not known."""
    superseded_by: str | None = None
    """The CID of the record that had superseded it where it comes from; then it supersedes nothing itself."""


class Record(msgspec.Struct, frozen=True):
    """Something stored. `id` is never used twice; `created_at` is unix seconds."""

    id: int
    namespace: str
    cid: str
    embedding: bytes
    text: str | None
    metadata: dict[str, str]
    model_version: str
    owner: bytes | None
    created_at: float
    sequence: int
    validity: Validity = ALWAYS
    made_here: bool | None = None
    superseded_by: str | None = None
    """The CID of the record that has superseded it; that one may be deleted by now."""

    def is_current(self, now: float) -> bool:
        """Return whether it is neither superseded nor expired at `now` (unix seconds)."""
        expires_at = self.validity.expires_at
        return self.superseded_by is None and (expires_at is None or expires_at > now)

    def excerpt(self) -> Excerpt:
        """Return the record as a search shows it."""
        shown = (self.id, self.cid, self.text, self.metadata, self.owner)
        return Excerpt(*shown, validity=self.validity, superseded_by=self.superseded_by)


class Excerpt(msgspec.Struct, frozen=True, array_like=True):
    """A record as a search shows it: without its vector, which is most of its bytes."""

    id: int
    cid: str
    text: str | None
    metadata: dict[str, str]
    owner: bytes | None
    validity: Validity = ALWAYS
    superseded_by: str | None = None


class Hit(msgspec.Struct, frozen=True):
    """A record found by a search; `score` is the cosine, -1 to 1."""

    record: Excerpt
    score: float


class Counts(msgspec.Struct, frozen=True):
    """How many records there are."""

    public: int
    private: int


class Upserted(msgspec.Struct, frozen=True):
    """A change of the truth that the index must follow: the record with this `id` was stored.

    `cid` and `owner` are empty in a change that is reread after a restart.
    """

    sequence: int
    id: int
    namespace: str
    embedding: bytes
    metadata: dict[str, str]
    cid: str = ""
    owner: bytes | None = None


class Deleted(msgspec.Struct, frozen=True):
    """A change of the truth that the index must follow: the record with this `id` was deleted.

    `cid` and `embedding` are what was deleted; they are empty in a change that is reread after a restart.
    """

    sequence: int
    id: int
    namespace: str
    cid: str = ""
    embedding: bytes = b""


Change = Upserted | Deleted
