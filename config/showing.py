"""Effective settings as they may be shown: what could be a secret is masked."""

import re
from typing import Final

from .keys import is_secret
from .loader import Loaded

MASK: Final = "***"

_USER: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_QUERY: Final = re.compile(r"(?<=[?&])([^=&#\s]+)=[^&#\s]+")


def shown(loaded: Loaded, key: str) -> object:
    """Return the effective value of `key`, masked where it may hold a secret (also inside URLs)."""
    section, dot, name = key.partition(".")
    value: object = getattr(getattr(loaded.settings, section), name) if dot else getattr(loaded.settings, section)
    if is_secret(key):
        return MASK if value else value
    if isinstance(value, tuple):
        return tuple(mask_url(item) if isinstance(item, str) else item for item in value)
    return mask_url(value) if isinstance(value, str) else value


def mask_url(text: str) -> str:
    """Return the text without the user, password and query values that a URL in it carries.

    >>> mask_url("https://key:secret@rpc.example/v1?token=abc&x=1")
    'https://***@rpc.example/v1?token=***&x=***'
    """
    return _QUERY.sub(rf"\1={MASK}", _USER.sub(MASK, text))
