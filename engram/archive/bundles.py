"""ANS-104 bundles: items laid together behind a header of their sizes and ids.

Source: ANS-104, section 2.1. A header is believed only where it fits the items that follow.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from engram.archive.ans104 import Item, ItemScheme, parse, text_id
from engram.archive.errors import MalformedItem

_NUMBER: Final = 32
_ENTRY: Final = 64


def bundle(items: Sequence[bytes], schemes: Mapping[int, ItemScheme]) -> bytes:
    """Lay signed items together as they are. Raises MalformedItem for one that is not valid."""
    header = [len(items).to_bytes(_NUMBER, "little")]
    for raw in items:
        header += [len(raw).to_bytes(_NUMBER, "little"), parse(raw, schemes).digest]
    return b"".join([*header, *items])


def unbundle(raw: bytes, schemes: Mapping[int, ItemScheme]) -> list[Item]:
    """Read a bundle and check every item of it. Raises MalformedItem with what is wrong."""
    if len(raw) < _NUMBER:
        raise MalformedItem("truncated")
    count = int.from_bytes(raw[:_NUMBER], "little")
    at = _NUMBER + _ENTRY * count
    if at > len(raw):
        raise MalformedItem("truncated")
    items = []
    for entry in range(_NUMBER, at, _ENTRY):
        size = int.from_bytes(raw[entry : entry + _NUMBER], "little")
        end = at + size
        if end > len(raw):
            raise MalformedItem("truncated")
        item = parse(raw[at:end], schemes)
        if item.id != text_id(raw[entry + _NUMBER : entry + _ENTRY]):
            raise MalformedItem("id of the header")
        items.append(item)
        at = end
    if at != len(raw):
        raise MalformedItem("bytes behind the last item")
    return items
