"""Metadata V15 as a tree that can be changed and written again: what a runtime upgrade does to a recorded one.

A codec of its own, so that what reads the changed metadata is not what made it. Written from the SCALE description of
frame-metadata 15; that the recorded metadata comes out byte for byte again is tested.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

Tree = dict[str, Any]


class Reader:
    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.place = 0

    def take(self, count: int) -> bytes:
        self.place += count
        assert self.place <= len(self.octets), "metadata ends too soon"
        return self.octets[self.place - count : self.place]


class Kind(NamedTuple):
    """How one sort of value is read and written."""

    read: Callable[[Reader], Any]
    write: Callable[[Any], bytes]


def _read_compact(reader: Reader) -> int:
    first = reader.octets[reader.place]
    width = (1, 2, 4, 5 + (first >> 2))[first & 3]
    octets = reader.take(width)
    if first & 3 == 3:
        return int.from_bytes(octets[1:], "little")
    return int.from_bytes(octets, "little") >> 2


def _write_compact(number: int) -> bytes:
    width, mode = (1, 0) if number < 1 << 6 else (2, 1) if number < 1 << 14 else (4, 2)
    assert number < 1 << 30
    return (number << 2 | mode).to_bytes(width, "little")


def number(width: int) -> Kind:
    return Kind(
        lambda reader: int.from_bytes(reader.take(width), "little"), lambda value: value.to_bytes(width, "little")
    )


COMPACT = Kind(_read_compact, _write_compact)
U8, U32 = number(1), number(4)
OCTETS = Kind(lambda reader: reader.take(_read_compact(reader)), lambda value: _write_compact(len(value)) + value)
TEXT = Kind(lambda reader: OCTETS.read(reader).decode(), lambda value: OCTETS.write(value.encode()))


def many(of: Kind) -> Kind:
    return Kind(
        lambda reader: [of.read(reader) for _ in range(_read_compact(reader))],
        lambda values: _write_compact(len(values)) + b"".join(of.write(value) for value in values),
    )


def maybe(of: Kind) -> Kind:
    return Kind(
        lambda reader: of.read(reader) if reader.take(1) == b"\x01" else None,
        lambda value: b"\x00" if value is None else b"\x01" + of.write(value),
    )


def record(**parts: Kind) -> Kind:
    return Kind(
        lambda reader: {name: kind.read(reader) for name, kind in parts.items()},
        lambda value: b"".join(kind.write(value[name]) for name, kind in parts.items()),
    )


def choice(**variants: Kind) -> Kind:
    """Read as {variant's name: value}; the index is its place."""
    names = list(variants)

    def read(reader: Reader) -> Tree:
        name = names[reader.take(1)[0]]
        return {name: variants[name].read(reader)}

    def write(value: Tree) -> bytes:
        ((name, held),) = value.items()
        return bytes([names.index(name)]) + variants[name].write(held)

    return Kind(read, write)


DOCS = many(TEXT)
FIELDS = many(record(name=maybe(TEXT), type=COMPACT, type_name=maybe(TEXT), docs=DOCS))
TYPE = record(
    path=many(TEXT),
    params=many(record(name=TEXT, type=maybe(COMPACT))),
    definition=choice(
        composite=FIELDS,
        variant=many(record(name=TEXT, fields=FIELDS, index=U8, docs=DOCS)),
        sequence=COMPACT,
        array=record(length=U32, type=COMPACT),
        tuple=many(COMPACT),
        primitive=U8,
        compact=COMPACT,
        bits=record(store=COMPACT, order=COMPACT),
    ),
    docs=DOCS,
)
ENTRY = record(
    name=TEXT,
    modifier=U8,
    type=choice(plain=COMPACT, map=record(hashers=many(U8), key=COMPACT, value=COMPACT)),
    default=OCTETS,
    docs=DOCS,
)
PALLET = record(
    name=TEXT,
    storage=maybe(record(prefix=TEXT, entries=many(ENTRY))),
    calls=maybe(COMPACT),
    events=maybe(COMPACT),
    constants=many(record(name=TEXT, type=COMPACT, value=OCTETS, docs=DOCS)),
    errors=maybe(COMPACT),
    index=U8,
    docs=DOCS,
)
METHOD = record(name=TEXT, inputs=many(record(name=TEXT, type=COMPACT)), output=COMPACT, docs=DOCS)
METADATA = record(
    magic=U32,
    version=U8,
    types=many(record(id=COMPACT, type=TYPE)),
    pallets=many(PALLET),
    extrinsic=record(
        version=U8,
        address=COMPACT,
        call=COMPACT,
        signature=COMPACT,
        extra=COMPACT,
        extensions=many(record(identifier=TEXT, type=COMPACT, additional=COMPACT)),
    ),
    runtime=COMPACT,
    apis=many(record(name=TEXT, methods=many(METHOD), docs=DOCS)),
    outer=record(call=COMPACT, event=COMPACT, error=COMPACT),
    custom=many(record(name=TEXT, type=COMPACT, value=OCTETS)),
)


def read(octets: bytes) -> Tree:
    """The metadata inside what `Metadata_metadata_at_version` answers."""
    reader = Reader(octets)
    assert reader.take(1) == b"\x01"
    inside = Reader(OCTETS.read(reader))
    tree: Tree = METADATA.read(inside)
    assert inside.place == len(inside.octets), "metadata goes on after its end"
    return tree


def write(tree: Tree) -> bytes:
    """The other way."""
    return b"\x01" + OCTETS.write(METADATA.write(tree))
