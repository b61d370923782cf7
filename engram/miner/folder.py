"""The data folder of a node: the lock of its one owner, and the file that names the owner."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import final

import msgspec

from engram import wire
from engram.files import in_the_way
from engram.memory.upkeep import data_files
from engram.miner.errors import FolderInUse, NoFolder, RecordsMissing
from engram.nodes.launch import LaunchFile

LOCK = data_files.LOCK
NODE_FILE = "node.json"
_LOCALLY = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 -- what a node listens on, not what we do


class NodeFile(msgspec.Struct, frozen=True, kw_only=True):
    """The process that owns the folder. A pid may be reused, but not with the same start time in the same boot."""

    launch_token: str
    session_id: str
    boot_id: str
    """The kernel's boot."""
    pid: int
    start_ticks: int
    """Start of the process in clock ticks since boot (field 22 of /proc/<pid>/stat)."""
    port: int
    started_at: float
    """Unix seconds."""
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        """The URL of the node on this machine."""
        return f"http://{_LOCALLY.get(self.host, self.host)}:{self.port}"


@final
class FolderClaim:
    """The exclusive lock on a data folder; held until closed or until the process ends, however it ends."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self.folder = folder
        self._descriptor = descriptor

    def __enter__(self) -> FolderClaim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def write_node_file(self, launch: LaunchFile, now: float) -> NodeFile:
        """Write the owner of the folder to `node.json`, atomically. Raises OSError."""
        node = NodeFile(
            launch_token=launch.launch_token,
            session_id=launch.session_id,
            boot_id=boot_id(),
            pid=os.getpid(),
            start_ticks=start_ticks(os.getpid()),
            port=launch.port,
            started_at=now,
            host=launch.host,
        )
        staged = self.folder / f".{NODE_FILE}"
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(node))
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, self.folder / NODE_FILE)
        return node


def claim(folder: Path) -> FolderClaim:
    """Lock the folder (created when missing) for this process, before anything in it is opened.

    Finishes an interrupted restore. Raises FolderInUse when another process owns it, NoFolder, OSError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NoFolder(f"data_dir is {folder}: {in_the_way(folder)} is a file, not a folder") from error
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise FolderInUse(f"{folder} is in use by another node (see {folder / NODE_FILE})") from None
    try:
        data_files.finish(folder)
    except BaseException:
        os.close(descriptor)
        raise
    return FolderClaim(folder, descriptor)


def refuse_lost(folder: Path) -> None:
    """Raise RecordsMissing when the record database is missing but files that belong to it exist.

    SQLite would treat an empty file as a new database and discard its log.
    """
    truth = folder / data_files.TRUTH
    if truth.exists() and truth.stat().st_size > 0:
        return
    beside = (folder / f"{data_files.TRUTH}-wal", folder / data_files.INDEX / "mark.json")
    left = [str(path) for path in beside if path.exists()]
    if left:
        raise RecordsMissing(
            f"{truth} is missing or empty, but {left[0]} is there: put a backup in its place with"
            f" `engram miner restore BACKUP {folder} --force`, or remove the folder to start with nothing"
        )


def read_node_file(folder: Path) -> NodeFile | None:
    """Return the last owner of the folder from `node.json`; None when the file is missing or damaged."""
    try:
        return wire.decode((folder / NODE_FILE).read_bytes(), NodeFile)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def is_running(folder: Path) -> bool:
    """Return whether a process owns the folder now; when none does, finish an interrupted restore.

    Raises NoFolder; OSError, except when the disk cannot be written.
    """
    try:
        with claim(folder):
            return False
    except FolderInUse:
        return True
    except OSError as error:
        if not data_files.cannot_be_written(error):
            raise
        return data_files.is_claimed(folder)


def boot_id() -> str:
    """Return the id of the kernel's current boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_ticks(pid: int) -> int:
    """Return when the process started, in clock ticks since boot. Raises OSError when there is no such process."""
    line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return int(line[line.rindex(")") + 2 :].split()[19])
