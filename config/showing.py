"""Effective settings for display, with possible secrets masked."""

from config.keys import MASK, is_secret, mask_url
from config.loader import Loaded


def shown(loaded: Loaded, key: str) -> object:
    """Return the effective value of `key`, masked where it may hold a secret (also inside URLs)."""
    section, dot, name = key.partition(".")
    value: object = getattr(getattr(loaded.settings, section), name) if dot else getattr(loaded.settings, section)
    if is_secret(key):
        return MASK if value else value
    if isinstance(value, tuple):
        return tuple(mask_url(item) if isinstance(item, str) else item for item in value)
    return mask_url(value) if isinstance(value, str) else value
