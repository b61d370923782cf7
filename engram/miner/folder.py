"""The data folder of a node: one owner, and a note of who that is."""

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
    """Which process owns the folder: a pid is reused, but not with the same start time in the same boot."""

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
        """Where the node is reached from this machine."""
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
        """Note atomically who owns the folder now. Raises OSError."""
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
    """Take the folder (made when missing) for this process, before anything in it is opened.

    A restore that was interrupted is finished. Raises FolderInUse when another process has it, NoFolder, OSError.
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
    """Raise RecordsMissing for a folder whose records are gone while what goes with them is there.

    SQLite would take an empty file for a new database, and throw its log away.
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
    """Return the note of who owned the folder last; None when there is none, or it is damaged."""
    try:
        return wire.decode((folder / NODE_FILE).read_bytes(), NodeFile)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def is_running(folder: Path) -> bool:
    """Whether a process has the folder now; where none has it, a restore that was interrupted is finished.

    Raises NoFolder; OSError, but not for a disk that cannot be written.
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
    """Name the current boot of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_ticks(pid: int) -> int:
    """Return when the process started, in clock ticks since boot. Raises OSError when there is none."""
    line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return int(line[line.rindex(")") + 2 :].split()[19])
