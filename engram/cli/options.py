"""Options shared by commands: the sources of settings, and the output format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import config
from config import Loaded

Flags = dict[str, str | float | None]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where settings come from."""

    profile: Annotated[str | None, Parameter(help="local, testnet or mainnet; else ENGRAM_ENV, else local.")] = None
    config: Annotated[
        tuple[Path, ...], Parameter(help="TOML file with settings; repeatable, later ones win.", negative="")
    ] = ()
    data_dir: Annotated[Path | None, Parameter(help="Folder of the ledger, keys and nodes.")] = None
    set: Annotated[tuple[str, ...], Parameter(help="Any setting, as section.key=value; repeatable.", negative="")] = ()

    def words(self) -> list[str]:
        """Return these options as they are written on a command line."""
        found = [] if self.profile is None else ["--profile", self.profile]
        found += [word for path in self.config for word in ("--config", str(path))]
        found += [] if self.data_dir is None else ["--data-dir", str(self.data_dir)]
        return found + [word for pair in self.set for word in ("--set", pair)]

    def load(self, flags: Flags | None = None) -> Loaded:
        """Return the effective settings. Raises ConfigError."""
        given: Flags = {"data_dir": None if self.data_dir is None else str(self.data_dir)}
        given |= {key: value for key, value in (flags or {}).items() if value is not None}
        for pair in self.set:
            key, equals, value = pair.partition("=")
            if not equals:
                raise config.ConfigError([config.Problem("flag --set", pair, "write it as section.key=value")])
            given[key.strip()] = value
        return config.load(self.profile, [path for path in self.config if path.suffix != ".json"], flags=given)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Show:
    """The output format."""

    json: Annotated[bool, Parameter(help="One JSON document instead of a table.", negative="")] = False


SOURCES = Sources()
SHOW = Show()
