"""Which fields of authority each operation of a node understands, in one table; all others are refused.

An operation is named as it is signed, and no two share a name: a signature made for one is good for no other.
`require` is applied where a body is read (access.py), to whatever came, signed or not. A field that contradicts another
is refused as one that is not understood: both would have to be obeyed.
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

_QUERIES: Final = {
    "/retrieve/": "retrieve",
    "/commitment": "commitment",
    "/chat-history/": "chat-history",
    "/conversations/": "conversations",
}
"""Paths, by how they begin, of what is signed in a query."""


def require(operation: str, fields: Mapping[str, object]) -> None:
    """Raises Refused (400) for a field of authority that the operation does not understand, or that contradicts
    another. KeyError for an operation that the table does not have."""
    understood = UNDERSTOOD[operation]
    if (name := authority.misplaced(fields, understood)) is not None:
        raise refused(name, f"{name} is not understood by {operation}: leave it out.")
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
    """Raises Refused (400) for an item of a batch with a field of authority: those stand beside `items`, for all."""
    for number, item in enumerate(items):
        if isinstance(item, dict) and (name := authority.misplaced(item, frozenset())) is not None:
            field = f"items[{number}].{name}"
            raise refused(field, f"{field} is not understood: {name} stands beside items and holds for all of them.")


def read_by(scope: Scope) -> Read:
    """Returns what an endpoint takes, for the AuthorityGate: a body of what is posted is held against UNDERSTOOD.

    What tells everybody the same may be signed as anything else; a signature asks for nothing there.
    """
    if scope["method"] not in ("GET", "HEAD"):
        return Read(checks_body=True)
    named = (operation for path, operation in _QUERIES.items() if scope["path"].startswith(path))
    return Read(query=UNDERSTOOD.get(next(named, ""), _SIGNED))


def refused(field: str, text: str) -> Refused:
    """Returns the refusal of a field that asks for what would not be given."""
    return Refused(400, CODE, text, field=field)


def _without_namespace(fields: Mapping[str, object]) -> str | None:
    """A field that is for a private namespace where none is named."""
    if fields.get("namespace") not in (None, "", PUBLIC):
        return None
    names = sorted(_NAMESPACE | {"namespace_key"})
    return next((name for name in names if authority.asks(fields, name)), None)
