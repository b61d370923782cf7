"""Settings from their sources, in order: profile, TOML files, `.env` files, process environment, flags.

The later source wins, key by key. Every value is checked where it is written, so that a refusal names the file (or
variable, or flag), the key, and what would be right; all problems are found in one go. `config.rules` checks
whether the values go together.
"""

import ipaddress
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import msgspec

from config.addresses import is_base_url, is_http_url, is_postgresql_url, right_origin
from config.dotenv import parse
from config.environment import ENV_FILES, PROFILE_VARIABLE, SERVICE_FILE, STATE_VARIABLE, VARIABLES, misspelled
from config.errors import ConfigError, Problem
from config.keys import KEYS, SECTIONS, mask_url, nearest, read_text, read_value
from config.model import Environment, Settings
from config.networks import money
from config.pricing import units_of

PROFILES: Final[tuple[str, ...]] = get_args(Environment)

Source = Literal["default", "profile", "file", "env file", "environment", "flag"]


class Origin(msgspec.Struct, frozen=True):
    """Where an effective value was written."""

    source: Source
    name: str = ""
    """The profile, the path of the file (with the variable, for a `.env` file), the variable or the flag."""

    def __str__(self) -> str:
        return f"{self.source} {self.name}".rstrip()


class Loaded(msgspec.Struct, frozen=True):
    """Settings and where each came from, by dotted key."""

    settings: Settings
    origins: Mapping[str, Origin]
    profile: Environment
    unread: tuple[Problem, ...] = ()
    """Variables of the process that look like ours but are not read: perhaps misspelled."""


def load(
    profile: str | None = None,
    files: Sequence[str | Path] = (),
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str | float | None] | None = None,
    env_files: Iterable[str | Path] = ENV_FILES,
) -> Loaded:
    """Return the effective settings.

    `profile` is the word of `--profile`; without it ENGRAM_ENV decides (`dev` means local), else local. `files` must
    exist, `env_files` may be absent; before these, the variables of a service are read that lie beside its settings.
    `environ` is the process's own when None. `flags` are settings by dotted key as given on the command line; None
    means not given.

    Raises ConfigError listing everything that cannot be read. Does not check the rules of the environment: see
    `config.rules.check`.
    """
    reading = _Reading()
    own = os.environ if environ is None else environ
    variables = _variables(reading, own, [*_of_a_service(own, files), *env_files])
    chosen = _profile(reading, profile, variables)
    if chosen is not None:
        text = resources.files("config").joinpath("profiles").joinpath(f"{chosen}.toml").read_text(encoding="utf-8")
        reading.table(tomllib.loads(text), Origin("profile", chosen))
        reading.fixed_environment = chosen
    if state := own.get(STATE_VARIABLE, "").partition(":")[0]:
        reading.text("data_dir", state, Origin("environment", STATE_VARIABLE), STATE_VARIABLE)
    for path in files:
        _toml_file(reading, Path(path))
    for name, (value, origin) in variables.items():
        if name in VARIABLES:
            reading.text(VARIABLES[name], value, origin, name)
    for key, flag in (flags or {}).items():
        if flag is not None:
            reading.flag(key, flag)
    if reading.problems or chosen is None:
        raise ConfigError(reading.problems)
    origins = {key: reading.origins.get(key, Origin("default")) for key in KEYS}
    return Loaded(_settings(reading.values), origins, chosen, tuple(_unread(own)))


def _of_a_service(environ: Mapping[str, str], files: Sequence[str | Path]) -> list[Path]:
    """Return the files of variables beside these settings, unless a service manager has given them to this process."""
    if STATE_VARIABLE in environ:
        return []
    return [found for found in dict.fromkeys(Path(path).parent / SERVICE_FILE for path in files) if found.is_file()]


def _unread(environ: Mapping[str, str]) -> Iterator[Problem]:
    """Yield a warning for each variable that looks misspelled; it may be another program's, so it is not refused."""
    for name in sorted(environ):
        meant = misspelled(name, in_process=True)
        if meant is not None:
            yield Problem("environment", name, f"is read by nothing here; did you mean {meant!r}?")


