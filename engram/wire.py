"""Typed decoding: the one place where msgspec builds what it decodes a type with.

Up to 0.22 msgspec published a Struct's layout (a dataclass's, TypedDict's and NamedTuple's as well) before its fields
were filled. A second thread that met the type meanwhile read the half-built layout, and the process died by SIGSEGV:
22 of 25 processes whose 8 threads first decode the same type at once; none of 25 with msgspec 0.23, which is what we
require. Here layouts are built one at a time under a lock, and a decoder is handed out only once all of its layout is
there, whatever the version. Encoding builds nothing and needs no seam.

`tests/house/test_decoding.py` refuses msgspec's own typed decoding anywhere else.
"""

import json
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

import msgspec

T = TypeVar("T")

_json: Final[dict[object, msgspec.json.Decoder[Any]]] = {}
_msgpack: Final[dict[object, msgspec.msgpack.Decoder[Any]]] = {}
_building: Final = threading.Lock()


@overload
def decoder(type_: type[T]) -> msgspec.json.Decoder[T]: ...
@overload
def decoder(type_: object) -> msgspec.json.Decoder[Any]: ...
def decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    """Return the JSON decoder of a type, built once a process. Any number of threads may ask for it and use it at once.

    The type is hashable and lives as long as the process: never one made for a single call.
    """
    found = _json.get(type_)
    return _built(_json, type_, msgspec.json.Decoder) if found is None else found


@overload
def decode(content: bytes | bytearray | memoryview | str, type_: type[T]) -> T: ...
@overload
def decode(content: bytes | bytearray | memoryview | str, type_: object) -> Any: ...
def decode(content: bytes | bytearray | memoryview | str, type_: Any) -> Any:
    """Decode JSON as this type. Raises msgspec.ValidationError, msgspec.DecodeError (no UTF-8, too deep a nest)."""
    try:
        return decoder(type_).decode(content)
    except RecursionError:  # not of msgspec's own kind, and forgotten where a stranger's answer is read
        raise msgspec.DecodeError("JSON is nested too deeply") from None


def require_unique_names(content: bytes) -> None:
    """Check that no object of a JSON document, which was decoded already, has a name twice. Raises msgspec.DecodeError.

    Decoders keep the last value of such a name: what is signed would not be all that others read.
    """
    try:
        json.loads(content, object_pairs_hook=_unique)
    except RecursionError:
        raise msgspec.DecodeError("JSON is nested too deeply") from None
    except ValueError as error:
        raise msgspec.DecodeError(str(error)) from None


def _unique(pairs: list[tuple[str, object]]) -> None:
    seen = set[str]()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"the name {name[:40]!r} is there twice")
        seen.add(name)


@overload
def convert(value: object, type_: type[T], *, attributes: bool = False, octets: bool = False) -> T: ...
@overload
def convert(value: object, type_: object, *, attributes: bool = False, octets: bool = False) -> Any: ...
def convert(value: object, type_: Any, *, attributes: bool = False, octets: bool = False) -> Any:
    """Convert what was decoded without a type. Raises msgspec.ValidationError.

    `attributes` takes fields from the value's attributes as well; with `octets` bytes stand for themselves, as in a
    row of a database, and are not the base64 of a document.
    """
    msgpack_decoder(type_)
    builtin_types = (bytes,) if octets else None
    return msgspec.convert(value, type_, from_attributes=attributes, builtin_types=builtin_types)


@overload
def msgpack_decoder(type_: type[T]) -> msgspec.msgpack.Decoder[T]: ...
@overload
def msgpack_decoder(type_: object) -> msgspec.msgpack.Decoder[Any]: ...
def msgpack_decoder(type_: Any) -> msgspec.msgpack.Decoder[Any]:
    """Return the MessagePack decoder of a type, as `decoder` does."""
    found = _msgpack.get(type_)
    return _built(_msgpack, type_, msgspec.msgpack.Decoder) if found is None else found


D = TypeVar("D")


def _built(known: dict[object, D], type_: Any, build: Callable[[Any], D]) -> D:
    with _building:
        found = known.get(type_)
        if found is None:
            found = known[type_] = build(type_)
        return found
