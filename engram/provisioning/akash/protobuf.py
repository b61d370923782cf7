"""The part of the protobuf wire format that Cosmos transactions use, for frozen Structs.

A field of a Struct is annotated with its number; how it is written follows from its type, as gogoproto does it:

    owner: Annotated[str, 1]                 length-delimited, left out when empty
    dseq: Annotated[int, 2]                  varint of 64 bits, left out when 0; `Uint32` for 32 bits
    kind: Annotated[Kind, 1]                 an IntEnum, as its number
    id: Annotated[DeploymentID, 1]           a message, written even when empty
    reclamation: Annotated[R | None, 5]      a message, left out when None
    groups: Annotated[tuple[G, ...], 2]      repeated, one field for each; numbers too (not packed)

Decoding is strict: what this encoder (or Go's, for packed numbers) would not have written is refused, as a signed
transaction has one form only (Cosmos ADR-027). No message contains itself, so that its type bounds how deep it goes.
"""

import enum
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec

from engram.provisioning.akash.errors import MalformedMessage

M = TypeVar("M", bound=msgspec.Struct)

VARINT: Final = 0
FIXED64: Final = 1
DELIMITED: Final = 2
FIXED32: Final = 5
_UINT64: Final = 2**64

Uint32: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


def encode(message: msgspec.Struct) -> bytes:
    """Encode a message, fields in the order of their numbers. Raises ValueError for a number that does not fit."""
    written = bytearray()
    for field in _fields(type(message)):
        field.write(written, getattr(message, field.name))
    return bytes(written)


def decode(content: bytes, message: type[M]) -> M:
    """Decode a message. Raises MalformedMessage for anything else than its one form, unknown fields included."""
    return _decode(content, message, known_only=True)


def read(content: bytes, message: type[M]) -> M:
    """Decode an answer of the chain, whose newer versions may have fields that are not known here: those are skipped.

    Raises MalformedMessage.
    """
    return _decode(content, message, known_only=False)


