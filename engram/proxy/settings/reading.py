"""Settings from their sources: defaults, then config.json, then the TOML file, `.env`, and the environment.

Each value is checked where it is written, so that a refusal names the file (or variable), the key, and what would be
right; all problems are found in one go.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import msgspec

from config.errors import ConfigError, Problem
from config.keys import describe, nearest
from config.model import Section
from engram import wire
from engram.proxy.settings import rules
from engram.proxy.settings.environment import VARIABLES
from engram.proxy.settings.model import BackendSettings, ProxySettings, RouteSettings
from engram.proxy.settings.sources import Document, Sources, Variable, find, values

_SECTIONS: Final[dict[str, dict[str, Any]]] = {
    field.name: {inner.encode_name: inner.type for inner in msgspec.structs.fields(field.type)}
    for field in msgspec.structs.fields(ProxySettings)
    if isinstance(field.type, type) and issubclass(field.type, Section)
}
"""Types of the settings by section and key."""
_ALIASES: Final = {("auth", "self_debug_key"): "self-debug-key"}
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


class Loaded(msgspec.Struct, frozen=True):
    """Settings, and where each came from."""

    settings: ProxySettings
    origins: Mapping[str, str]
    """By dotted key; without an entry it is the default."""
    watched: tuple[Path, ...]
    notes: tuple[str, ...]


def load(environ: Mapping[str, str] | None = None, folder: Path = Path()) -> Loaded:
    """Return the effective settings; relative paths are below `folder`. Blocks.

    Raises ConfigError with everything that cannot be used.
    """
    return from_sources(find(environ, folder))


def from_sources(sources: Sources) -> Loaded:
    """Return the settings that these sources give. Raises ConfigError."""
    reading = _Reading(list(sources.problems))
    for document in sources.documents:
        reading.document(document)
    for variable in sources.variables:
        reading.variable(variable)
    if reading.problems:
        raise ConfigError(reading.problems)
    settings = reading.settings()
    if problems := list(rules.problems(settings, reading.origins)):
        raise ConfigError(problems)
    return Loaded(settings, reading.origins, sources.watched, sources.notes)


class _Reading:
    """Collects values, their origins and the problems, over all sources."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.origins: dict[str, str] = {}
        self._tree: dict[str, dict[str, object]] = {}
        self._backends: dict[str, BackendSettings] = {}
        self._routes: tuple[RouteSettings, ...] = ()

    def settings(self) -> ProxySettings:
        sections = wire.convert(self._tree, ProxySettings)
        return msgspec.structs.replace(sections, backends=self._backends, routes=self._routes)

    def document(self, document: Document) -> None:
        where = str(document.path)
        for section, key, value in values(document):
            if section == "routes" and isinstance(value, list):
                self._read_routes(value, where)
            elif section == "backends" and key:
                self._read_backend(key, value, where)
            elif section not in _SECTIONS and not (section == "backends" and value == {}):
                known = [*_SECTIONS, "backends", "routes"]
                self._refuse(where, section, f"there is no such section{nearest(section, known)}")
            elif not key and value == {}:
                pass
            elif not key:
                self._refuse(where, section, "is a section: write its settings as keys below it")
            else:
                self._take(section, _ALIASES.get((section, key), key), value, where)

    def variable(self, variable: Variable) -> None:
        section, _, key = VARIABLES[variable.name].partition(".")
        where = f"{variable.where} {variable.name}"
        try:
            value = _from_text(variable.value, _SECTIONS[section][key])
        except ValueError as error:
            self._refuse(where, VARIABLES[variable.name], str(error))
            return
        self._take(section, key, value, where)

    def _take(self, section: str, key: str, value: object, where: str) -> None:
        hint = _SECTIONS[section].get(key)
        if hint is None:
            self._refuse(where, f"{section}.{key}", f"there is no such setting{nearest(key, _SECTIONS[section])}")
            return
        if key in ("allowed_senders", "denied_senders"):
            value = _senders(value)
        elif key == "miner_hotkey" and isinstance(value, str):
            value = value.strip()
        if value is None and hint is str:
            value = ""
        try:
            wire.convert(value, hint)
        except msgspec.ValidationError:
            self._refuse(where, f"{section}.{key}", _wrong(key, value, hint))
            return
        self._tree.setdefault(section, {})[key] = value
        self.origins[f"{section}.{key}"] = where

    def _read_backend(self, name: str, value: object, where: str) -> None:
        try:
            self._backends[name] = wire.convert(value, BackendSettings)
        except msgspec.ValidationError as error:
            self._refuse(where, f"backends.{name}", str(error))
        else:
            self.origins[f"backends.{name}"] = where

    def _read_routes(self, value: list[object], where: str) -> None:
        routes: list[RouteSettings] = []
        for number, each in enumerate(value):
            try:
                routes.append(wire.convert(each, RouteSettings))
            except msgspec.ValidationError as error:
                self._refuse(where, f"routes[{number}]", str(error))
        self._routes = tuple(routes)
        self.origins["routes"] = where

    def _refuse(self, where: str, key: str, message: str) -> None:
        self.problems.append(Problem(where, key, message))


def _senders(value: object) -> object:
    """Return a list of senders as the original read it: one text or several, trimmed, each once."""
    texts = value.split(",") if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return value
    return list(dict.fromkeys(text.strip() for text in texts if text.strip()))


def _wrong(key: str, value: object, hint: object) -> str:
    shown = "the value" if "key" in key or "secret" in key else repr(value)[:80]
    original = {
        "port": "Invalid integer for server.port: ",
        "allowed_senders": "auth.allowed_senders must be a sequence of strings: ",
    }
    return f"{original.get(key, '')}{shown} is not {describe(hint)}"


def _from_text(text: str, hint: Any) -> object:
    """Return a variable's text as a value of this type, before its bounds are checked. Raises ValueError."""
    bare = get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
    if bare is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ValueError(f"{text!r} is not {describe(bool)}")
        return text.lower() in _TRUE
    if get_origin(bare) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    if bare in (int, float):
        try:
            return int(text) if bare is int or text.lstrip("-").isdigit() else float(text)
        except ValueError:
            raise ValueError(f"{text!r} is not {describe(hint)}") from None
    if get_args(bare):
        return next((word for word in get_args(bare) if word.lower() == text.lower()), text)
    return text
