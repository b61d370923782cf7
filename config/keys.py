"""The settings as a flat table of dotted keys, and how one value is read and described.

Every setting lies at most one section deep, so that `gateway.port` names it everywhere: in TOML as `port` under
`[gateway]`, on the command line and in `engram config show`.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Final, Literal, get_args, get_origin

import msgspec

from config.model import Section, Settings


def _keys() -> dict[str, object]:
    found: dict[str, object] = {}
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            found |= {f"{field.name}.{inner.name}": inner.type for inner in msgspec.structs.fields(field.type)}
        else:
            found[field.name] = field.type
    return found


KEYS: Final[Mapping[str, object]] = MappingProxyType(_keys())
"""Type of every setting by its dotted key, in the order of `config.model`."""

SECTIONS: Final = tuple(dict.fromkeys(key.partition(".")[0] for key in KEYS if "." in key))

SECRET_WORDS: Final = ("password", "secret", "token", "mnemonic", "seed", "dsn", "private_key", "api_key")
"""A key with one of these words in its last part is masked wherever settings are shown."""


def is_secret(key: str) -> bool:
    """Tell whether the value of a setting must not be shown; where a file with a secret lies is no secret.

    >>> is_secret("payments.rpc_token"), is_secret("miner.hotkey_password_file")
    (True, False)
    """
    name = key.rpartition(".")[2]
    return not name.endswith("_file") and any(word in name for word in SECRET_WORDS)


MASK: Final = "***"

_USER: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_QUERY: Final = re.compile(r"(?<=[?&])([^=&#\s]+)=[^&#\s]+")


def mask_url(text: str) -> str:
    """Return the text without the user, password and query values that a URL in it carries.

    >>> mask_url("https://key:secret@rpc.example/v1?token=abc&x=1")
    'https://***@rpc.example/v1?token=***&x=***'
    """
    return _QUERY.sub(rf"\1={MASK}", _USER.sub(MASK, text))


def read_value(key: str, value: object) -> object:
    """Return a value of TOML or JSON as the setting's type. Raises ValueError saying what would be right."""
    return _convert(key, value, "a table" if isinstance(value, dict) else repr(value), strict=True)


_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def read_text(key: str, text: str) -> object:
    """Return the text of a variable or flag as the setting's type; lists are separated by commas, or are JSON.

    Raises ValueError saying what would be right.
    """
    hint = _bare(KEYS[key])
    if hint is bool:
        word = text.strip().lower()
        if word not in _TRUE | _FALSE:
            raise ValueError(f"{text!r} is not {describe(hint)}")
        return word in _TRUE
    if get_origin(hint) is tuple:
        return _convert(key, _parts(text), repr(text), strict=False)
    if get_origin(hint) is Literal:
        return _convert(key, _same_word(text.strip(), get_args(hint)), repr(text), strict=False)
    return _convert(key, text if hint is str else text.strip(), repr(text), strict=False)


def _parts(text: str) -> object:
    """Return what a list's text holds: JSON when it stands in brackets, else parts between commas."""
    if not text.strip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise ValueError(f"{text!r} is neither a JSON list nor parts between commas") from None


def _same_word(text: str, choices: Iterable[str]) -> str:
    """Return the choice that differs from the text by case alone, else the text."""
    return next((choice for choice in choices if choice.lower() == text.lower()), text)


def _convert(key: str, value: object, shown: str, *, strict: bool) -> object:
    try:
        converted = msgspec.convert(value, KEYS[key], strict=strict)
    except msgspec.ValidationError:
        raise ValueError(f"{shown} is not {describe(KEYS[key])}") from None
    if isinstance(converted, float) and not (math.isfinite(converted) and _is_enough(converted, KEYS[key])):
        raise ValueError(f"{shown} is not {describe(KEYS[key])}")
    return converted


def _is_enough(value: float, hint: object) -> bool:
    """Return whether a value that is not 0 has at least the size below which it would be rounded away."""
    least = _least(hint)
    return value == 0 or least is None or value >= least


def _least(hint: object) -> float | None:
    metas = (meta for meta in get_args(hint)[1:] if isinstance(meta, msgspec.Meta))
    return next((meta.extra["least"] for meta in metas if meta.extra and "least" in meta.extra), None)


def _bare(hint: object) -> object:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


_NOUNS: Final[Mapping[object, str]] = MappingProxyType({int: "a whole number", float: "a number", str: "text"})


def describe(hint: object) -> str:
    """Say in words what a setting takes.

    >>> describe(KEYS["gateway.port"])
    'a whole number from 0 to 65535'
    >>> describe(KEYS["shutdown.nodes"])
    'one of keep, stop'
    """
    bare = _bare(hint)
    if bare is bool:
        return "true or false (in the environment also 1 or 0)"
    if get_origin(bare) is Literal:
        return f"one of {', '.join(get_args(bare))}"
    if get_origin(bare) is tuple:
        return f"a list, each {describe(get_args(bare)[0])}"
    noun = _NOUNS.get(bare, str(bare))
    return noun + "".join(_bounds(meta) for meta in get_args(hint)[1:] if isinstance(meta, msgspec.Meta))


def _bounds(meta: msgspec.Meta) -> str:
    start = f" greater than {meta.gt}" if meta.gt is not None else ""
    least = (meta.extra or {}).get("least")
    if least is not None:
        return f"{start or ' that is 0 or'}, from {decimal(least)} to {decimal(meta.le)}"
    match meta.ge, meta.le, meta.lt:
        case None, _, _:
            return start
        case low, None, below:
            return f" from {low} to less than {below}"
        case low, high, _ if high > _LARGE:
            return f" of at least {low}, at most {decimal(high)}"
        case _:
            return f" from {meta.ge} to {meta.le}"


_LARGE: Final = 100_000
"""Bounds above it only keep numbers from being absurd."""


def decimal(number: float | None) -> str:
    """Write a number without an exponent and without zeros that say nothing.

    >>> decimal(0.000001), decimal(31_536_000), decimal(2.50)
    ('0.000001', '31536000', '2.5')
    """
    return format(Decimal(repr(number or 0)).normalize(), "f")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint naming the known word that is most like `word`, or nothing.

    >>> nearest("gatway", ["gateway", "miner"])
    "; did you mean 'gateway'?"
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
