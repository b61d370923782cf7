"""Reads single fields of a request."""

from __future__ import annotations

from collections.abc import Mapping

from engram.hotkeys.python_json import JsonValue
from engram.memory.errors import InvalidRequest


def string(fields: Mapping[str, JsonValue], name: str) -> str:
    """Return a field of ASCII text. Raises InvalidRequest."""
    value = fields.get(name)
    if not isinstance(value, str) or not value.isascii():
        raise InvalidRequest(f"{name} must be a string of ASCII characters.")
    return value


def hex32(fields: Mapping[str, JsonValue], name: str) -> bytes:
    """Return a field of 32 bytes in hex. Raises InvalidRequest."""
    text = string(fields, name).removeprefix("0x")
    try:
        decoded = bytes.fromhex(text)
    except ValueError:
        decoded = b""
    if len(decoded) != 32:
        raise InvalidRequest(f"{name} must be 64 hex digits.")
    return decoded
