"""Fields of authority: those by which a request asks for privacy, ownership or identity.

Such a field is obeyed or refused, never ignored: what came with one that is not understood would be stored or shown
under less privacy than was asked for. Each surface has one table of the fields that each of its operations
understands; these functions hold a request against it. Names are compared without case, `_` and `-`, so that
`namespaceKey` is no way around `namespace_key`. Pure; no surface's own error is raised here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

FIELDS: Final = frozenset(
    {
        *("namespace", "namespace_key", "namespace_hotkey", "namespace_sig", "namespace_signature"),
        *("namespace_timestamp", "namespace_timestamp_ms", "namespace_sig_version", "namespace_owner"),
        *("hotkey", "nonce", "sig", "signature", "signed_for", "timestamp", "timestamp_ms"),
        *("owner", "owner_hotkey", "controller", "controller_hotkey", "controller_public_key"),
        *("private", "visibility", "tenant"),
    }
)
"""Every spelling that asks for authority somewhere, or that a client could believe to."""

_NOTHING: Final = (None, "")
"""Values that ask for nothing: clients send them for what they were not given."""


def _folded(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()


_FOLDED: Final = frozenset(map(_folded, FIELDS))
_LONGEST: Final = 2 * max(map(len, FIELDS))


def is_authority(name: str) -> bool:
    """Return whether a field or parameter of this name asks for authority.

    >>> [is_authority(name) for name in ("namespace", "namespaceKey", "_hotkey", "text", "nonce_hex")]
    [True, True, True, False, False]
    """
    return len(name) <= _LONGEST and _folded(name) in _FOLDED


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
            folded = _folded(name)
            if folded in seen:
                return name
            seen.add(folded)
    return None
