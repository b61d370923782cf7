"""Bodies that wait for their proof: the room for them in memory and on disk, each under a quota for all, of which an
address may hold no more than it leaves free.

A body that finds no room in memory goes to its file at once. A file has no name, so that nothing is left of it whatever
becomes of the process. A full disk, or a full quota, refuses the request (503); nothing falls back to memory.
"""

import os
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final, final

import trio

from engram.http.limits import BodyRoom
from engram.proxy.exchange.refusing import Refusal
from engram.proxy.settings.model import BodySettings

_PART_BYTES: Final = 262_144
_WRITTEN_BYTES: Final = 1_048_576
"""Received bytes are written in pieces of this size, each in a worker thread."""
_TMPFS: Final = frozenset({"tmpfs", "ramfs"})


@final
class Spool:
    """The folder, and the room in it."""

    def __init__(self, folder: Path, settings: BodySettings) -> None:
        self._folder = folder
        self._room = BodyRoom(settings.spool_bytes)
        self._memory = BodyRoom(settings.memory_bytes_in_all)

    def change(self, settings: BodySettings) -> None:
        """Use other quotas from now on; what is open keeps its room."""
        self._room.resize(settings.spool_bytes)
        self._memory.resize(settings.memory_bytes_in_all)

    def problem_with(self, quota: int) -> str | None:
        """Return why the folder cannot hold so much; None if it can. Blocks."""
        return problem_with(self._folder, quota)

    @property
    def held(self) -> int:
        """Bytes of all spooled bodies."""
        return len(self._room)

    @property
    def held_in_memory(self) -> int:
        """Bytes of all bodies in memory."""
        return len(self._memory)

    def share(self, bucket: str) -> "MemoryShare":
        """Return what a body of this address takes up in memory: nothing yet."""
        return MemoryShare(self._memory, bucket)

    async def open(self, bucket: str) -> "SpoolFile":
        """Return a new file that counts for an address. Raises Refusal (spool_full)."""
        try:
            descriptor = await trio.to_thread.run_sync(_unnamed, self._folder)
        except OSError as error:
            raise _disk(error) from error
        return SpoolFile(descriptor, self._room, bucket, self.share(bucket))


@final
class MemoryShare:
    """The memory that one body takes up; call `close` in any case."""

    __slots__ = ("_bucket", "_room", "size")

    def __init__(self, room: BodyRoom, bucket: str) -> None:
        self._room = room
        self._bucket = bucket
        self.size = 0

    def take(self, size: int) -> bool:
        """Take up more; return False, and take nothing, when there is no room for it."""
        if not self._room.enter(self._bucket, size):
            return False
        self.size += size
        return True

    def close(self) -> None:
        """Give it back."""
        if self.size:
            self._room.leave(self._bucket, self.size)
            self.size = 0


@final
class SpoolFile:
    """One body; call `close` in any case."""

    def __init__(self, descriptor: int, room: BodyRoom, bucket: str, share: MemoryShare) -> None:
        self._share = share
        self._descriptor = descriptor
        self._room = room
        self._bucket = bucket
        self._pending = bytearray()
        self._written = 0
        self.size = 0

    async def write(self, data: bytes) -> None:
        """Append. Raises Refusal (spool_full)."""
        if not self._room.enter(self._bucket, len(data)):
            raise _full("the quota is used up")
        self.size += len(data)
        self._pending += data
        if len(self._pending) >= _WRITTEN_BYTES or not self._share.take(len(data)):
            await self._flush()

    async def finish(self) -> None:
        """Write what is pending. Raises Refusal (spool_full)."""
        if self._pending:
            await self._flush()

    async def _flush(self) -> None:
        data, self._pending = self._pending, bytearray()
        try:
            await trio.to_thread.run_sync(_write_all, self._descriptor, data, self._written)
        except OSError as error:
            raise _disk(error) from error
        self._written += len(data)
        self._share.close()

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """Yield the body. Raises OSError."""
        at = 0
        while at < self.size:
            part = await trio.to_thread.run_sync(os.pread, self._descriptor, _PART_BYTES, at)
            if not part:
                raise OSError("a spooled body is shorter than what was written")
            at += len(part)
            yield part

    def close(self) -> None:
        """Give the room and the disk's bytes back."""
        self._share.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            if self.size:
                self._room.leave(self._bucket, self.size)


def no_room_in_memory() -> Refusal:
    """Return the refusal of a body that can only wait in memory, where no room is left."""
    return _full("the quota of memory is used up")


def _disk(error: OSError) -> Refusal:
    return _full("the disk takes no more", error.strerror or str(error))


def _full(why: str, cause: str = "") -> Refusal:
    text = "The server has no room for this request body now"
    return Refusal("spool_full", text, retry_after_s=5, message=why, cause=cause)


def _unnamed(folder: Path) -> int:
    try:
        return os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError:  # not every file system has O_TMPFILE
        descriptor, name = tempfile.mkstemp(dir=folder)
        os.unlink(name)
        return descriptor


def _write_all(descriptor: int, data: bytearray, at: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, at)
        at += written
        rest = rest[written:]


def problem_with(folder: Path, quota: int) -> str | None:
    """Return why this folder cannot hold so much: it is in memory and smaller. None if it can. Blocks."""
    kind = _file_system(folder)
    stat = os.statvfs(folder)
    size = stat.f_frsize * stat.f_blocks
    if kind in _TMPFS and size < quota:
        return (
            f"{folder} is in memory ({kind}, {size} bytes) and smaller than bodies.spool_bytes ({quota}): "
            "set bodies.spool_dir to a folder on a disk, or bodies.spool_bytes lower"
        )
    return None


def _file_system(folder: Path) -> str:
    """Return the type of the file system that holds a folder; empty where it cannot be told."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    found, kind = "", ""
    path = str(folder.resolve())
    for line in lines:
        before, _, after = line.partition(" - ")
        at = before.split(" ")[4]
        inside = path == at or path.startswith(at.rstrip("/") + "/")
        if inside and len(at) >= len(found):
            found, kind = at, after.split(" ")[0]
    return kind
