"""Which records a search or a listing looks at, by their metadata: one typed filter for every index and the database.

Metadata are text on a node, so a value is compared with what it is stored as:

| condition | holds for |
|---|---|
| text | that very text |
| number | a number of the same value, stored as an integer or as a float: 1 and 1.0 are equal |
| true, false | what was stored from true or false, never from 1 or 0 |
| null | what was stored from null; a key that is missing equals nothing |
| `{"$in": [...]}` | any one of these values |
| `{"$gt": x}`, `$gte`, `$lt`, `$lte` | numbers in that range; with a text as bound, texts in that order (ISO dates) |
| `{"$exists": true}` | a key that is there, whatever its value |

Types are lost when metadata are stored: text that is spelled like the number, "True" or "None" is equal too. A range of
numbers holds for no value that is not a finite number, and for none that is missing. Everything else is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import msgspec

from engram.memory.errors import InvalidRequest

MAX_KEYS: Final = 16
MAX_VALUES: Final = 64
"""The most values of one `$in`."""
Bound: TypeAlias = float | str
_EXISTS: Final = "$exists"
_IN: Final = "$in"
_LOWER: Final = ("$gt", "$gte")
_UPPER: Final = ("$lt", "$lte")
_LONGEST_SHOWN: Final = 60
_NUMBER: Final = re.compile(r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\Z", re.ASCII)
_LONGEST_NUMBER: Final = 400


class Range(msgspec.Struct, frozen=True):
    """Values between two bounds of one type; None is no bound. A bound is itself in the range unless it is `open`."""

    least: Bound | None = None
    most: Bound | None = None
    least_is_open: bool = False
    most_is_open: bool = False

    def holds(self, found: str) -> bool:
        """Return whether a stored value is in the range."""
        value: Bound | None = found
        if not isinstance(self.least if self.most is None else self.most, str):
            value = number_of(found)
        if value is None:
            return False
        return not (self._is_below(value) or self._is_above(value))

    def _is_below(self, value: Bound) -> bool:
        if self.least is None:
            return False
        return value < self.least or (self.least_is_open and value == self.least)  # type: ignore[operator]  # of one type

    def _is_above(self, value: Bound) -> bool:
        if self.most is None:
            return False
        return value > self.most or (self.most_is_open and value == self.most)  # type: ignore[operator]  # of one type


class Condition(msgspec.Struct, frozen=True):
    """What one key must be: one of `values`, or within `range`, or anything that is there when both are None."""

    key: str
    values: tuple[str, ...] | None
    range: Range | None = None

    def holds(self, metadata: Mapping[str, str]) -> bool:
        """Return whether a record with these metadata meets the condition."""
        found = metadata.get(self.key)
        return found is not None and self.admits(found)

    def admits(self, found: str) -> bool:
        """Return whether the key may have this value."""
        return (self.values is None or found in self.values) and (self.range is None or self.range.holds(found))


class Filter(msgspec.Struct, frozen=True):
    """All conditions must hold; without any, every record is looked at.

    With `current`, only records that are neither superseded nor expired (engram.memory.model.Validity).
    """

    conditions: tuple[Condition, ...] = ()
    current: bool = False

    def __bool__(self) -> bool:
        """Return whether there is any condition."""
        return bool(self.conditions)

    @property
    def has_ranges(self) -> bool:
        """Whether an index that knows marks of single values cannot apply all of it."""
        return any(each.range is not None for each in self.conditions)

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
    return Filter(tuple(_condition(key, value) for key, value in fields.items()))


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


def number_of(text: str) -> float | None:
    """Return the finite number that a stored value is; None for any other.

    >>> [number_of(text) for text in ("3", "-2.5e3", "True", "nan", "1_000", "")]
    [3.0, -2500.0, None, None, None, None]
    """
    if len(text) > _LONGEST_NUMBER or _NUMBER.match(text) is None:
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _condition(key: str, value: object) -> Condition:
    if isinstance(value, dict):
        if list(value) == [_EXISTS] and value[_EXISTS] is True:
            return Condition(key, None)
        if list(value) == [_IN]:
            return Condition(key, _any_of(key, value[_IN]))
        if (within := _range(value)) is not None:
            return Condition(key, None, within)
    found = _values(value)
    if found is None:
        raise _not_understood(key, value)
    return Condition(key, found)


def _any_of(key: str, listed: object) -> tuple[str, ...]:
    if not isinstance(listed, list | tuple) or not 0 < len(listed) <= MAX_VALUES:
        raise InvalidRequest(f"filter.{key[:_LONGEST_SHOWN]} has a $in that is not a list of 1 to {MAX_VALUES} values.")
    found: list[str] = []
    for each in listed:
        spelled = _values(each)
        if spelled is None:
            raise _not_understood(key, each)
        found += spelled
    return tuple(dict.fromkeys(found))


def _range(value: Mapping[object, object]) -> Range | None:
    """Return the range of an object of bounds; None when it is none: unknown words, two bounds of one side, or bounds
    that are not both numbers or both texts."""
    words = list(value)
    if not words or not all(word in (*_LOWER, *_UPPER) for word in words):
        return None
    lower, upper = [word for word in words if word in _LOWER], [word for word in words if word in _UPPER]
    bounds = [_bound(each) for each in value.values()]
    if len(lower) > 1 or len(upper) > 1 or None in bounds or len({isinstance(each, str) for each in bounds}) > 1:
        return None
    return Range(
        _bound(value[lower[0]]) if lower else None,
        _bound(value[upper[0]]) if upper else None,
        lower == ["$gt"],
        upper == ["$lt"],
    )


def _bound(value: object) -> Bound | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _values(value: object) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return (value,)
    if value is None or isinstance(value, bool):
        return (str(value),)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return spellings(value)
    return None


def _not_understood(key: str, value: object) -> InvalidRequest:
    return InvalidRequest(
        f"filter.{key[:_LONGEST_SHOWN]} is {_shown(value)}, which is not understood: it must be a text, a number, "
        'true, false, null or {"$exists": true}, {"$in": [...]}, or a range: $gt or $gte, $lt or $lte, with numbers '
        "or texts."
    )


def _shown(value: object) -> str:
    if isinstance(value, dict) and len(value) == 1:
        return f"an object with {str(*value)[:_LONGEST_SHOWN]!r}"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return str(value)[:_LONGEST_SHOWN]
