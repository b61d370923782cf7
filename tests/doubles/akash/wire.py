"""Protocol Buffers, read as the chain reads transactions: what is not canonical is refused.

A message type is a frozen Struct whose fields name their numbers: `denom: Annotated[str, F(1)]`. Refused are unknown
fields, fields out of order, a singular field given twice, varints longer than needed, and wrong wire types.
"""

from functools import cache
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

_VARINT, _BYTES = 0, 2
_LONGEST_VARINT: Final = 10
_DEEPEST: Final = 12

T = TypeVar("T", bound=msgspec.Struct)


class Malformed(Exception):
    """The bytes are no canonical encoding of the message; the text says why."""


class Field(msgspec.Struct, frozen=True):
    name: str
    kind: Any
    """int, bool, str, bytes or a message type."""
    repeated: bool


def F(number: int) -> Meta:
    """The number of a field."""
    return Meta(extra={"field": number})


@cache
def fields(kind: type[msgspec.Struct]) -> dict[int, Field]:
    """The fields of a message type by their numbers."""
    found = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        inner, meta = get_args(hint)[:2]
        repeated = get_origin(inner) is tuple
        plain = get_args(inner)[0] if get_args(inner) else inner  # of `tuple[X, ...]` and of `X | None`
        found[meta.extra["field"]] = Field(name, plain, repeated)
    return found


def decode(data: bytes, kind: type[T], depth: int = 0) -> T:
    """Read a message. Raises Malformed."""
    if depth > _DEEPEST:
        raise Malformed("nested too deeply")
    values: dict[str, Any] = {}
    known, at, before = fields(kind), 0, 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire_type = key >> 3, key & 7
        field = known.get(number)
        if field is None:
            raise Malformed(f"errUnknownField {kind.__name__!r}: field number {number}, wire type {wire_type}")
        if number < before or (number == before and not field.repeated):
            raise Malformed(f"field {number} of {kind.__name__} is out of order or given twice")
        before = number
        found, at = _value(data, at, field, wire_type, depth)
        if field.repeated:
            values[field.name] = (*values.get(field.name, ()), *found)
        else:
            (values[field.name],) = found
    return kind(**values)


def _value(data: bytes, at: int, field: Field, wire_type: int, depth: int) -> tuple[tuple[Any, ...], int]:
    if field.kind in (int, bool):
        if wire_type == _VARINT:
            number, at = _varint(data, at)
            return (_number(field, number),), at
        if wire_type == _BYTES and field.repeated:  # packed
            content, at = _bytes(data, at)
            return _packed(content, field), at
    elif wire_type == _BYTES:
        content, at = _bytes(data, at)
        if field.kind is bytes:
            return (content,), at
        if field.kind is str:
            try:
                return (content.decode(),), at
            except UnicodeDecodeError:
                raise Malformed(f"{field.name} is no UTF-8") from None
        return (decode(content, field.kind, depth + 1),), at
    raise Malformed(f"{field.name} cannot have wire type {wire_type}")


def _packed(content: bytes, field: Field) -> tuple[Any, ...]:
    values, at = [], 0
    while at < len(content):
        number, at = _varint(content, at)
        values.append(_number(field, number))
    return tuple(values)


def _number(field: Field, number: int) -> int | bool:
    if field.kind is bool:
        if number > 1:
            raise Malformed(f"{field.name} is {number}, no bool")
        return bool(number)
    return number - (1 << 64) if number >> 63 else number


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = _varint(data, at)
    if at + length > len(data):
        raise Malformed("unexpected EOF")
    return data[at : at + length], at + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_LONGEST_VARINT):
        if at + index >= len(data):
            raise Malformed("unexpected EOF")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if index and byte == 0:
                raise Malformed("a varint is longer than it need be")
            if value >= 1 << 64:
                break
            return value, at + index + 1
    raise Malformed("a varint is longer than 64 bits")


def encode(message: msgspec.Struct) -> bytes:
    """Write a message; defaults are left out, as the chain's own answers leave them out."""
    out = b""
    for number, field in sorted(fields(type(message)).items()):
        value = getattr(message, field.name)
        for each in value if field.repeated else (value,):
            out += _encoded(number, each, field.repeated)
    return out


def _encoded(number: int, value: Any, always: bool) -> bytes:
    if value is None or (not always and not isinstance(value, msgspec.Struct) and not value):
        return b""
    if isinstance(value, int):
        return _uvarint(number << 3 | _VARINT) + _uvarint(value % (1 << 64))
    if isinstance(value, msgspec.Struct):
        content = encode(value)
    else:
        content = value.encode() if isinstance(value, str) else value
    return _uvarint(number << 3 | _BYTES) + _uvarint(len(content)) + content


def _uvarint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
