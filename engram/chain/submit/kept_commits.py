"""Keeps unrevealed commits on disk: a folder of mode 0700 with one file of mode 0600 for each.

A file is written and synced before its commit is sent, because weights whose salt is lost can never be set. It is
removed once the chain holds the reveal, or once no reveal is possible any more.
"""

import os
from pathlib import Path
from typing import Final, final

import msgspec

from engram import files, wire
from engram.chain.errors import ChainError
from engram.chain.submit.hashed_weights import HashedCommit
from engram.hotkeys import MalformedHotkey, PublicKey, ss58

KEPT_AT_MOST: Final = 256
"""The chain takes 10 of one hotkey on one subnet."""
_MAX_BYTES: Final = 65_536
_FORMAT: Final = 1


class KeptCommitError(ChainError):
    """A file of a commit cannot be written or read, is damaged, or is open to other users."""

    nothing_was_sent = True


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    engram_weight_commit: int
    genesis: str
    netuid: int
    hotkey: str
    uids: tuple[int, ...]
    values: tuple[int, ...]
    version_key: int
    salt: tuple[int, ...]
    signed_at_block: int
    commit_hash: str


@final
class KeptCommits:
    """The commits in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, commit: HashedCommit) -> Path:
        """Return the file of this commit."""
        return self.folder / f"{commit.netuid}-{commit.hash.hex()[:32]}.json"

    def keep(self, commit: HashedCommit) -> Path:
        """Write the commit and its salt durably. Raises KeptCommitError; then the commit must not be sent."""
        path = self.path(commit)
        file = _File(
            engram_weight_commit=_FORMAT,
            genesis="0x" + commit.genesis.hex(),
            netuid=commit.netuid,
            hotkey=ss58.encode(commit.hotkey),
            uids=commit.uids,
            values=commit.values,
            version_key=commit.version_key,
            salt=commit.salt,
            signed_at_block=commit.signed_at_block,
            commit_hash="0x" + commit.hash.hex(),
        )
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if len(self._names()) >= KEPT_AT_MOST:
                raise KeptCommitError(f"{self.folder} holds {KEPT_AT_MOST} commits: reveal them, or clear it")
            files.put(path, msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n")
        except OSError as error:
            raise KeptCommitError(f"cannot keep the salt in {path}: {error.strerror}") from None
        return path

    def of(self, genesis: bytes, netuid: int, hotkey: PublicKey) -> list[HashedCommit]:
        """Return the commits of this hotkey on this subnet of this chain; those in `unusable` files are left out.

        Raises KeptCommitError when the folder cannot be read.
        """
        mine = [one for one in self._readable(netuid)[0] if (one.genesis, one.hotkey) == (genesis, hotkey)]
        return sorted(mine, key=lambda commit: commit.signed_at_block)

    def holds(self, netuid: int, hotkey: PublicKey) -> bool:
        """Return whether commits of this hotkey for this subnet wait to be revealed. Raises KeptCommitError."""
        return any(one.hotkey == hotkey for one in self._readable(netuid)[0])

    def unusable(self, netuid: int) -> list[str]:
        """Return what is wrong with files of this subnet that are damaged or open to others. Raises KeptCommitError."""
        return self._readable(netuid)[1]

    def _readable(self, netuid: int) -> tuple[list[HashedCommit], list[str]]:
        found: list[HashedCommit] = []
        unusable: list[str] = []
        for path in self._names():
            if path.name.startswith(f"{netuid}-"):
                try:
                    found.append(_read(path))
                except KeptCommitError as error:
                    unusable.append(str(error))
        return [one for one in found if one.netuid == netuid], unusable

    def forget(self, commit: HashedCommit) -> None:
        """Remove the commit's file, if it exists."""
        try:
            self.path(commit).unlink(missing_ok=True)
        except OSError as error:
            raise KeptCommitError(f"cannot remove {self.path(commit)}: {error.strerror}") from None

    def _names(self) -> list[Path]:
        try:
            return sorted(path for path in self.folder.iterdir() if path.suffix == ".json")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise KeptCommitError(f"cannot read {self.folder}: {error.strerror}") from None


def _read(path: Path) -> HashedCommit:
    try:
        with path.open("rb") as opened:
            if os.fstat(opened.fileno()).st_mode & 0o077:
                raise KeptCommitError(f"{path} is open to other users: chmod 600 it")
            file = wire.decode(opened.read(_MAX_BYTES), _File)
        commit = HashedCommit(
            genesis=bytes.fromhex(file.genesis[2:]),
            netuid=file.netuid,
            hotkey=ss58.decode(file.hotkey),
            uids=file.uids,
            values=file.values,
            version_key=file.version_key,
            salt=file.salt,
            signed_at_block=file.signed_at_block,
        )
        if file.engram_weight_commit != _FORMAT or file.commit_hash != "0x" + commit.hash.hex():
            raise KeptCommitError(f"{path} is damaged: what it holds does not make its commit")
    except OSError as error:
        raise KeptCommitError(f"cannot read {path}: {error.strerror}") from None
    except (msgspec.DecodeError, MalformedHotkey, ValueError, OverflowError):
        raise KeptCommitError(f"{path} is damaged, or is not a kept commit") from None
    return commit
