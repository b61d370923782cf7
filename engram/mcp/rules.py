"""Which wire a message is of, and what it is refused for before any method runs. Pure.

| what arrives                                                     | answer                                 |
|------------------------------------------------------------------|----------------------------------------|
| not JSON, nested too deeply, no UTF-8                            | -32700                                 |
| a batch, no JSON-RPC 2.0, an id that is no string or integer     | -32600                                 |
| stateless: no version or capabilities in `_meta`                 | -32602                                 |
| stateless over HTTP: a header is missing, twice, or not the body's | -32020                               |
| a version that is not served                                     | -32022, `data` names those that are    |
| a Host that is not ours                                          | HTTP 421                               |
| an Origin that is not ours                                       | HTTP 403                               |
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from engram import wire
from engram.mcp.model import (
    CAPABILITIES_KEY,
    HANDSHAKE_VERSIONS,
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    STATELESS_VERSIONS,
    SUPPORTED,
    UNSUPPORTED_VERSION,
    VERSION_KEY,
    McpError,
    Message,
)

VERSION_HEADER: Final = "mcp-protocol-version"
METHOD_HEADER: Final = "mcp-method"
NAME_HEADER: Final = "mcp-name"
ROUTING: Final = (VERSION_HEADER, METHOD_HEADER, NAME_HEADER)
NAMED: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""The parameter that `Mcp-Name` repeats, by method."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_NO_PORT: Final = (80, 443)
"""Ports that a URL leaves out."""
_PORT: Final = re.compile(r"(:[0-9]{1,5})?")
_NOT_QUOTED: Final = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_BASE64: Final = re.compile(r"=\?base64\?(.*)\?=")

Headers = Mapping[str, str]
"""Lower-case names; a name that was sent twice has `twice` as well."""


def read(line: bytes) -> Message:
    """Decode one message. Raises McpError."""
    try:
        message = wire.decode(line, Message)
    except msgspec.ValidationError:
        if line.lstrip()[:1] == b"[":
            raise McpError(INVALID_REQUEST, "a batch is not taken: send one message at a time") from None
        text = 'not a JSON-RPC message: {"jsonrpc": "2.0", "id": …, "method": …, "params": {…}}'
        raise McpError(INVALID_REQUEST, text) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise McpError(PARSE_ERROR, "Parse error") from None
    if message.id is None or (message.method is msgspec.UNSET and message.id is msgspec.UNSET):
        raise McpError(INVALID_REQUEST, "a request has a method, and an id that is a string or an integer")
    return message


def meta_of(message: Message) -> Mapping[str, Any]:
    """Return `params._meta`; empty where there is none."""
    params = message.params
    meta = None if isinstance(params, msgspec.UnsetType) else params.get("_meta")
    return meta if isinstance(meta, dict) else {}


def is_stateless(message: Message, version_header: str | None) -> bool:
    """Return whether a message is of the stateless wire: by its header, else by its envelope.

    `initialize` begins a handshake, unless its header names the wire that has none.
    """
    if message.method == "initialize":
        return version_header in STATELESS_VERSIONS
    if version_header is not None and version_header in SUPPORTED:
        return version_header in STATELESS_VERSIONS
    return VERSION_KEY in meta_of(message) or message.method == "server/discover"


def check_stateless(message: Message, headers: Iterable[tuple[str, str]] | None) -> None:
    """Check the envelope of a request; `headers` are the lines of its HTTP request (lower-case names), None on stdio.

    Raises McpError.
    """
    meta = meta_of(message)
    if missing := [key for key in (VERSION_KEY, CAPABILITIES_KEY) if key not in meta]:
        raise McpError(INVALID_PARAMS, f"params._meta lacks {' and '.join(missing)}")
    version = meta[VERSION_KEY]
    if headers is not None:
        _check_headers(message, version, list(headers))
    if not isinstance(version, str):
        raise McpError(INVALID_PARAMS, f"params._meta {VERSION_KEY} must be a string")
    if version not in STATELESS_VERSIONS:
        raise unsupported(version, STATELESS_VERSIONS)


def unsupported(requested: str, supported: Iterable[str] = SUPPORTED) -> McpError:
    """Return the error for a version that is not served."""
    data: dict[str, object] = {"supported": list(supported), "requested": requested}
    return McpError(UNSUPPORTED_VERSION, "Unsupported protocol version", data)


def negotiated(requested: object) -> str:
    """Return the version that `initialize` is answered with: the client's, else our newest of that wire."""
    return requested if isinstance(requested, str) and requested in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[-1]