class _Reading:
    """Collects values, their origins and the problems, over all sources."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.origins: dict[str, Origin] = {}
        self.problems: list[Problem] = []
        self.fixed_environment: Environment | None = None

    def refuse(self, origin: Origin, key: str, message: str) -> None:
        where = "default" if origin.source == "default" else str(origin)
        self.problems.append(Problem(where, key, message))

    def table(self, content: Mapping[str, Any], origin: Origin) -> None:
        """Read a TOML document."""
        for name, value in content.items():
            if name in KEYS:
                self._value(name, value, origin)
            elif name not in SECTIONS:
                self.refuse(origin, name, f"there is no such setting{nearest(name, [*SECTIONS, *_top_level()])}")
            elif not isinstance(value, dict):
                self.refuse(origin, name, f"is a section; write its settings under [{name}]")
            else:
                self._section(name, value, origin)

    def _section(self, section: str, content: Mapping[str, object], origin: Origin) -> None:
        known = [key.partition(".")[2] for key in KEYS if key.startswith(f"{section}.")]
        for name, value in content.items():
            if name in known:
                self._value(f"{section}.{name}", value, origin)
            else:
                elsewhere = [key for key in KEYS if key.endswith(f".{name}")]
                hint = f"; did you mean {elsewhere[0]!r}?" if elsewhere else nearest(name, known)
                self.refuse(origin, f"{section}.{name}", f"there is no such setting{hint}")

    def _value(self, key: str, value: object, origin: Origin) -> None:
        try:
            self._take(key, read_value(key, value), origin)
        except ValueError as error:
            self.refuse(origin, key, str(error))

    def text(self, key: str, value: str, origin: Origin, shown: str) -> None:
        """Read the text of a variable or flag, which errors call `shown`."""
        try:
            self._take(key, read_text(key, value), origin)
        except ValueError as error:
            self.refuse(origin, shown, str(error))

    def flag(self, key: str, value: str | float) -> None:
        """Read a setting from the command line."""
        origin = Origin("flag", key)
        if key not in KEYS:
            self.refuse(origin, "", f"there is no such setting{nearest(key, KEYS)}")
        else:
            self.text(key, str(value), origin, "")

    def _take(self, key: str, value: object, origin: Origin) -> None:
        if key == "environment" and value != self.fixed_environment and self.fixed_environment is not None:
            raise ValueError(
                f"{value!r} is not the profile in force, {self.fixed_environment}: a file cannot choose it; "
                f"start with --profile {value} or ENGRAM_ENV={value}"
            )
        if key in _MORE_CHECKS:
            _MORE_CHECKS[key](value)
        self.values[key] = value
        self.origins[key] = origin


def _network_addresses(networks: tuple[str, ...]) -> None:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise ValueError(f"{network!r} is not a network such as 10.0.0.0/8 or ::1/128") from None


def _chain_urls(urls: tuple[str, ...]) -> None:
    for url in urls:
        if not is_http_url(url):
            raise ValueError(f"{mask_url(url)!r} is not an http or https URL")


def _url(url: str) -> None:
    if url and not is_http_url(url):
        raise ValueError(f"{mask_url(url)!r} is not an http or https URL")


def _ledger_url(url: str) -> None:
    if url and not is_postgresql_url(url):
        raise ValueError(f"{mask_url(url)!r} is not an address such as postgresql://engram@db.example:5432/engram")


def _shown_base_url(url: str) -> None:
    _url(url)
    if url and not is_base_url(url):
        raise ValueError(f"{mask_url(url)!r} is shown to everybody and continued by paths: no user, no ? and no #")


def _price_or_nothing(usd: float) -> None:
    if usd and units_of(usd) < 1:
        raise ValueError(f"{usd} is less than a millionth of a dollar, the smallest part of the token; 0 is nothing")


def _origins(origins: tuple[str, ...]) -> None:
    for origin in origins:
        right = right_origin(origin)
        if right is None:
            raise ValueError(f"{origin!r} is no origin such as https://app.example, nor *")
        if origin.removesuffix("/") != right:
            raise ValueError(f"{origin!r} is not what browsers send; write {right!r}")


_MORE_CHECKS: Final[Mapping[str, Callable[[Any], object]]] = MappingProxyType(
    {
        "payments.network": money,
        "http.trusted_proxies": _network_addresses,
        "http.cors_origins": _origins,
        "chain.endpoints": _chain_urls,
        "xeris.archive_endpoints": _chain_urls,
        "gateway.public_url": _shown_base_url,
        "gateway.terms_url": _url,
        "akash.node_url": _url,
        "akash.endpoints": _chain_urls,
        "relay.url": _url,
        "relay.tool_url": _url,
        "xeris.public_url": _shown_base_url,
        "xeris.submission_usd": _price_or_nothing,
        "ledger.url": _ledger_url,
        "miner.hub_url": _url,
        "worker.orchestrator_url": _url,
        "worker.inference_url": _url,
        "worker.training_url": _url,
    }
)
"""Checks beyond the type; each raises ValueError saying what would be valid."""


def _top_level() -> list[str]:
    return [key for key in KEYS if "." not in key]


def _profile(reading: _Reading, named: str | None, variables: Mapping[str, tuple[str, Origin]]) -> Environment | None:
    """Return the profile to start from; None, and a problem noted, when there is none of that name."""
    word, origin = named, Origin("flag", "--profile")
    if word is None:
        word, origin = variables.get(PROFILE_VARIABLE, ("local", Origin("default")))
    match word.strip().lower():
        case "local" | "dev" | "":
            return "local"
        case "testnet":
            return "testnet"
        case "mainnet":
            return "mainnet"
        case other:
            choices = f"one of {', '.join(PROFILES)}{nearest(other, PROFILES)}"
            reading.refuse(origin, PROFILE_VARIABLE if named is None else "", f"{word!r} is not {choices}")
            return None


def _variables(
    reading: _Reading, environ: Mapping[str, str], env_files: Iterable[str | Path]
) -> dict[str, tuple[str, Origin]]:
    """Return variables by name with the source of each; an empty one counts as not set."""
    found: dict[str, tuple[str, Origin]] = {}
    for path in map(Path, env_files):
        origin = Origin("env file", str(path))
        text = _read(reading, path, origin, missing_ok=True)
        if text is None:
            continue
        variables, unreadable = parse(text)
        for line in unreadable:
            reading.refuse(origin, f"line {line}", "is not NAME=value")
        for name, value in variables.items():
            meant = misspelled(name)
            if meant is not None:
                reading.refuse(origin, name, f"there is no such variable; did you mean {meant!r}?")
            elif value:
                found[name] = (value, origin)
    found |= {name: (value, Origin("environment")) for name, value in environ.items() if value}
    return {
        name: (value, Origin(origin.source, f"{origin.name} {name}".strip())) for name, (value, origin) in found.items()
    }


_MOST_BYTES: Final = 1_048_576
"""The maximum size of a settings file, in case a device or a data file is named by mistake."""


def _toml_file(reading: _Reading, path: Path) -> None:
    origin = Origin("file", str(path))
    text = _read(reading, path, origin, missing_ok=False)
    if text is None:
        return
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reading.refuse(origin, "", f"is not TOML: {error}")
    except RecursionError:
        reading.refuse(origin, "", "is nested too deeply")
    else:
        reading.table(content, origin)


def _read(reading: _Reading, path: Path, origin: Origin, *, missing_ok: bool) -> str | None:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) <= _MOST_BYTES:
            return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
        reading.refuse(origin, "", f"is larger than {_MOST_BYTES} bytes, which no file of settings is")
    except FileNotFoundError:
        if not missing_ok:
            reading.refuse(origin, "", "there is no such file")
    except (OSError, UnicodeDecodeError) as error:
        closed = isinstance(error, PermissionError) and not os.access(path.parent, os.X_OK, effective_ids=True)
        if missing_ok and closed:  # such as another user's home, in which this user was told to run a command
            return None
        reading.refuse(origin, "", f"cannot be read: {error}")
    return None


_SETTINGS: Final = msgspec.json.Decoder(Settings)
"""Built at import, before there are threads, so that msgspec prepares all types then: see engram/wire.py."""


def _settings(values: Mapping[str, object]) -> Settings:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        section, dot, name = key.partition(".")
        if dot:
            tree.setdefault(section, {})[name] = value
        else:
            tree[key] = value
    return msgspec.convert(tree, Settings)
