"""JSON as Python's `json.dumps` writes it: the form that miners' signatures cover.

Canonical: keys sorted at every level by code point, no spaces, non-ASCII escaped, floats in Python's repr (`1.0`
stays `1.0`, `1e-7` becomes `1e-07`). Signers in other languages spell numbers their own way, so a second canonical
text keeps every number exactly as it was sent. Both are offered; a signature over either holds.
"""

import json
import math
import secrets
from collections.abc import Callable, Iterator
from json.encoder import encode_basestring_ascii
from typing import Final, NoReturn, TypeAlias, final

import msgspec

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]

MAX_DEPTH = 64
"""Levels of arrays and objects that a body may have."""
_PIECE: Final = 4_096
"""Numbers of a list that are written at once: about 1 ms."""
_PART: Final = 131_072
"""Bytes of a text in which marks are looked for at once: about 1 ms."""
_MOST_VALUES: Final = 2**20
"""Commas of a body, those in its strings counted: 256 vectors of 4,000 numbers."""
_MOST_CONTAINERS: Final = 2**18
"""Arrays and objects of a body, or their signs in its strings. More values, or more of these, would be read for more
than some 20 ms in which no other thread runs."""
_CONTAINERS: Final = frozenset((dict, list))
_FLOATS: Final = {float}
_quick: Final = msgspec.json.Encoder()


@final
class MalformedJson(Exception):
    """The bytes are no JSON object that can be signed; the message says why."""


def parse_object(content: bytes) -> JsonObject:
    """Return the JSON object in `content` (UTF-8).

    Refused, since two readers could see two different objects: duplicate keys, NaN and Infinity, numbers too large
    for a double, a byte order mark, nesting deeper than MAX_DEPTH. Raises MalformedJson.
    """
    return _less(_load(content), frozenset())


@final
class ReadObject:
    """A JSON object and what its canonical texts need, read once."""

    def __init__(self, content: bytes) -> None:
        """Raise MalformedJson as `parse_object` does."""
        self._content = content
        self.fields: JsonObject = _less(_load(content), frozenset())

    def canonical_forms(self, *, without: frozenset[str]) -> Iterator[bytes]:
        """Yield the canonical texts less the top-level keys `without`; see the function of this name."""
        text = canonical(_less(self.fields, without))
        yield text
        spelled = _unmarked(canonical(_less(_load_marked(self._content), without)))
        if spelled != text:
            yield spelled


def canonical(value: JsonValue) -> bytes:
    """Python's own canonical text of `value`."""
    return _text(value).encode("ascii")


_dumped: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
"""Lets no other thread run until it is done."""


def _text(value: JsonValue) -> str:
    """As `_dumped` writes it, in small parts."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{encode_basestring_ascii(key)}:{_text(value[key])}" for key in sorted(value)) + "}"
    if not isinstance(value, list):
        return _dumped(value)
    return "[" + ",".join(_items(value[start : start + _PIECE]) for start in range(0, len(value), _PIECE)) + "]"


def _items(piece: list[JsonValue]) -> str:
    kinds = set(map(type, piece))
    if kinds == _FLOATS:
        return _floats(piece)
    if _CONTAINERS.isdisjoint(kinds):
        return _dumped(piece)[1:-1]
    return ",".join(map(_text, piece))


def _floats(piece: list[JsonValue]) -> str:
    """Write a vector's numbers by msgspec, which takes a tenth of the time and spells few of them otherwise.

    Both write the shortest digits. They differ for numbers below 0.0001, from 10**16 on, and for those that are none.
    """
    text = _quick.encode(piece)[1:-1].decode("ascii")
    if not ("e" in text or "0.0000" in text or "null" in text):
        return text
    texts = text.split(",")
    for place, text in enumerate(texts):
        if "e" in text or "0.0000" in text or text == "null":
            texts[place] = _dumped(piece[place])
    return ",".join(texts)


def canonical_forms(content: bytes, *, without: frozenset[str]) -> Iterator[bytes]:
    """Yield the canonical texts of the object in `content` less its top-level keys `without`.

    First with numbers as Python spells them, then, if that differs, as they were spelled. Raises MalformedJson.
    """
    yield from ReadObject(content).canonical_forms(without=without)


def _less(value: JsonValue, without: frozenset[str]) -> JsonObject:
    if not isinstance(value, dict):
        raise MalformedJson("the body is not a JSON object")
    return {key: item for key, item in value.items() if key not in without}


_MARK: Final = secrets.token_hex(8)
"""Stands before and behind a number that is read as it was spelled. Nobody outside knows it, so no string can pass for
a number."""


def _float(text: str) -> float:
    """Written in Python, as `_int` and `_marked` are, so that other threads get their turn between two numbers."""
    number = float(text)
    if math.isinf(number):
        raise MalformedJson(f"the number {text[:40]} is too large")
    return number


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise MalformedJson(f"a number of {len(text)} digits is too large") from None


def _load(content: bytes) -> JsonValue:
    return _parse(content, _AS_NUMBERS)


def _load_marked(content: bytes) -> JsonValue:
    """With each number as a marked string. The numbers were looked at before, when the content was read."""
    return _parse(content, _SPELLED)


def _marked(number: str) -> str:
    return f"{_MARK}{number}{_MARK}"


def _unmarked(text: bytes) -> bytes:
    mark, parts, start = _MARK.encode("ascii"), list[bytes](), 0
    while start < len(text):
        end = text.find(b",", start + _PART)  # there is none within a mark
        part = text[start:] if end < 0 else text[start:end]
        parts.append(part.replace(b'"' + mark, b"").replace(mark + b'"', b""))
        start += len(part)
    return b"".join(parts)


def _parse(content: bytes, decoder: json.JSONDecoder) -> JsonValue:
    containers = content.count(b"[") + content.count(b"{")
    if containers > _MOST_CONTAINERS:
        raise MalformedJson(f"the body has more than {_MOST_CONTAINERS} arrays and objects")
    if content.count(b",") > _MOST_VALUES:
        raise MalformedJson(f"the body has more than {_MOST_VALUES} values")
    try:
        value: JsonValue = decoder.decode(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise MalformedJson("the body is not UTF-8") from None
    except RecursionError:
        raise MalformedJson("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise MalformedJson(f"the body is not JSON: {error}") from None
    if containers > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise MalformedJson("the body is nested too deeply")
    return value


def _depth(value: JsonValue) -> int:
    """Return the nesting depth of `value`, counted level by level to avoid recursion."""
    depth, level = 0, [value]
    while containers := [item for item in level if isinstance(item, list | dict)]:
        depth += 1
        level = [inner for item in containers for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


def _unique(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise MalformedJson("the body names a key twice")
    return result


def _refuse_constant(text: str) -> NoReturn:
    raise MalformedJson(f"{text} is not JSON")


def _decoder(parse_float: Callable[[str], object], parse_int: Callable[[str], object]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=parse_float, parse_int=parse_int
    )


_AS_NUMBERS: Final = _decoder(_float, _int)
_SPELLED: Final = _decoder(_marked, _marked)
