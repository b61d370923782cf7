"""Which records a search or a listing looks at, by their metadata: one typed filter for every index and the database.

Metadata are text on a node, so a value is compared with what it is stored as:

| condition | holds for |
|---|---|
| text | that very text |
| number | a number of the same value, stored as an integer or as a float: 1 and 1.0 are equal |
| true, false | what was stored from true or false, never from 1 or 0 |
| null | what was stored from null; a key that is missing equals nothing |
| `{"$exists": true}` | a key that is there, whatever its value |

Types are lost when metadata are stored: text that is spelled like the number, "True" or "None" is equal too. Everything
else is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from engram.memory.errors import InvalidRequest

MAX_KEYS: Final = 16
_EXISTS: Final = "$exists"
_LONGEST_SHOWN: Final = 60


class Condition(msgspec.Struct, frozen=True):
    """What one key must be: one of `values`, or anything that is there when they are None."""

    key: str
    values: tuple[str, ...] | None

    def holds(self, metadata: Mapping[str, str]) -> bool:
        """Return whether a record with these metadata meets the condition."""
        found = metadata.get(self.key)
        return found is not None and (self.values is None or found in self.values)


class Filter(msgspec.Struct, frozen=True):
    """All conditions must hold; without any, every record is looked at."""

    conditions: tuple[Condition, ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is any condition."""
        return bool(self.conditions)

    def holds(self, metadata: Mapping[str, str]) -> bool:
        """Return whether a record with these metadata meets all conditions."""
        return all(each.holds(metadata) for each in self.conditions)


EVERYTHING: Final = Filter()


def one_of(key: str, values: Iterable[str]) -> Filter:
    """Return the filter for metadata whose `key` is one of these texts."""
    return Filter((Condition(key, tuple(values)),))


def parse(fields: Mapping[str, object]) -> Filter:
    """Return the filter that a client wrote as JSON.

    Raises InvalidRequest for more than MAX_KEYS keys and for a value that is not understood.
    """
    if len(fields) > MAX_KEYS:
        raise InvalidRequest(f"filter may have at most {MAX_KEYS} keys, not {len(fields)}.")
    return Filter(tuple(Condition(key, _values(key, value)) for key, value in fields.items()))


def spellings(value: float) -> tuple[str, ...]:
    """Return every form in which a number of this value is stored: as an integer, as a float.

    >>> spellings(1), spellings(2.5), spellings(0.0)
    (('1', '1.0'), ('2.5',), ('0', '0.0', '-0.0'))
    """
    forms = [str(value if value != int(value) else int(value))]
    try:
        as_float = float(value)
    except OverflowError:
        return tuple(forms)
    if as_float == value:
        forms.append(str(as_float))
    return ("0", "0.0", "-0.0") if value == 0 else tuple(dict.fromkeys(forms))


def _values(key: str, value: object) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return (value,)
    if value is None or isinstance(value, bool):
        return (str(value),)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return spellings(value)
    if isinstance(value, dict) and list(value) == [_EXISTS] and value[_EXISTS] is True:
        return None
    raise InvalidRequest(
        f"filter.{key[:_LONGEST_SHOWN]} is {_shown(value)}, which is not understood: it must be a text, a number, "
        'true, false, null or {"$exists": true}.'
    )


def _shown(value: object) -> str:
    if isinstance(value, dict) and len(value) == 1:
        return f"an object with {str(*value)[:_LONGEST_SHOWN]!r}"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return str(value)[:_LONGEST_SHOWN]
