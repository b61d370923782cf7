"""Refuses fields of authority (key, signature, namespace) in places where the endpoint would ignore them: in its query,
its body, or a header that names a namespace (which no endpoint reads).

The Edge runs it once it has read the body, before the application; `engram.hotkeys.authority` decides which fields
count and how names are compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

import msgspec

from engram import wire
from engram.hotkeys import authority
from engram.http import exchange
from engram.http.asgi import HeaderLines, Scope
from engram.http.errors import ApiError

CODE: Final = "misplaced_field"
MOST_BYTES: Final = 262_144
MOST_NAMES: Final = 2_048
"""Fields of a body that is examined here, on the event loop; a body with more would take longer than a few ms."""


class Read(msgspec.Struct, frozen=True):
    """What an endpoint reads: fields of authority in its query, and whether it checks its body by a table of its own.

    Otherwise none are accepted in the body.
    """

    query: frozenset[str] = frozenset()
    checks_body: bool = False


_NOTHING: Final = Read()

Table: TypeAlias = Callable[[Scope], Read]

_NAMESPACE_HEADER: Final = re.compile(
    rb"(?:x-)?(?:engram-)?namespace(?:-(?:key|hotkey|sig|signature|timestamp|timestamp-ms|sig-version|owner|id|name))?\Z"
)

_decode_object = wire.decoder(dict[str, msgspec.Raw]).decode


def authority_check(table: Table = lambda scope: _NOTHING) -> Callable[[Scope], None]:
    """Return a check for `Edge.check`: it raises ApiError 400 naming a field of authority that would be ignored.

    `table` says what each endpoint reads; by default none reads such a field in its query or body.
    """

    def check(scope: Scope) -> None:
        _check_headers(scope["headers"])
        if scope["query_string"]:
            _check_query(bytes(scope["query_string"]), table(scope).query)
        if (body := exchange.of(scope).body) and not table(scope).checks_body:
            _check_body(body)

    return check


def _misplaced(name: str, where: str) -> ApiError:
    """Return the error for a field of authority that is not read there."""
    text = f"{name} is not understood in {where}: leave it out, or send it where it counts."
    return ApiError(400, CODE, text, extra={"field": name})


def _check_headers(headers: HeaderLines) -> None:
    if b"namespace" not in b" ".join(dict(headers)):
        return
    for name, value in headers:
        if value and _NAMESPACE_HEADER.match(name) is not None:
            raise _misplaced(name.decode("ascii"), "a header")


def _check_query(query: bytes, understood: frozenset[str]) -> None:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="utf-8", errors="replace")
    if (name := authority.repeated(name for name, _ in pairs)) is not None:
        raise ApiError(400, CODE, f"{name} is there twice in the query: send it once.", extra={"field": name})
    if (name := authority.misplaced(dict(pairs), understood)) is not None:
        raise _misplaced(name, "the query of this call")


def _check_body(body: bytes) -> None:
    if len(body) > MOST_BYTES:
        raise ApiError(413, "body_too_large", f"a body may have {MOST_BYTES} bytes here")
    if body.count(b":") > MOST_NAMES:
        raise ApiError(400, "too_many_fields", f"a body may have {MOST_NAMES} fields here")
    try:
        fields = _decode_object(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    carried = {name: value for name, value in fields.items() if bytes(value) not in (b"null", b'""')}
    if (name := authority.misplaced(carried, frozenset())) is not None:
        raise _misplaced(name, "the body of this call")