def varint(number: int) -> bytes:
    """Encode an unsigned number of at most 64 bits. Raises ValueError.

    >>> varint(300).hex()
    'ac02'
    """
    if not 0 <= number < _UINT64:
        raise ValueError(f"{number} is no unsigned number of 64 bits")
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def fields_of(content: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield (number, wire type, value) of each field as it stands in the bytes. Raises MalformedMessage."""
    at = 0
    while at < len(content):
        key, at = _varint_at(content, at)
        number, wire_type = key >> 3, key & 7
        if not 1 <= number < 2**29:
            raise MalformedMessage(f"field number {number} is outside 1..536870911")
        if wire_type == VARINT:
            value, at = _varint_at(content, at)
            yield number, wire_type, value
            continue
        if wire_type == DELIMITED:
            size, at = _varint_at(content, at)
        elif wire_type in {FIXED32, FIXED64}:
            size = 4 if wire_type == FIXED32 else 8
        else:
            raise MalformedMessage(f"field {number} has wire type {wire_type}, which is none of 0, 1, 2 and 5")
        if size > len(content) - at:
            raise MalformedMessage(f"field {number} is cut off: {size} bytes announced, {len(content) - at} left")
        yield number, wire_type, content[at : at + size]
        at += size


def _varint_at(content: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            raise MalformedMessage("a number is cut off")
        byte = content[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >= _UINT64 or (shift and not byte):
                raise MalformedMessage("a number is longer than it needs to be")
            return number, at
    raise MalformedMessage("a number is longer than 64 bits")


class _Field(msgspec.Struct, frozen=True):
    """How one field is written and read, as its annotation says."""

    name: str
    number: int
    wire_type: int
    default: object
    repeated: bool
    always: bool
    """Written even when it is empty: a message that is not optional."""
    message: type[msgspec.Struct] | None
    to_wire: Callable[[Any], bytes]
    from_wire: Callable[[Any], Any]
    """Of a scalar; a message is read by its type."""

    def write(self, written: bytearray, value: object) -> None:
        each = typing.cast("tuple[object, ...]", value) if self.repeated else (value,)
        for one in each:
            if self.repeated or self.always or one != self.default:
                written += varint(self.number << 3 | self.wire_type)
                content = self.to_wire(one)
                if self.wire_type == DELIMITED:
                    written += varint(len(content))
                written += content

    def values(self, wire_type: int, value: int | bytes) -> Iterator[int | bytes]:
        """Yield the values on the wire: one, or those of a packed field."""
        if wire_type == self.wire_type:
            yield value
        elif self.repeated and self.wire_type == VARINT and isinstance(value, bytes) and value:
            at = 0
            while at < len(value):
                number, at = _varint_at(value, at)
                yield number
        else:
            raise MalformedMessage(f"field {self.number} ({self.name}) has wire type {wire_type}, not {self.wire_type}")


_known: Final[dict[type, tuple[_Field, ...]]] = {}


def _fields(message: type[msgspec.Struct]) -> tuple[_Field, ...]:
    found = _known.get(message)
    if found is None:
        hints = typing.get_type_hints(message, include_extras=True)
        declared = [_field_of(name, hint) for name, hint in hints.items() if typing.get_origin(hint) is Annotated]
        found = _known[message] = tuple(sorted(declared, key=lambda field: field.number))
    return found


def _field_of(name: str, hint: Any) -> _Field:
    of, *notes = typing.get_args(hint)
    number = next(note for note in notes if isinstance(note, int))
    bound = 2**32 if any(isinstance(note, msgspec.Meta) for note in notes) else _UINT64
    repeated = typing.get_origin(of) is tuple
    optional = isinstance(of, types.UnionType)
    if repeated or optional:
        of = typing.get_args(of)[0]
    message = of if issubclass(of, msgspec.Struct) else None
    wire_type, default, to_wire, from_wire = _form_of(of, bound)
    return _Field(
        name=name,
        number=number,
        wire_type=wire_type,
        default=default,
        repeated=repeated,
        always=message is not None and not optional,
        message=message,
        to_wire=to_wire,
        from_wire=from_wire,
    )


def _form_of(of: type, bound: int) -> tuple[int, object, Callable[[Any], bytes], Callable[[Any], Any]]:
    if issubclass(of, msgspec.Struct):
        return DELIMITED, None, encode, bytes
    if of is str:
        return DELIMITED, "", str.encode, lambda content: bytes(content).decode()
    if of is bytes:
        return DELIMITED, b"", bytes, bytes
    if of is bool:
        return VARINT, False, varint, lambda number: _below(number, 2) == 1
    if issubclass(of, enum.IntEnum):
        return VARINT, 0, varint, of
    return VARINT, 0, lambda number: varint(_below(number, bound)), lambda number: _below(number, bound)


def _below(number: int, bound: int) -> int:
    if number >= bound:
        raise ValueError(f"{number} is not below {bound}")
    return number


def _decode(content: bytes, message: type[M], *, known_only: bool) -> M:
    fields = {field.number: field for field in _fields(message)}
    found: dict[str, Any] = {}
    last = 0
    for number, wire_type, value in fields_of(content):
        field = fields.get(number)
        if number < last:
            raise MalformedMessage(f"field {number} of {message.__name__} stands behind field {last}")
        last = number
        if field is None:
            if known_only:
                raise MalformedMessage(f"{message.__name__} has no field {number}")
            continue
        for one in field.values(wire_type, value):
            read_value = _value(one, field, message, known_only=known_only)
            if field.repeated:
                found[field.name] = (*found.get(field.name, ()), read_value)
            elif field.name in found:
                raise MalformedMessage(f"field {number} ({field.name}) of {message.__name__} stands there twice")
            elif read_value == field.default:
                raise MalformedMessage(f"field {number} ({field.name}) of {message.__name__} is written though empty")
            else:
                found[field.name] = read_value
    for field in fields.values():
        if field.name not in found:
            found[field.name] = _absent(field, message, known_only=known_only)
    return message(**found)


def _absent(field: _Field, of: type, *, known_only: bool) -> object:
    """Return what a field stands for that is not on the wire; the Struct's own default may be another."""
    if field.repeated:
        return ()
    if not field.always or field.message is None:
        return field.default
    if known_only:
        raise MalformedMessage(f"{of.__name__} lacks field {field.number} ({field.name})")
    return _decode(b"", field.message, known_only=False)


def _value(value: int | bytes, field: _Field, of: type, *, known_only: bool) -> Any:
    if field.message is not None and isinstance(value, bytes):
        return _decode(value, field.message, known_only=known_only)
    try:
        return field.from_wire(value)
    except ValueError as error:
        raise MalformedMessage(f"field {field.number} ({field.name}) of {of.__name__}: {error}") from None
