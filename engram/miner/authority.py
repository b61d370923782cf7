"""The fields of authority that each operation of a node understands, in one table; all others are refused.

An operation has the name under which it is signed, and no two share a name: a signature for one is not valid for
another. `require` checks every body when it is read (auth.py), signed or not. Fields that contradict each other are
refused, since not both can be obeyed. A field that asks for privacy inside another field, as in
`{"synapse": {"namespace": …}}`, is refused too; the content of metadata, filters and messages is never checked.
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
    "certificate": frozenset(),
    "namespace": frozenset({"namespace"}),
}
"""By operation. The last two are never signed: what POST /certificate takes is signed itself, and POST /namespace is
the operator's."""

MOST_FIELDS: Final = 64
"""The most fields of a body and of each checked object in it, because names are compared on the event loop."""
_OWN: Final = frozenset({"metadata", "filter", "messages"})
"""Fields whose content belongs to the client and is not checked."""

_QUERIES: Final = {
    "/retrieve/": "retrieve",
    "/commitment": "commitment",
    "/chat-history/": "chat-history",
    "/conversations/": "conversations",
}
"""Prefixes of the paths whose signatures are in the query, with their operations."""


def require(operation: str, fields: Mapping[str, object]) -> None:
    """Raise Refused (400) for a field of authority that the operation does not understand, or that contradicts
    another; KeyError for an operation that is not in the table."""
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
    """Raise Refused (400) for an item of a batch with a field of authority: those go beside `items`."""
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
    """Return which fields of authority the Edge accepts for a request; bodies are checked against UNDERSTOOD.

    A GET that answers everyone alike may carry signing fields, which have no effect there.
    """
    if scope["method"] not in ("GET", "HEAD"):
        return Read(checks_body=True)
    named = (operation for path, operation in _QUERIES.items() if scope["path"].startswith(path))
    return Read(query=UNDERSTOOD.get(next(named, ""), _SIGNED))


def refused(field: str, text: str) -> Refused:
    """Return the refusal of a field that would not be obeyed."""
    return Refused(400, CODE, text, field=field)


def _require_few(fields: Mapping[str, object]) -> None:
    if len(fields) > MOST_FIELDS:
        raise Refused(400, "too_many_fields", f"An object may have {MOST_FIELDS} fields here, not {len(fields)}.")


def _require_open(field: str, value: object) -> None:
    """Raise Refused (400) when an object inside a field asks for privacy."""
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
    """Return a client's field name, shortened for an error text."""
    return name if len(name) <= 80 else name[:80] + "…"


def _without_namespace(fields: Mapping[str, object]) -> str | None:
    """Return a field that requires a private namespace when none is named; else None."""
    if fields.get("namespace") not in (None, "", PUBLIC):
        return None
    names = sorted(_NAMESPACE | {"namespace_key"})
    return next((name for name in names if authority.asks(fields, name)), None)
