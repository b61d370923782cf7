"""A node's launch file as environment variables, for a machine on which the gateway can place no file.

Each field is one variable, `ENGRAM_NODE_` and its name in capitals (`ENGRAM_NODE_LAUNCH_TOKEN`): texts as they are, all
else as JSON. Fields with their default value are left out. Whoever runs the machine reads them all, so none may be a
secret: the launch token names a launch, it opens nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from engram import wire
from engram.nodes import launch as launches
from engram.nodes.launch import LaunchFile, LaunchFileError

PREFIX: Final = "ENGRAM_NODE_"
HOST: Final = "0.0.0.0"  # noqa: S104 -- inside a container, whose engine decides who reaches it
PORT: Final = 8091
"""The port inside a container when no other is named."""
DATA_DIR: Final = "/data"
"""The one folder of the image that can be written."""

_PLACE: Final[Mapping[str, str]] = {"host": HOST, "port": str(PORT), "data_dir": DATA_DIR}
"""What the image gives unless the environment says otherwise."""
_FIELDS: Final = {field.name: field for field in msgspec.structs.fields(LaunchFile) if field.name != "schema"}
_TEXTS: Final = frozenset(name for name, field in _FIELDS.items() if field.type is str)


def variables(launch: LaunchFile) -> dict[str, str]:
    """Return the variables that `read` makes this launch file from. Raises LaunchFileError when a field is invalid."""
    launches.check(launch, where="environment of a node")
    given: dict[str, str] = {}
    for name, field in _FIELDS.items():
        value = getattr(launch, name)
        text = value if name in _TEXTS else msgspec.json.encode(value).decode()
        is_default = text == _PLACE[name] if name in _PLACE else value == field.default
        if not is_default:
            given[PREFIX + name.upper()] = text
    return given


def read(environ: Mapping[str, str]) -> LaunchFile:
    """Return the launch file that the variables describe.

    Raises LaunchFileError that names the variable: one is missing, invalid, or begins with ENGRAM_NODE_ and is none.
    """
    given = {name.removeprefix(PREFIX).lower(): text for name, text in environ.items() if name.startswith(PREFIX)}
    unknown = sorted(given.keys() - _FIELDS.keys())
    if unknown:
        raise LaunchFileError(f"{PREFIX}{unknown[0].upper()} is no variable of a node; see docs/node-keys.md")
    fields: dict[str, object] = {}
    for name, text in {**_PLACE, **given}.items():
        fields[name] = text if name in _TEXTS else _value(PREFIX + name.upper(), text)
    try:
        launch = wire.convert(fields, LaunchFile)
    except msgspec.ValidationError as error:
        raise LaunchFileError(f"environment ({PREFIX}…): {error}") from None
    launches.check(launch, where=f"environment ({PREFIX}…)")
    return launch


def is_given(environ: Mapping[str, str]) -> bool:
    """Return whether any variable of a node is set."""
    return any(name.startswith(PREFIX) for name in environ)


def _value(variable: str, text: str) -> object:
    try:
        return wire.decode(text, object)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise LaunchFileError(f"{variable} is {text[:80]!r}, which is no JSON") from None
