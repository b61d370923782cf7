"""Documents as YAML that people and every reader of YAML 1.1 and 1.2 understand; nothing is ever read as YAML here."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

_PLAIN: Final = re.compile(r"[A-Za-z_/][-A-Za-z0-9_./@]*(?::[-A-Za-z0-9_./@]+)*", re.ASCII)
_RESERVED: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def dump(document: object) -> str:
    """Return mappings, sequences, text, numbers, booleans and None as YAML; text that might be read as something else
    is quoted.
    """
    return "".join(f"{line}\n" for line in _lines(document))


def _lines(value: object) -> Iterator[str]:
    match value:
        case Mapping() if value:
            for key, one in value.items():
                yield from _entry(f"{_scalar(key)}:", one)
        case list() | tuple() if value:
            for one in value:
                first, *rest = _lines(one)
                yield f"- {first}"
                yield from (f"  {line}" for line in rest)
        case _:
            yield _scalar(value)


def _entry(head: str, value: object) -> Iterator[str]:
    if isinstance(value, Mapping | list | tuple) and value:
        yield head
        yield from (f"  {line}" for line in _lines(value))
    else:
        yield f"{head} {_scalar(value)}"


def _scalar(value: object) -> str:
    match value:
        case str() if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
            return value
        case str():
            return "".join(map(_printed, json.dumps(value, ensure_ascii=False)))
        case Mapping():
            return "{}"
        case list() | tuple():
            return "[]"
        case _:
            return json.dumps(value)


def _printed(character: str) -> str:
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
