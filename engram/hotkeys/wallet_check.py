"""Whether the key files of a wallet are whole, private, and of the keys that their public files name.

Nothing is changed. Secrets that are not encrypted are opened, encrypted ones with the password that is given.
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from engram.hotkeys import key_content, wallet, wallet_folder
from engram.hotkeys.bittensor_core import is_encrypted, is_legacy
from engram.hotkeys.errors import HotkeyError
from engram.hotkeys.key_files import KEPT_SUFFIX
from engram.hotkeys.passwords import Role
from engram.hotkeys.ss58 import PublicKey, encode

_PUBLIC: Final = "pub.txt"
_OF_OTHERS, _WRITTEN_BY_OTHERS = 0o077, 0o022
PasswordOf = Callable[[Path, Role], str | None]
"""The password of an encrypted key file; None leaves it shut. Raises HotkeyError."""


class KeyChecked(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found of one key."""

    key: str
    """`coldkey`, or `hotkey NAME`."""
    file: str
    form: str
    """plain, encrypted, `old form` (an obsolete encryption), public (no secret here), damaged."""
    opened: bool
    """Whether the secret was opened: only then it is known that it holds the key."""
    address: str | None = None
    public_key: str | None = None
    problems: list[str] = []


def check(folder: Path, password_of: PasswordOf) -> list[KeyChecked]:
    """Check every key of a wallet's folder. Blocks, 3 s for each encrypted key that is opened."""
    return [_checked(path, role, password_of) for path, role in _keys(folder)]


def _keys(folder: Path) -> Iterator[tuple[Path, Role]]:
    """Return the secret files, those too of which only the public file is there."""
    if os.path.lexists(folder / "coldkey") or (folder / f"coldkey{_PUBLIC}").exists():
        yield folder / "coldkey", "coldkey"
    hotkeys = folder / "hotkeys"
    names = {path.name.removesuffix(_PUBLIC) for path in hotkeys.iterdir()} if hotkeys.is_dir() else set[str]()
    for name in sorted(names):
        if name and not name.startswith(".") and f".{KEPT_SUFFIX}-" not in name:
            yield hotkeys / name, "hotkey"


def _checked(path: Path, role: Role, password_of: PasswordOf) -> KeyChecked:
    problems = list(_loose(path))
    named, pair, form = _public(path, problems), None, "public"
    if os.path.lexists(path):
        try:
            content = wallet.read_key_bytes(path)
            form = "old form" if is_legacy(content) else "encrypted" if is_encrypted(content) else "plain"
            password = password_of(path, role) if form != "plain" else None
            if form == "plain" or password is not None:
                pair = key_content.keypair(path, key_content.plain(path, content, password))
        except HotkeyError as error:
            problems.append(str(error))
            form = "damaged" if form in ("plain", "public") else form
        if form == "old form":
            problems.append(f"encrypted in an old form: engram wallet convert {path}")
    if pair is not None and named not in (None, pair.public_key):
        problems.append(f"{path.name}{_PUBLIC} names {encode(named)}, but {path.name} holds {pair.ss58}")
    key = named if pair is None else pair.public_key
    return KeyChecked(
        key="coldkey" if role == "coldkey" else f"hotkey {path.name}",
        file=str(path),
        form=form,
        opened=pair is not None,
        address=None if key is None else encode(key),
        public_key=None if key is None else key.hex(),
        problems=problems,
    )


def _public(path: Path, problems: list[str]) -> PublicKey | None:
    public = path.with_name(f"{path.name}{_PUBLIC}")
    if not public.exists():
        if path.name == "coldkey":  # Older tools wrote none of hotkeys.
            problems.append(f"{public} is missing: engram wallet import public ADDRESS --as coldkey writes it")
        return None
    try:
        return wallet_folder.read_public_file(public)
    except HotkeyError as error:
        problems.append(str(error))
        return None


def _loose(path: Path) -> Iterator[str]:
    for place, bits, what in ((path, _OF_OTHERS, "open to"), (path.parent, _WRITTEN_BY_OTHERS, "writable by")):
        try:
            mode = stat.S_IMODE(place.stat().st_mode)
        except OSError:
            continue
        if mode & bits:
            yield f"{place} is {what} other users ({mode:04o}): chmod {'600' if place == path else '700'} {place}"
