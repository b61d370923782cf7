"""ANS-104 data items: what Arweave's bundlers take, written canonically and read strictly.

An item is a signature over the deep hash (SHA-384) of its fields, and its id is the SHA-256 of that signature. Only
signatures that come out the same each time are used (Ethereum with RFC 6979, Ed25519), so that the same content sealed
once has one id and one bill however often it is sent. What the common JavaScript library repairs or overlooks is
refused here by name: presence bytes of 2, a count that is not that of the tags, empty tag values, a high `s`.

Source: ANS-104, https://github.com/ArweaveTeam/arweave-standards/blob/master/ans/ANS-104.md
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from engram.archive.errors import MalformedItem

MOST_TAGS: Final = 128
MOST_TAG_BYTES: Final = 4_096
MOST_NAME_BYTES: Final = 1_024
MOST_VALUE_BYTES: Final = 3_072
_FIXED: Final = 32
"""Bytes of a target and of an anchor."""
_NO_TAGS_LENIENT: Final = b"\0"
"""An empty array as PyPI's turbo-sdk writes it; no bytes at all is what the specification means."""

Tag = tuple[str, str]


class ItemSigner(Protocol):
    """A key that signs data items, never a hotkey's."""

    signature_type: int
    owner: bytes

    def sign(self, message: bytes) -> bytes:
        """Sign the 48 bytes of a deep hash."""
        ...


class ItemScheme(Protocol):
    """How a signature type is laid out and checked."""

    signature_bytes: int
    owner_bytes: int

    def check(self, owner: bytes, signature: bytes, message: bytes) -> None:
        """Raise MalformedItem unless `signature` is `owner`'s over `message`."""
        ...


class Item(msgspec.Struct, frozen=True):
    """A signed data item."""

    signature_type: int
    signature: bytes
    owner: bytes
    data: bytes
    tags: tuple[Tag, ...] = ()
    target: bytes | None = None
    anchor: bytes | None = None

    @property
    def digest(self) -> bytes:
        """Return the 32 bytes of the id."""
        return hashlib.sha256(self.signature).digest()

    @property
    def id(self) -> str:
        """Return the id on Arweave: base64url without padding, 43 characters."""
        return text_id(self.digest)


def text_id(digest: bytes) -> str:
    """Return 32 bytes the way Arweave writes ids.

    >>> text_id(bytes(32))
    'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'
    """
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def make(
    signer: ItemSigner,
    data: bytes,
    tags: Sequence[Tag] = (),
    target: bytes | None = None,
    anchor: bytes | None = None,
) -> bytes:
    """Sign `data` and return the item's bytes. Raises ValueError for tags, target or anchor beyond the limits."""
    packed = _pack_tags(tags)
    for name, value in (("target", target), ("anchor", anchor)):
        if value is not None and len(value) != _FIXED:
            raise ValueError(f"{name} has {len(value)} bytes; it must have {_FIXED}")
    message = deep_hash(_signed(signer.signature_type, signer.owner, target, anchor, packed, data))
    return b"".join(
        (
            signer.signature_type.to_bytes(2, "little"),
            signer.sign(message),
            signer.owner,
            _optional(target),
            _optional(anchor),
            len(tags).to_bytes(8, "little"),
            len(packed).to_bytes(8, "little"),
            packed,
            data,
        )
    )


def parse(raw: bytes, schemes: Mapping[int, ItemScheme]) -> Item:
    """Read an item and check its signature. Raises MalformedItem with what is wrong."""
    reader = _Reader(raw)
    signature_type = int.from_bytes(reader.take(2), "little")
    scheme = schemes.get(signature_type)
    if scheme is None:
        raise MalformedItem(f"signature type {signature_type}")
    signature, owner = reader.take(scheme.signature_bytes), reader.take(scheme.owner_bytes)
    target, anchor = reader.optional(), reader.optional()
    count, size = reader.number(8), reader.number(8)
    if count > MOST_TAGS or size > MOST_TAG_BYTES:
        raise MalformedItem("too many tags")
    packed = reader.take(size)
    tags = _unpack_tags(packed, count)
    data = reader.rest()
    scheme.check(owner, signature, deep_hash(_signed(signature_type, owner, target, anchor, packed, data)))
    return Item(signature_type, signature, owner, data, tags, target, anchor)


def deep_hash(parts: Sequence[bytes]) -> bytes:
    """Return Arweave's SHA-384 over a flat list of byte strings."""
    total = _hash(b"list" + str(len(parts)).encode())
    for part in parts:
        blob = _hash(_hash(b"blob" + str(len(part)).encode()) + _hash(part))
        total = _hash(total + blob)
    return total


def _hash(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


def _signed(
    signature_type: int, owner: bytes, target: bytes | None, anchor: bytes | None, tags: bytes, data: bytes
) -> tuple[bytes, ...]:
    return b"dataitem", b"1", str(signature_type).encode(), owner, target or b"", anchor or b"", tags, data


def _optional(value: bytes | None) -> bytes:
    return b"\0" if value is None else b"\1" + value


def _pack_tags(tags: Sequence[Tag]) -> bytes:
    """Return the tags as an Avro array of pairs; no bytes where there are none."""
    if len(tags) > MOST_TAGS:
        raise ValueError(f"{len(tags)} tags; an item has at most {MOST_TAGS}")
    if not tags:
        return b""
    packed = bytearray(_zigzag(len(tags)))
    for pair in tags:
        for text, most in zip(pair, (MOST_NAME_BYTES, MOST_VALUE_BYTES), strict=True):
            raw = text.encode()
            if not 0 < len(raw) <= most:
                raise ValueError(f"a tag's name or value has {len(raw)} bytes; allowed are 1 to {most}")
            packed += _zigzag(len(raw)) + raw
    packed.append(0)
    if len(packed) > MOST_TAG_BYTES:
        raise ValueError(f"the tags take {len(packed)} bytes; an item has room for {MOST_TAG_BYTES}")
    return bytes(packed)


def _unpack_tags(packed: bytes, count: int) -> tuple[Tag, ...]:
    if count == 0:
        if packed not in (b"", _NO_TAGS_LENIENT):
            raise MalformedItem("tag count")
        return ()
    reader = _Reader(packed)
    if reader.zigzag() != count:
        raise MalformedItem("tag count")
    tags = tuple((reader.text(MOST_NAME_BYTES), reader.text(MOST_VALUE_BYTES)) for _ in range(count))
    if reader.rest() != b"\0":
        raise MalformedItem("tag count")
    return tags


def _zigzag(number: int) -> bytes:
    """Return an Avro long, for numbers from 0 on."""
    number <<= 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class _Reader:
    """Takes bytes from the front. Raises MalformedItem beyond the end."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._raw):
            raise MalformedItem("truncated")
        taken = self._raw[self._at : end]
        self._at = end
        return taken

    def rest(self) -> bytes:
        return self._raw[self._at :]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def optional(self) -> bytes | None:
        present = self.number(1)
        if present > 1:
            raise MalformedItem("presence byte")
        return self.take(_FIXED) if present else None

    def zigzag(self) -> int:
        """Read an Avro long that is not negative, in its shortest form: what is signed has one reading only."""
        shift = number = 0
        while True:
            byte = self.number(1)
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift > 28:
                raise MalformedItem("tag length")
        if number & 1 or (shift > 7 and byte == 0):
            raise MalformedItem("tag length")
        return number >> 1

    def text(self, most: int) -> str:
        size = self.zigzag()
        if not 0 < size <= most:
            raise MalformedItem("tag length")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise MalformedItem("tag text that is not UTF-8") from None
