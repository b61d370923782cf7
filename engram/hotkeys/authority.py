"""Fields of authority: those by which a request asks for privacy, ownership or identity.

Such a field is obeyed or refused, never ignored: what came with one that is not understood would be stored or shown
under less privacy than was asked for. Each surface has one table of the fields that each of its operations
understands; these functions hold a request against it. Names are compared by their letters and digits alone, in
Unicode's compatibility form and without case, so that neither `namespaceKey` nor `namespace_key ` nor a full-width
spelling is a way around `namespace_key`. Pure; no surface's own error is raised here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

_OF_PRIVACY: Final = ("private", "is_private", "public", "is_public", "visibility", "tenant", "tenant_id")

FIELDS: Final = frozenset(
    {
        *("namespace", "namespace_key", "namespace_hotkey", "namespace_sig", "namespace_signature"),
        *("namespace_timestamp", "namespace_timestamp_ms", "namespace_sig_version", "namespace_owner"),
        *("hotkey", "nonce", "sig", "signature", "signed_for", "timestamp", "timestamp_ms"),
        *("owner", "owner_hotkey", "controller", "controller_hotkey", "controller_public_key"),
        *("namespace_id", "namespace_name", *_OF_PRIVACY),
    }
)
"""Every spelling that asks for authority somewhere, or that a client could believe to."""

_NOTHING: Final = (None, "")
"""Values that ask for nothing: clients send them for what they were not given."""


_NO_LETTERS: Final = re.compile(r"[\W_]+")
_LONGEST_SPELLED: Final = 256
"""Longest name that is compared; a longer one cannot be mistaken for one of these."""


def _folded(name: str) -> str:
    """Return the name in the form in which names are compared; empty when it is too long to be one of them."""
    if len(name) > _LONGEST_SPELLED:
        return ""
    letters = _NO_LETTERS.sub("", name)
    if letters.isascii() or len(letters) > _LONGEST:
        return letters.lower()
    return _NO_LETTERS.sub("", unicodedata.normalize("NFKC", letters)).casefold()


_LONGEST: Final = max(map(len, FIELDS))
_FOLDED: Final = frozenset(map(_folded, FIELDS))
_PRIVACY: Final = frozenset(
    name for name in _FOLDED if name.startswith("namespace") or name in map(_folded, _OF_PRIVACY)
)


def _core(name: str) -> str:
    """Return the folded name without the prefixes `x-` (not standardized) and `engram-` (this program's)."""
    return _folded(name).removeprefix("x").removeprefix("engram")


def is_authority(name: str) -> bool:
    """Return whether a field or parameter of this name asks for authority.

    >>> [is_authority(name) for name in ("namespace", "namespaceKey", "_hotkey", "text", "nonce_hex")]
    [True, True, True, False, False]
    """
    return _core(name) in _FOLDED


def is_privacy(name: str) -> bool:
    """Return whether a field of this name asks for privacy: what it comes with would be shown, were it ignored.

    >>> [is_privacy(name) for name in ("namespace", "isPrivate", "hotkey")]
    [True, True, False]
    """
    return _core(name) in _PRIVACY


def asks(fields: Mapping[str, object], name: str) -> bool:
    """Return whether a field is there and asks for something: null and an empty text do not."""
    return fields.get(name) not in _NOTHING


def misplaced(fields: Mapping[str, object], understood: frozenset[str]) -> str | None:
    """Return the first field of authority that is not among `understood`; None when there is none.

    >>> misplaced({"text": "a", "owner": "5F…"}, frozenset({"hotkey"}))
    'owner'
    >>> misplaced({"text": "a", "owner": None, "hotkey": "5F…"}, frozenset({"hotkey"})) is None
    True
    """
    for name in fields:
        if name not in understood and is_authority(name) and asks(fields, name):
            return name
    return None


def repeated(names: Iterable[str]) -> str | None:
    """Return the first name of authority that comes twice, however it is spelled; None when none does.

    >>> repeated(["cid", "cid", "namespace", "Namespace"])
    'Namespace'
    """
    seen: set[str] = set()
    for name in names:
        if is_authority(name):
            folded = _core(name)
            if folded in seen:
                return name
            seen.add(folded)
    return None
