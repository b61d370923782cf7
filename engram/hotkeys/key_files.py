"""The one place that writes files that hold a key.

Rules: a name that is taken keeps its file; nothing takes its place until it has been read back from disk and has given
the key that it is written for; a file is replaced by another form of the same key only, and what was there stays beside
it under a name of its own. A process killed at any instruction leaves a whole file that holds the key at `path`.
"""

import os
from collections.abc import Callable
from pathlib import Path

from engram import files
from engram.hotkeys import key_content
from engram.hotkeys.errors import WalletFileError
from engram.hotkeys.ss58 import PublicKey, encode

KEPT_SUFFIX = "before-conversion"


def create(path: Path, content: bytes, key: PublicKey, password: str | None = None) -> None:
    """Write a key file of mode 0600, atomically and durably, never over a file that is there.

    `content`, opened with `password` when it is encrypted, must hold `key`. Missing folders are made with mode 0700.
    Raises WalletFileError, WrongPassword.
    """
    _put(path, content, os.link, lambda written: _prove(path, written, key, password))


def create_other(path: Path, content: bytes, holds: Callable[[bytes], bool]) -> None:
    """Write a file that holds a key in another form, as `create`; `holds` tells whether what was written gives the key.

    Raises WalletFileError, and what `holds` raises.
    """

    def check(written: bytes) -> None:
        if not holds(written):
            raise WalletFileError(f"the file {path} could not be read back: nothing was written")

    _put(path, content, os.link, check)


def create_public(path: Path, key: PublicKey) -> None:
    """Write the `…pub.txt` of a key; one that names this key stays as it is.

    Raises WalletFileError, also when one is there that names another key, or none.
    """
    try:
        named = key_content.public_key(path, path.read_bytes())
    except OSError:
        content = key_content.public_content_of(key, encode(key))
        _put(path, content, os.link, lambda written: _expect(path, key_content.public_key(path, written), key))
        return
    _expect(path, named, key)


def replace(path: Path, before: bytes, content: bytes, key: PublicKey, password: str | None) -> Path:
    """Replace the key file, whose content was `before`, by another form of its key; return where the old one is kept.

    A link is followed: the file that it names is replaced. Raises WalletFileError, also when the file has changed
    meanwhile or the old one cannot be kept, and WrongPassword; `path` is as it was then.
    """
    path = path.resolve()
    kept = _free_beside(path)

    def keep_and_replace(staged: str, place: Path) -> None:
        os.link(place, kept)
        kept.chmod(0o600)
        if key_content.unmarked(kept.read_bytes()) != before:
            kept.unlink()
            raise WalletFileError(f"the key file {path} was changed meanwhile: nothing was replaced")
        files.sync(place.parent)  # The old file has its second name on disk before it loses the first.
        os.replace(staged, place)

    _put(path, content, keep_and_replace, lambda written: _prove(path, written, key, password))
    return kept


def _put(path: Path, content: bytes, placing: Callable[[str, Path], None], check: Callable[[bytes], None]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.put(path, content, placing, check)
    except FileExistsError:
        raise WalletFileError(f"the key file {path} exists already; choose another name") from None
    except OSError as error:
        raise WalletFileError(f"cannot write the key file {path}: {error.strerror}") from None


def _prove(path: Path, written: bytes, key: PublicKey, password: str | None) -> None:
    _expect(path, key_content.keypair(path, key_content.plain(path, written, password)).public_key, key)


def _expect(path: Path, found: PublicKey, key: PublicKey) -> None:
    if found != key:
        raise WalletFileError(f"the key file {path} is of {encode(found)}, not of {encode(key)}: nothing was replaced")


def _free_beside(path: Path) -> Path:
    number = 1
    while (kept := path.with_name(f"{path.name}.{KEPT_SUFFIX}-{number}")).exists():
        number += 1
    return kept
