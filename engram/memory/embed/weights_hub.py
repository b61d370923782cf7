"""Downloading the weights of all-MiniLM-L6-v2: bounded, resumable, and accepted only when they are the published files.

Files are requested in parts of 4 MiB (HTTP ranges), so that little memory is used and an interrupted download resumes
where it stopped, also in another process. Redirects are followed, but never from https to http.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, final
from urllib.parse import urljoin, urlsplit

import trio

from engram.http.client import HttpClient, HttpError, Response, TooLarge
from engram.memory.embed import weights
from engram.memory.errors import MemoryAreaError, WeightsRefused

FOLDER = "all-MiniLM-L6-v2"
PART_BYTES = 4 * 1024**2
_PART_WITHIN_S = 120.0
_SILENCE_S = 30.0
_MOST_REDIRECTS = 5
_LOOK_EVERY_S = 1.0
_REDIRECTS = (301, 302, 303, 307, 308)
_FOR_GOOD = (400, 401, 403, 404, 410)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)\Z")


class HubUnavailable(MemoryAreaError):
    """The download is incomplete; the parts that arrived are kept, and the next attempt resumes after them."""


@final
class Hub:
    """Downloads from `url`, below which the files have their published names, into a folder of `cache`."""

    def __init__(self, http: HttpClient, url: str, cache: Path) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._folder = cache / FOLDER
        self.on_progress: Callable[[int, int], None] = lambda done, total: None
        """Called after each part with the bytes downloaded so far and the bytes in all."""

    async def fetch(self) -> Path:
        """Return the folder with the files, downloaded if they are not there; one process downloads at a time.

        Raises HubUnavailable (try again later), WeightsRefused (retrying does not help), OSError.
        """
        try:
            async with self._alone():
                for name in weights.PUBLISHED:
                    await self._have(name)
        finally:
            with trio.move_on_after(1.0, shield=True):
                await self._http.aclose()
        return self._folder

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await trio.sleep(_LOOK_EVERY_S)
            yield
        finally:
            os.close(descriptor)

    async def _have(self, name: str) -> None:
        path, part = self._folder / name, self._folder / f"{name}.part"
        if path.exists() and await trio.to_thread.run_sync(_is_published, path, name):
            return
        resumed = part.exists()
        await self._download(name, part)
        if resumed and not await trio.to_thread.run_sync(_is_published, part, name):
            part.unlink()  # the part left by an earlier run may be the bad one
            await self._download(name, part)
        try:
            await trio.to_thread.run_sync(weights.verify, part, name)
        except WeightsRefused as error:
            part.unlink()
            raise WeightsRefused(f"what {self._url} gives is refused: {error}") from error
        part.replace(path)

    async def _download(self, name: str, part: Path) -> None:
        total = weights.SIZES[name]
        with _continued(part, total) as file:
            at = file.tell()
            while at < total:
                content = await self._part(f"{self._url}/{name}", at, min(PART_BYTES, total - at), total)
                await trio.to_thread.run_sync(file.write, content)
                await trio.to_thread.run_sync(file.flush)
                at += len(content)
                self.on_progress(at, total)
            await trio.to_thread.run_sync(os.fsync, file.fileno())

    async def _part(self, url: str, start: int, length: int, total: int) -> bytes:
        answer = await self._get(url, start, length)
        found = _RANGE.match(answer.headers.get("content-range", ""))
        if answer.status == 206 and found is not None:
            first, last, size = (int(number) for number in found.groups())
            if (first, last - first + 1, size) == (start, len(answer.content), total) and answer.content:
                return answer.content
            if size != total:
                raise WeightsRefused(f"{url} has {size} bytes, the published file has {total}")
        if answer.status == 200 and start == 0 and len(answer.content) == total:
            return answer.content
        if answer.status in _FOR_GOOD:
            raise WeightsRefused(f"{url} answers {answer.status}: set miner.hub_url, or miner.weights_dir to a folder")
        raise HubUnavailable(f"{url} answered {answer.status} without the part that was asked for")

    async def _get(self, url: str, start: int, length: int) -> Response:
        headers = {"range": f"bytes={start}-{start + length - 1}"}
        for _ in range(_MOST_REDIRECTS):
            try:
                answer = await self._http.request(
                    "GET", url, headers=headers, read_s=_SILENCE_S, total_s=_PART_WITHIN_S, max_bytes=length
                )
            except TooLarge as error:
                raise WeightsRefused(f"{url} gives no parts of files (HTTP ranges): use miner.weights_dir") from error
            except HttpError as error:
                raise HubUnavailable(f"{url}: {error}") from error
            if answer.status not in _REDIRECTS:
                return answer
            target = urljoin(url, answer.headers.get("location", ""))
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                raise WeightsRefused(f"{url} leads away from https")
            url = target
        raise HubUnavailable(f"{url}: more than {_MOST_REDIRECTS} redirects")


def _continued(part: Path, total: int) -> BinaryIO:
    """Open what an interrupted download left, at its end, or a new file."""
    file = os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT, 0o600), "wb")
    at = min(os.fstat(file.fileno()).st_size, total)
    file.truncate(at)
    file.seek(at)
    return file


def _is_published(path: Path, name: str) -> bool:
    try:
        weights.verify(path, name)
    except WeightsRefused:
        return False
    return True
