"""A new miner project: a folder of a few short files that is the operator's own from then on."""

import datetime as dt
import re
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from engram.hotkeys import Keypair, wallet

NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
HOTKEY_FILE: Final = "hotkey"
_FILES: Final = {
    "miner.py": "miner.py.template",
    "miner.toml": "miner.toml.template",
    "test_miner.py": "test_miner.py.template",
    "README.md": "README.md.template",
    "requirements.txt": "requirements.txt.template",
    "Containerfile": "Containerfile.template",
    "LICENSE": "LICENSE.template",
    ".gitignore": "gitignore.template",
    "wheels/.gitignore": "wheels-gitignore.template",
}
"""Files of the project, and the templates beside this module that they are written from."""


class ProjectRefused(Exception):
    """The project cannot be made; the text says why. Nothing was written."""


class Project(msgspec.Struct, frozen=True):
    """A project that was made."""

    folder: str
    files: list[str]
    hotkey: str
    hotkey_file: str | None
    """The file with a new secret key; None where an address was given."""
    port: int
    netuid: int


def create(folder: Path, *, netuid: int, port: int, hotkey: str | None = None) -> Project:
    """Write the project into a folder that does not exist yet, with a new hotkey unless an address is given.

    Raises ProjectRefused (a name that is none, a folder that is there), OSError.
    """
    name = folder.name
    if NAME.fullmatch(name) is None:
        raise ProjectRefused(f"{name!r} is no project name: a lower-case letter, then letters, digits and dashes")
    if folder.exists():
        raise ProjectRefused(f"{folder} is there already; nothing was written")
    keypair = Keypair.generate() if hotkey is None else None
    values: dict[str, object] = {
        "name": name,
        "netuid": netuid,
        "port": port,
        "hotkey": hotkey if keypair is None else keypair.ss58,
        "year": dt.datetime.now(dt.UTC).year,
    }
    folder.mkdir(parents=True)
    for target, template in _FILES.items():
        text = resources.files("engram.kit").joinpath("project", template).read_text("utf-8")
        (folder / target).parent.mkdir(exist_ok=True)
        (folder / target).write_text(text.format(**values), "utf-8")
    if keypair is not None:
        wallet.write_hotkey_file(folder / HOTKEY_FILE, keypair)
    return Project(
        folder=str(folder),
        files=sorted(_FILES),
        hotkey=str(values["hotkey"]),
        hotkey_file=None if keypair is None else str(folder / HOTKEY_FILE),
        port=port,
        netuid=netuid,
    )
