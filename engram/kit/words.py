"""A body that does not fit its type, in words: `Missing query`, `Query too long`, `Query must be string`.

These are the texts of the usual validation of miners; msgspec's own text is kept for whatever else is wrong.
"""

import re
from typing import Final

import msgspec

_MISSING: Final = re.compile(r"Object missing required field `(?P<field>[^`]+)`")
_LENGTH: Final = re.compile(r"Expected `str` of length (?P<sign><=|>=) (?P<bound>\d+) - at `\$\.(?P<field>[^`]+)`")
_TYPE: Final = re.compile(r"Expected `(?P<wanted>[^`]+)`, got `[^`]+` - at `\$\.(?P<field>[^`]+)`")
_NAMES: Final = {"str": "string", "int": "an integer", "float": "a number", "bool": "true or false"}


class Misfit(msgspec.Struct, frozen=True):
    """What is wrong with a body; `field` is empty where it is none's."""

    detail: str
    field: str


def misfit(text: str) -> Misfit:
    """Return msgspec's text in the words of miners.

    >>> misfit("Expected `str`, got `int` - at `$.query`").detail
    'Query must be string'
    >>> misfit("Expected `str` of length >= 3 - at `$.query`").detail
    'Query too short'
    >>> misfit("Object missing required field `query`").detail
    'Missing query'
    >>> misfit("Expected an object").detail
    'Expected an object'
    """
    if (found := _MISSING.match(text)) is not None:
        return Misfit(f"Missing {found['field']}", found["field"])
    if (found := _LENGTH.match(text)) is not None:
        field = found["field"]
        if found["sign"] == "<=":
            return Misfit(f"{_name(field)} too long", field)
        return Misfit(f"Missing {field}" if found["bound"] == "1" else f"{_name(field)} too short", field)
    if (found := _TYPE.match(text)) is not None:
        wanted = _NAMES.get(found["wanted"], found["wanted"])
        return Misfit(f"{_name(found['field'])} must be {wanted}", found["field"])
    return Misfit(text, "")


def _name(field: str) -> str:
    return field[:1].upper() + field[1:]