def header_value(value: str) -> str | None:
    """Return what a header says, where it may be spelled as base64; None where it is spelled wrongly.

    >>> header_value("latest"), header_value("=?base64?w6k=?="), header_value("=?base64?w6l=?=")
    ('latest', 'é', None)
    """
    found = _BASE64.fullmatch(value)
    if found is None:
        return value
    try:
        content = base64.b64decode(found[1], validate=True)
        return content.decode() if base64.b64encode(content).decode("ascii") == found[1] else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def header_spelled(value: str) -> str:
    """Return a header's value for a text: itself, or base64 where a header would not carry it unchanged.

    >>> header_spelled("latest"), header_spelled("é")
    ('latest', '=?base64?w6k=?=')
    """
    if value.isascii() and value.isprintable() and value == value.strip() and not _BASE64.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode('ascii')}?="


def quotable(text: str) -> str:
    """Return a text for between the quotes of a header, as RFC 6750 allows it: what others wrote may be in it.

    >>> quotable('for "é",\\r\\nnot for us')
    "for '?',??not for us"
    """
    return _NOT_QUOTED.sub("?", text.replace('"', "'"))


def is_loopback_name(host: str) -> bool:
    """Return whether a Host header names this machine by a loopback name.

    >>> [is_loopback_name(host) for host in ("localhost:80", "127.0.0.1", "[::1]:9", "localhost.evil", "")]
    [True, True, True, False, False]
    """
    return _name(host) in _LOOPBACK


def is_loopback_address(address: str) -> bool:
    """Return whether a peer's address is loopback."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def names_of(hosts: Iterable[str], bound: tuple[str, int] | None, *, local: bool) -> frozenset[str]:
    """Return the names that a client may call a server: `hosts` (name, or name:port), the address that it is bound to,
    and those of loopback for a peer that is there.

    >>> sorted(names_of(["agents.example"], ("10.0.0.5", 8765), local=False))
    ['10.0.0.5:8765', 'agents.example']
    """
    own = frozenset(_at(bound[0], bound[1])) if bound is not None and _is_one_address(bound[0]) else frozenset()
    return frozenset(hosts) | own | (_LOOPBACK if local else frozenset())


def audiences_of(hosts: Iterable[str], bound: tuple[str, int] | None, *, local: bool) -> frozenset[str]:
    """Return the audiences of a server's tokens: as `names_of`, a name without a port being of the server's own.

    >>> sorted(audiences_of(["agents.example"], ("127.0.0.1", 80), local=False))
    ['127.0.0.1', '127.0.0.1:80', 'agents.example', 'agents.example:80']
    """
    found = names_of(hosts, bound, local=False)
    if bound is None:
        return found
    bare = {name for name in found if _name(name) == name.strip("[]")}
    loopback = {name for each in (_LOOPBACK if local else ()) for name in _at(each, bound[1])}
    return found | {f"{name}:{bound[1]}" for name in bare} | loopback


def host_is_ours(host: str | None, names: Iterable[str]) -> bool:
    """Return whether a Host header is one of these names (name, or name:port)."""
    return host is not None and (host.lower() in names or _name(host) in names)


def origin_is_ours(origin: str | None, hosts: Iterable[str]) -> bool:
    """Return whether a browser's page may call: it sent no Origin, or one of this server's own names."""
    if origin is None:
        return True
    scheme, separator, host = origin.partition("://")
    return bool(separator) and scheme in ("http", "https") and host_is_ours(host, hosts)


def _is_one_address(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _at(host: str, port: int) -> tuple[str, ...]:
    """Return the Host headers of an address."""
    name = f"[{host}]" if ":" in host else host
    return (f"{name}:{port}", name) if port in _NO_PORT else (f"{name}:{port}",)


def _name(host: str) -> str:
    """Return the name in a Host header, without its port; nothing for brackets that hold no whole name."""
    if host.startswith("["):
        name, closed, rest = host[1:].partition("]")
        return name if closed and _PORT.fullmatch(rest) else ""
    return host.partition(":")[0].lower()


def _check_headers(message: Message, version: object, lines: list[tuple[str, str]]) -> None:
    for name in ROUTING:
        if sum(each == name for each, _ in lines) > 1:
            raise McpError(HEADER_MISMATCH, f"{name} was sent twice")
    headers = dict(lines)
    if VERSION_HEADER not in headers or headers[VERSION_HEADER] != version:
        raise McpError(HEADER_MISMATCH, f"{VERSION_HEADER} must be {VERSION_KEY} of params._meta")
    if headers.get(METHOD_HEADER) != message.method:
        raise McpError(HEADER_MISMATCH, f"{METHOD_HEADER} must be the method")
    parameter = NAMED.get(str(message.method))
    params = {} if isinstance(message.params, msgspec.UnsetType) else message.params
    if parameter is None or (named := params.get(parameter)) is None:
        return
    if header_value(headers.get(NAME_HEADER, "")) != named:
        raise McpError(HEADER_MISMATCH, f"{NAME_HEADER} must be params.{parameter}")
