"""Which fields of authority each operation of a node understands, in one table; all others are refused.

An operation is named as it is signed, and no two share a name: a signature made for one is good for no other.
`require` is applied where a body is read (auth.py), to whatever came, signed or not. A field that contradicts another
is refused as one that is not understood: both would have to be obeyed. What asks for privacy within another field, as
`{"synapse": {"namespace": …}}` does, is refused too; metadata, filters and messages are a client's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from engram.hotkeys import authority, miner_scheme
from engram.http.asgi import Scope
from engram.http.authority import CODE, Read
from engram.memory.model import PUBLIC
from engram.miner.errors import Refused

_SIGNED: Final = miner_scheme.SIGNING_FIELDS | {miner_scheme.SIGNED_FOR}
_NAMESPACE: Final = miner_scheme.NAMESPACE_FIELDS | {miner_scheme.NAMESPACE_VERSION}
_SPACED: Final = _SIGNED | _NAMESPACE | {"namespace", "namespace_key"}

UNDERSTOOD: Final[Mapping[str, frozenset[str]]] = {
    "IngestSynapse": _SPACED,
    "IngestBatch": _SPACED,
    "QuerySynapse": _SPACED,
    "list": _SPACED,
    "retrieve": _SPACED,
    "DeleteSynapse": _SPACED,
    "DeleteBatch": _SPACED,
    "LookupBatch": _SPACED,
    "ChallengeSynapse": _SPACED,
    "commitment": _SPACED,
    "prove-memory": _SPACED,
    "KeyShareSynapse": _SPACED,
    "KeyShareRetrieve": _SPACED,
    "RepairSynapse": _SIGNED,
    "export": _SIGNED,
    "export-stream": _SIGNED,
    "chat-history": _SIGNED,
    "SaveChat": _SIGNED,
    "conversations": _SIGNED,
    "MakeConversation": _SIGNED,
    "RenameConversation": _SIGNED,
    "DeleteConversation": _SIGNED,
    "AttestNamespace": frozenset({"namespace", "owner_hotkey", "signature", "timestamp_ms"}),
    "namespace": frozenset({"namespace"}),
}
"""The last is the operator's POST /namespace, which is signed by nobody."""

MOST_FIELDS: Final = 64
"""Of a body, and of each object in it that is looked into: names are compared on the event loop."""
_OWN: Final = frozenset({"metadata", "filter", "messages"})
"""Fields whose content is a client's own, whatever its names are."""

_QUERIES: Final = {
    "/retrieve/": "retrieve",
    "/commitment": "commitment",
    "/chat-history/": "chat-history",
    "/conversations/": "conversations",
}
"""Paths, by how they begin, of what is signed in a query."""


def require(operation: str, fields: Mapping[str, object]) -> None:
    """Raise Refused (400) for a field of authority that the operation does not understand, or that contradicts
    another. KeyError for an operation that the table does not have."""
    understood = UNDERSTOOD[operation]
    _require_few(fields)
    if (name := authority.misplaced(fields, understood)) is not None:
        raise refused(name, f"{_shown(name)} is not understood by {operation}: leave it out.")
    for field, value in fields.items():
        if field not in _OWN and not (operation == "IngestBatch" and field == "items"):
            _require_open(field, value)
    if understood is not _SPACED:
        return
    if (name := _without_namespace(fields)) is not None:
        raise refused(name, f"{name} is there, and namespace names no private namespace: name it, or leave both out.")
    signs = [name for name in sorted(miner_scheme.NAMESPACE_FIELDS) if authority.asks(fields, name)]
    if signs and authority.asks(fields, "namespace_key"):
        raise refused("namespace_key", f"namespace_key and {signs[0]} are both there: send one of them.")
    if not signs and authority.asks(fields, miner_scheme.NAMESPACE_VERSION):
        raise refused(miner_scheme.NAMESPACE_VERSION, "namespace_sig_version is there without a namespace_sig.")


def require_plain(items: Sequence[object]) -> None:
    """Raise Refused (400) for an item of a batch with a field of authority: those stand beside `items`, for all."""
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            continue
        _require_few(item)
        if (name := authority.misplaced(item, frozenset())) is not None:
            field = f"items[{number}].{name}"
            shown = _shown(name)
            raise refused(
                field,
                f"items[{number}].{shown} is not understood: {shown} stands beside items and holds for all of them.",
            )
        for name, value in item.items():
            if name not in _OWN:
                _require_open(f"items[{number}].{name}", value)


def read_by(scope: Scope) -> Read:
    """Return what an endpoint takes, for the AuthorityGate: a body of what is posted is held against UNDERSTOOD.

    What tells everybody the same may be signed as anything else; a signature asks for nothing there.
    """
    if scope["method"] not in ("GET", "HEAD"):
        return Read(checks_body=True)
    named = (operation for path, operation in _QUERIES.items() if scope["path"].startswith(path))
    return Read(query=UNDERSTOOD.get(next(named, ""), _SIGNED))


def refused(field: str, text: str) -> Refused:
    """Return the refusal of a field that asks for what would not be given."""
    return Refused(400, CODE, text, field=field)


def _require_few(fields: Mapping[str, object]) -> None:
    if len(fields) > MOST_FIELDS:
        raise Refused(400, "too_many_fields", f"An object may have {MOST_FIELDS} fields here, not {len(fields)}.")


def _require_open(field: str, value: object) -> None:
    """Raise Refused (400) where an object within a field asks for privacy."""
    if isinstance(value, list):
        inner = [each for each in value[:MOST_FIELDS] if isinstance(each, dict)]
    else:
        inner = [value] if isinstance(value, dict) else []
    for each in inner:
        _require_few(each)
        for name in each:
            if authority.is_privacy(name) and authority.asks(each, name):
                path = f"{_shown(field)}.{_shown(name)}"
                raise refused(path, f"{path} is not understood: {_shown(name)} stands at the top of the body.")


def _shown(name: str) -> str:
    """A name that a client made up, at a length that an error can bear."""
    return name if len(name) <= 80 else name[:80] + "…"


def _without_namespace(fields: Mapping[str, object]) -> str | None:
    """A field that is for a private namespace where none is named."""
    if fields.get("namespace") not in (None, "", PUBLIC):
        return None
    names = sorted(_NAMESPACE | {"namespace_key"})
    return next((name for name in names if authority.asks(fields, name)), None)
