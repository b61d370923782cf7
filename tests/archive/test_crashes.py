"""The archiver dies before or after each thing that it does to its journal or its place: what is there stays whole.

All that it knows lies in those two, so that an exception which nothing catches leaves what a kill leaves; a journal cut
in the middle of an entry is tried in test_archive.py.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from engram.archive import opening, signing
from engram.archive.archiver import Archiver
from engram.archive.folder_place import FolderPlace
from engram.archive.journal import Entry, Journal
from engram.archive.model import HEADER, Header, HotkeySource
from engram.archive.reading import open_archive
from engram.archive.restorer import check, restore
from engram.memory.upkeep.data_files import NOTEBOOK, TRUTH
from tests.archive.nodes import OWNER, Node, content, entry

ARCHIVE_ID = b"an archive's id!"
SECRET = opening.of_hotkey(OWNER, ARCHIVE_ID)
HEADING = opening.proven(
    SECRET,
    Header(
        archive_id=ARCHIVE_ID,
        owner=bytes(OWNER.public_key),
        archive_key=opening.public_of(SECRET),
        source=HotkeySource(),
        created_at=1.0,
    ),
)


class Killed(BaseException):
    """The process is gone."""


class Fuse:
    """Burns at each effect, twice: before it and after it. At the given one the process dies."""

    def __init__(self, at: int) -> None:
        self.left = at

    def burn(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


class MortalPlace:
    """A folder; each change of it may be the last thing that is done."""

    def __init__(self, folder: Path, fuse: Fuse) -> None:
        self._place = FolderPlace(folder)
        self._fuse = fuse

    @property
    def address(self) -> str:
        return self._place.address

    @property
    def is_local(self) -> bool:
        return True

    @property
    def keeps_forever(self) -> bool:
        return False

    async def resume(self, name: str) -> bool:
        return await self._place.resume(name)

    async def price(self, sizes: Sequence[int]) -> int:
        return 0

    async def put(self, name: str, content: bytes) -> None:
        self._fuse.burn()
        await self._place.put(name, content)
        self._fuse.burn()

    async def delete(self, name: str) -> None:
        self._fuse.burn()
        await self._place.delete(name)
        self._fuse.burn()

    async def get(self, name: str, most: int) -> bytes:
        return await self._place.get(name, most)

    async def names(self, folder: str) -> list[str]:
        return await self._place.names(folder)


class MortalJournal(Journal):
    """The same of the journal."""

    fuse = Fuse(0)

    def note(self, entry: Entry) -> None:
        self.fuse.burn()
        super().note(entry)
        self.fuse.burn()


def archiver(folder: Path, fuse: Fuse) -> Archiver:
    journal = MortalJournal(folder / "journal")
    journal.fuse = fuse
    return Archiver(MortalPlace(folder / "archive", fuse), HEADING, OWNER, journal, lambda: 5.0)


async def whole(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    """Everything that the archive gives back; checked as each restore is."""
    place, target = FolderPlace(folder / "archive"), folder / "restored"
    opened = await open_archive(place, HEADING, SECRET)
    shutil.rmtree(target, ignore_errors=True)
    await restore(place, opened, target, "11111111-0000-4000-8000-000000000000")
    return content(target)


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception kills here, and loses nothing that was written."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def began(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / HEADER).write_bytes(signing.sign_header(OWNER, HEADING))
    node = Node(tmp_path / "node")
    node.put(*(entry(number) for number in range(6)))
    node.note(1)
    return tmp_path


def change(folder: Path) -> None:
    """What the second update finds: something new, something changed, and so much gone that a segment is worn."""
    node = Node.__new__(Node)
    node.folder = folder / "node"
    node.put(entry(20), entry(21))
    node.delete(entry(0), entry(1), entry(2))
    node.note(1, "another word")


async def effects(folder: Path, *, shredding: bool) -> int:
    """How often the fuse burns while a second update runs to its end; the archive is left as it was before."""
    for part in ("archive", "node"):
        shutil.copytree(folder / part, folder / "saved" / part)
    shutil.copy(folder / "journal", folder / "saved" / "journal")
    change(folder)
    fuse = Fuse(0)
    await run(folder, fuse, shredding=shredding)
    back(folder)
    return -fuse.left


def back(folder: Path) -> None:
    for part in ("archive", "node"):
        shutil.rmtree(folder / part)
        shutil.copytree(folder / "saved" / part, folder / part)
    shutil.copy(folder / "saved" / "journal", folder / "journal")


async def run(folder: Path, fuse: Fuse, *, shredding: bool) -> None:
    made = archiver(folder, fuse)
    await (made.shred if shredding else made.update)(folder / "node")


@pytest.mark.parametrize("shredding", [False, True], ids=["update", "shred"])
async def test_wherever_an_archiver_dies_the_archive_is_whole_and_is_gone_on_with(began: Path, shredding: bool) -> None:
    await run(began, Fuse(0), shredding=False)
    before = await whole(began)
    points = await effects(began, shredding=shredding)
    assert points >= 12
    for point in range(1, points + 1):
        back(began)
        change(began)
        with pytest.raises(Killed):
            await run(began, Fuse(point), shredding=shredding)
        now = content(began / "node")
        assert await whole(began) in (before, now), point
        await run(began, Fuse(0), shredding=shredding)
        assert await whole(began) == now, point
        if shredding:
            assert len(list((began / "archive" / "keys").iterdir())) == 1


async def test_wherever_the_first_update_dies_nothing_looks_like_an_archive_until_all_is_there(began: Path) -> None:
    shutil.copytree(began, began / "saved")
    fuse = Fuse(0)
    await run(began, fuse, shredding=False)
    for point in range(1, -fuse.left + 1):
        back_to_nothing(began)
        with pytest.raises(Killed):
            await run(began, Fuse(point), shredding=False)
        if any((began / "archive").glob("manifests/*")):
            assert await whole(began) == content(began / "node")
        await run(began, Fuse(0), shredding=False)
        assert await whole(began) == content(began / "node"), point
        await check(FolderPlace(began / "archive"), await open_archive(FolderPlace(began / "archive"), HEADING, SECRET))


def back_to_nothing(folder: Path) -> None:
    for part in ("archive", "node"):
        shutil.rmtree(folder / part)
        shutil.copytree(folder / "saved" / part, folder / part)
    (folder / "journal").unlink(missing_ok=True)
    assert {path.name for path in (folder / "node").iterdir()} >= {TRUTH, NOTEBOOK}
