"""What an archive consists of.

header            who owns it, how its keys are opened, who may write; signed by the owner
keys/EPOCH        the epoch's random key, sealed to the owner: deleting it makes the epoch unreadable
segments/SHA256   sealed rows, or sealed lists of deleted rows; named by the hash of what lies there
manifests/NUMBER  what the archive is made of at one moment; sealed, signed, each with the hash of the one before
"""

from typing import Final, Literal

import msgspec

FORMAT: Final = 1
HEADER: Final = "header"
ID_BYTES: Final = 16
DELETIONS: Final = "deletions"


class HotkeySource(msgspec.Struct, frozen=True, tag="hotkey"):
    """The archive's key is derived from the owner's hotkey."""


class PassphraseSource(msgspec.Struct, frozen=True, tag="passphrase"):
    """The archive's key is derived from a passphrase by scrypt."""

    salt: bytes
    n: int
    r: int
    p: int


class SharesSource(msgspec.Struct, frozen=True, tag="shares"):
    """The archive's key is random; `threshold` of `total` shares give it back."""

    threshold: int
    total: int


KeySource = HotkeySource | PassphraseSource | SharesSource


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """Who an archive belongs to. Public keys are 32 raw bytes."""

    format: int = FORMAT
    archive_id: bytes
    owner: bytes
    """The owner's hotkey (sr25519)."""
    archive_key: bytes
    """X25519 public key to which epoch keys are sealed."""
    source: KeySource
    writers: tuple[bytes, ...] = ()
    """Hotkeys beside the owner's that may write manifests: a node that archives by itself."""
    created_at: float
    keys_forever: bool = False
    """Whether epoch keys also lie where nothing can be deleted: the owner's key is enough, and nothing is erased."""
    proof: bytes = b""
    """HMAC by the archive's secret key over all other fields: whoever can open the archive made this header."""


class SignedHeader(msgspec.Struct, frozen=True):
    """The header as it was signed by its owner."""

    header: bytes
    signature: bytes


class SegmentRef(msgspec.Struct, frozen=True, array_like=True):
    """A segment as a manifest names it."""

    name: str
    """SHA-256 of the sealed segment, in hex."""
    kind: str
    """A kind of row, or DELETIONS."""
    rows: int
    bytes: int
    epoch: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the archive holds; `made_at` is unix seconds."""

    archive_id: bytes
    owner: bytes
    made_at: float
    segments: list[SegmentRef]
    counts: dict[str, int]
    """Living rows of each kind."""
    public_root: str
    whole_root: str
    roots: dict[str, str]
    """The root of each namespace, in hex."""
    rows_sha256: str
    """SHA-256 over the digests of all living rows, in order of the digests."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed manifest: what is readable without a key. The signature covers all fields but itself."""

    archive_id: bytes
    sequence: int
    previous: bytes
    """SHA-256 of the envelope before; empty in the first."""
    epoch: int
    writer: bytes
    sealed: bytes
    signature: bytes = b""


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """Rows of one kind. Blobs (vectors) stand apart, since only the rest shrinks."""

    kind: str
    columns: tuple[str, ...]
    blob: int
    """The column whose values are in `blobs`, one after the other; -1: none. The row has its length in its place."""
    packed: bytes
    """zlib of the values, column by column (MessagePack): a quarter faster and a tenth smaller than row by row."""
    blobs: bytes


class SealedKey(msgspec.Struct, frozen=True, array_like=True):
    """What a sealed epoch key opens to."""

    archive_id: bytes
    epoch: int
    key: bytes


KeyForm = Literal["hotkey", "passphrase", "shares"]


def key_name(epoch: int) -> str:
    """Return where an epoch's key lies.

    >>> key_name(7)
    'keys/000007'
    """
    return f"keys/{epoch:06}"


def lasting_key_name(epoch: int) -> str:
    """Return where an epoch's key lies that is never destroyed.

    >>> lasting_key_name(7)
    'lasting/000007'
    """
    return f"lasting/{epoch:06}"


def manifest_name(sequence: int) -> str:
    """Return where a manifest lies.

    >>> manifest_name(12)
    'manifests/000000000012'
    """
    return f"manifests/{sequence:012}"


def segment_name(digest: str) -> str:
    """Return where a segment lies."""
    return f"segments/{digest}"
