"""An archive in a folder: a disk, or whatever is mounted there."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import final

import trio

from engram import files
from engram.archive.errors import AlreadyThere, Damaged, Missing, PlaceUnavailable
from engram.archive.place import MOST_BYTES


@final
class FolderPlace:
    """Parts are files of mode 0600, on disk when `put` returns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    @property
    def address(self) -> str:
        return str(self._folder)

    @property
    def is_local(self) -> bool:
        return True

    @property
    def keeps_forever(self) -> bool:
        return False

    async def price(self, sizes: Sequence[int]) -> int:
        del sizes
        return 0

    async def put(self, name: str, content: bytes) -> None:
        await trio.to_thread.run_sync(self._put, name, content)

    async def get(self, name: str, most: int) -> bytes:
        return await trio.to_thread.run_sync(self._get, name, most)

    async def resume(self, name: str) -> bool:
        return await trio.to_thread.run_sync(self._resume, name)

    async def delete(self, name: str) -> None:
        await trio.to_thread.run_sync(self._delete, name)

    async def names(self, folder: str) -> list[str]:
        return await trio.to_thread.run_sync(self._names, folder)

    def _put(self, name: str, content: bytes) -> None:
        path = self._folder / name
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                files.put(path, content, placing=os.link)
            except FileExistsError:
                if self._get(name, MOST_BYTES) != content:
                    raise AlreadyThere(f"{path} is there and has other bytes") from None
        except OSError as error:
            raise PlaceUnavailable(f"{path} cannot be written: {error}") from error

    def _resume(self, name: str) -> bool:
        path = self._folder / name
        if not path.exists():
            return False
        try:
            files.sync(path.parent)
        except OSError as error:
            raise PlaceUnavailable(f"{path} cannot be brought to disk: {error}") from error
        return True

    def _get(self, name: str, most: int) -> bytes:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                content = file.read(most + 1)
        except FileNotFoundError:
            raise Missing(f"{path} is missing") from None
        except OSError as error:
            raise PlaceUnavailable(f"{path} cannot be read: {error}") from error
        if len(content) > most:
            raise Damaged(f"{path} has more than {most} bytes")
        return content

    def _delete(self, name: str) -> None:
        path = self._folder / name
        try:
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                files.sync(path.parent)
        except OSError as error:
            raise PlaceUnavailable(f"{path} cannot be removed: {error}") from error

    def _names(self, folder: str) -> list[str]:
        try:
            return sorted(
                f"{folder}/{each.name}" for each in (self._folder / folder).iterdir() if not each.name.startswith(".")
            )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise PlaceUnavailable(f"{self._folder / folder} cannot be listed: {error}") from error
