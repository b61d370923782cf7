"""The files and variables that settings are read from, in the order in which later ones win."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from config import dotenv
from config.errors import Problem
from engram.proxy.settings.environment import DEFAULT_PATH, PATH_VARIABLE, REPLACED, VARIABLES

ENV_FILE: Final = ".env"
_MOST_BYTES: Final = 1_048_576


class Document(msgspec.Struct, frozen=True):
    """A parsed settings file."""

    path: Path
    content: dict[str, Any]


class Variable(msgspec.Struct, frozen=True):
    """A variable with a value, and where it was set."""

    name: str
    value: str
    where: str


class Sources(msgspec.Struct, frozen=True):
    """What was found, before anything is checked against the settings' types."""

    documents: tuple[Document, ...]
    variables: tuple[Variable, ...]
    watched: tuple[Path, ...]
    """Files whose change changes the settings; some may not exist."""
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def find(environ: Mapping[str, str] | None = None, folder: Path = Path()) -> Sources:
    """Read the settings' sources; relative paths are below `folder`. Blocks."""
    own = os.environ if environ is None else environ
    problems: list[Problem] = []
    named = own.get(PATH_VARIABLE, "")
    paths = _paths(folder / (named or DEFAULT_PATH))
    documents = [found for path in paths if (found := _document(path, problems)) is not None]
    if named and not documents and not problems:
        problems.append(Problem(f"environment {PATH_VARIABLE}", "", f"Configuration file not found at {paths[0]}"))
    env_file = folder / ENV_FILE
    lines = _env_file(env_file, problems)
    variables = [Variable(name, value, f"env file {env_file}") for name, value in lines.items() if name in VARIABLES]
    variables += [
        Variable(name, value, "environment") for name in VARIABLES if (value := own.get(name, "").strip()) != ""
    ]
    notes = [f"{name}: {why}" for name, why in REPLACED.items() if name in own or name in lines]
    return Sources(tuple(documents), tuple(variables), (*paths, env_file), tuple(problems), tuple(notes))


def _paths(named: Path) -> tuple[Path, ...]:
    """Return the JSON file and the TOML file beside it; a folder holds `config.json` and `config.toml`."""
    if named.is_dir():
        named = named / "config.json"
    if named.suffix == ".toml":
        return (named,)
    return named, named.with_suffix(".toml")


def _document(path: Path, problems: list[Problem]) -> Document | None:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.append(Problem(str(path), "", f"cannot be read: {error.strerror}"))
        return None
    if len(raw) > _MOST_BYTES:
        problems.append(Problem(str(path), "", f"is larger than {_MOST_BYTES} bytes, which no file of settings is"))
        return None
    try:
        content = tomllib.loads(raw.decode("utf-8")) if path.suffix == ".toml" else msgspec.json.decode(raw)
    except (tomllib.TOMLDecodeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problems.append(Problem(str(path), "", f"Failed to parse configuration file: {error}{_line_of(raw, error)}"))
        return None
    if not isinstance(content, dict):
        problems.append(Problem(str(path), "", "Configuration root must be a JSON object"))
        return None
    return Document(path, content)


def _line_of(raw: bytes, error: Exception) -> str:
    """Return the line of a JSON error, which names a byte."""
    _, marker, position = str(error).rpartition("(byte ")
    digits = position.rstrip(")")
    return f" (line {raw[: int(digits)].count(10) + 1})" if marker and digits.isdigit() else ""


def _env_file(path: Path, problems: list[Problem]) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(f"env file {path}", "", f"cannot be read: {error}"))
        return {}
    found, unreadable = dotenv.parse(text)
    problems.extend(Problem(f"env file {path}", f"line {line}", "is not NAME=value") for line in unreadable)
    return {name: value.strip() for name, value in found.items() if value.strip()}


def values(document: Document) -> Iterator[tuple[str, str, object]]:
    """Yield (section, key, value) for every key of a document; a section that is no table, or empty, has the key ""."""
    for section, content in document.content.items():
        if isinstance(content, dict) and content:
            for key, value in content.items():
                yield section, key, value
        else:
            yield section, "", content
