"""Archiving a node's memory and bringing it back: the same rows, no others', and no half archive ever looks whole."""

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engram.archive import opening, signing
from engram.archive.archiver import NOTHING, Allowed, Archiver, Made
from engram.archive.errors import (
    AlreadyThere,
    Damaged,
    Foreign,
    Forged,
    Locked,
    Missing,
    NotTakenUp,
    PlaceUnavailable,
    Replayed,
)
from engram.archive.folder_place import FolderPlace
from engram.archive.journal import Journal
from engram.archive.model import DELETIONS, HEADER, Header, HotkeySource, key_name, manifest_name
from engram.archive.place import Place
from engram.archive.reading import header_at, open_archive
from engram.archive.restorer import EVERYTHING, Checked, Restored, Wanted, check, restore
from engram.hotkeys import Keypair
from engram.memory.model import PUBLIC
from engram.memory.upkeep.data_files import TRUTH
from tests.archive.nodes import OWNER, STRANGER, Node, content, entry

TRUTH_ID = "11111111-0000-4000-8000-000000000000"
ARCHIVE_ID = b"an archive's id!"
SECRET = opening.of_hotkey(OWNER, ARCHIVE_ID)


def heading(owner: Keypair = OWNER, secret: bytes = SECRET, writers: tuple[bytes, ...] = ()) -> Header:
    made = Header(
        archive_id=ARCHIVE_ID,
        owner=bytes(owner.public_key),
        archive_key=opening.public_of(secret),
        source=HotkeySource(),
        writers=writers,
        created_at=1.0,
    )
    return opening.proven(secret, made)


class Shelf:
    """A node and the place of its archive."""

    def __init__(self, folder: Path) -> None:
        self.node = Node(folder / "node")
        self.path = folder / "archive"
        self.place = FolderPlace(self.path)
        self.journal = folder / "node" / "archive.journal"
        self.header = heading()
        self.path.mkdir()
        (self.path / HEADER).write_bytes(signing.sign_header(OWNER, self.header))
        self.target = folder / "restored"

    def archiver(self, writer: Keypair = OWNER, *, place: Place | None = None, allowed: Allowed = NOTHING) -> Archiver:
        """An archiver as a new process has it."""
        place = place or self.place
        return Archiver(place, self.header, writer, Journal(self.journal), lambda: 5_000.0, allowed)

    async def update(self, **allowed: bool) -> Made:
        return await self.archiver(allowed=Allowed(**allowed)).update(self.node.folder)

    async def restore(self, seen: int = 0, wanted: Wanted = EVERYTHING, number: int | None = None) -> Restored:
        opened = await open_archive(self.place, await header_at(self.place), SECRET, seen, number)
        return await restore(self.place, opened, self.target, TRUTH_ID, wanted)

    async def check(self) -> Checked:
        return await check(self.place, await open_archive(self.place, await header_at(self.place), SECRET))

    def parts(self, folder: str) -> list[Path]:
        return sorted((self.path / folder).iterdir())


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path)
    shelf.node.put(*(entry(number) for number in range(20)))
    shelf.node.put(*(entry(number, "diary", owner=bytes(OWNER.public_key)) for number in range(5)), now=1_500.0)
    shelf.node.note(1)
    shelf.node.share_and_attest("diary")
    return shelf


async def test_what_is_restored_is_what_the_owner_had(shelf: Shelf) -> None:
    made = await shelf.update()
    assert (made.sequence, made.rows, made.added, made.removed, made.is_new) == (1, 28, 28, 0, True)
    checked = await shelf.restore()
    assert checked.rows == {"record": 25, "conversation": 1, "key_share": 1, "attestation": 1}
    before, after = content(shelf.node.folder), content(shelf.target)
    strangers = bytes(STRANGER.public_key).hex()
    before["key_shares"] = [row for row in before["key_shares"] if strangers not in row]
    assert after == before


async def test_another_tenants_records_are_not_archived(shelf: Shelf) -> None:
    shelf.node.put(entry(1, "5Tenant:notes", "a tenant's secret"))
    await shelf.update()
    await shelf.restore()
    assert {row[1] for row in content(shelf.target)["records"]} == {PUBLIC, "diary"}


async def test_a_second_update_sends_what_changed_and_nothing_else(shelf: Shelf) -> None:
    first = await shelf.update()
    again = await shelf.update()
    assert (again.sequence, again.is_new, again.sent_bytes) == (1, False, 0)
    shelf.node.put(entry(100))
    shelf.node.delete(entry(3))
    shelf.node.note(1, "another word")  # a changed conversation is a new row, and the old one is gone
    made = await shelf.update()
    assert (made.sequence, made.added, made.removed) == (2, 2, 2)
    assert made.sent_bytes < first.sent_bytes * 2
    await shelf.restore()
    assert content(shelf.target)["records"] == content(shelf.node.folder)["records"]
    assert content(shelf.target)["conversations"] == content(shelf.node.folder)["conversations"]


async def test_a_record_that_comes_back_after_its_deletion_is_there(shelf: Shelf) -> None:
    await shelf.update()
    for _ in range(3):
        shelf.node.delete(entry(3))
        await shelf.update()
        shelf.node.put(entry(3))
        await shelf.update()
    await shelf.restore()
    assert content(shelf.target)["records"] == content(shelf.node.folder)["records"]


async def test_worn_segments_are_written_anew_and_named_no_more(shelf: Shelf) -> None:
    await shelf.update()
    shelf.node.delete(*(entry(number) for number in range(15)))
    made = await shelf.update(shrinking=True)
    opened = await open_archive(shelf.place, shelf.header, SECRET)
    records = [ref for ref in opened.manifest.segments if ref.kind == "record"]
    assert [ref.rows for ref in records] == [10]
    assert DELETIONS not in {ref.kind for ref in opened.manifest.segments}
    await shelf.restore()
    assert content(shelf.target)["records"] == content(shelf.node.folder)["records"]
    assert made.unremoved == 0
    named = {ref.name for ref in opened.manifest.segments}
    assert {path.name for path in shelf.parts("segments")} == named  # nothing worn is left lying there
    await shelf.check()


async def test_an_update_without_its_journal_archives_everything_under_a_new_key_once_that_is_allowed(
    shelf: Shelf,
) -> None:
    await shelf.update()
    shelf.journal.unlink()
    shelf.node.put(entry(50))
    with pytest.raises(NotTakenUp, match="has 1 manifests"):
        await shelf.update()
    made = await shelf.update(take_over=True)
    assert (made.sequence, made.added) == (2, 29)
    assert [path.name for path in shelf.parts("keys")] == ["000001", "000002"]
    await shelf.restore(seen=2)
    assert content(shelf.target)["records"] == content(shelf.node.folder)["records"]


async def test_what_was_deleted_cannot_be_opened_after_shredding(shelf: Shelf) -> None:
    await shelf.update()
    old = {path.name: path.read_bytes() for path in shelf.parts("segments")}
    shelf.node.delete(entry(7))
    made = await shelf.archiver().shred(shelf.node.folder)
    assert made.sequence == 2
    assert [path.name for path in shelf.parts("keys")] == ["000002"]
    assert not old.keys() & {path.name for path in shelf.parts("segments")}
    await shelf.restore()
    assert content(shelf.target)["records"] == content(shelf.node.folder)["records"]
    with pytest.raises(Locked, match="destroyed"):  # an observer kept the old manifest, and everything else
        (shelf.path / manifest_name(2)).unlink()
        await open_archive(shelf.place, shelf.header, SECRET)


async def test_nothing_in_an_archive_can_be_read_by_what_holds_it(shelf: Shelf) -> None:
    await shelf.update()
    everything = b"".join(path.read_bytes() for path in shelf.path.rglob("*") if path.is_file())
    for secret in (b"text 3", b"diary", b"hello", entry(3).embedding):
        assert secret not in everything
    assert {path.stat().st_size - 60 for path in shelf.parts("segments")} == {1 << 14}


async def test_a_key_of_another_opens_nothing(shelf: Shelf) -> None:
    await shelf.update()
    for secret in (opening.of_hotkey(STRANGER, ARCHIVE_ID), opening.of_hotkey(OWNER, b"another archive!")):
        with pytest.raises(Locked, match="opened by its hotkey"):
            await open_archive(shelf.place, shelf.header, secret)


@pytest.mark.parametrize("folder", ["segments", "manifests", "keys"])
async def test_a_bit_that_flipped_is_found_in_every_part(shelf: Shelf, folder: str) -> None:
    await shelf.update()
    for path in shelf.parts(folder):
        whole = path.read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 1):
            spoilt = bytearray(whole)
            spoilt[at] ^= 1
            path.write_bytes(spoilt)
            with pytest.raises((Damaged, Forged, Locked, Foreign)):
                await shelf.restore()
        path.write_bytes(whole)
    assert not (shelf.target / TRUTH).exists()
    await shelf.restore()


@pytest.mark.parametrize("folder", ["segments", "manifests", "keys"])
async def test_a_part_that_is_gone_is_named(shelf: Shelf, folder: str) -> None:
    await shelf.update()
    names = {"segments": "{} is missing", "manifests": "nothing was archived", "keys": "the key of epoch 1"}
    for path in shelf.parts(folder):
        path.rename(shelf.path / "away")
        with pytest.raises((Missing, Locked), match=names[folder].format(path.name)):
            await shelf.restore()
        (shelf.path / "away").rename(path)


async def test_segments_that_change_places_are_found(shelf: Shelf) -> None:
    await shelf.update()
    one, two = shelf.parts("segments")[:2]
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    with pytest.raises(Damaged, match="not those that its name stands for"):
        await shelf.restore()


async def test_an_older_manifest_is_refused_once_a_newer_one_was_seen(shelf: Shelf) -> None:
    await shelf.update()
    shelf.node.put(entry(60))
    await shelf.update()
    (shelf.path / manifest_name(2)).unlink()
    with pytest.raises(Replayed, match="number 1, and number 2 was seen"):
        await shelf.restore(seen=2)
    await shelf.restore()
    with pytest.raises(Missing):  # and the archiver does not go on behind it
        await shelf.update()


async def test_a_manifest_of_another_history_does_not_fit(shelf: Shelf) -> None:
    await shelf.update()
    shelf.node.put(entry(60))
    await shelf.update()
    two = (shelf.path / manifest_name(2)).read_bytes()
    (shelf.path / manifest_name(1)).write_bytes(two)
    with pytest.raises(Forged, match="does not follow"):
        await shelf.restore()
    (shelf.path / manifest_name(3)).write_bytes(two)
    with pytest.raises(Forged, match="says that it is number 2"):
        await shelf.restore()


async def test_only_the_owner_and_those_admitted_write(shelf: Shelf) -> None:
    with pytest.raises(Forged, match="may not write"):
        await shelf.archiver(STRANGER).update(shelf.node.folder)
        await shelf.restore()
    shutil.rmtree(shelf.path / "manifests")
    shelf.journal.unlink()
    shelf.header = heading(writers=(bytes(STRANGER.public_key),))
    (shelf.path / HEADER).write_bytes(signing.sign_header(OWNER, shelf.header))
    await shelf.archiver(STRANGER).update(shelf.node.folder)
    await shelf.restore()


async def test_a_header_is_its_owners(shelf: Shelf) -> None:
    with pytest.raises(Foreign, match="belongs to 5"):
        await header_at(shelf.place, bytes(STRANGER.public_key))
    stored = signing.sign_header(STRANGER, shelf.header)
    with pytest.raises(Forged, match="not signed by the owner"):
        signing.read_header(stored)
    with pytest.raises(Damaged, match="format 2"):
        signing.read_header(signing.sign_header(OWNER, msgspec.structs.replace(shelf.header, format=2)))
    with pytest.raises(Damaged, match="not that of an archive"):
        signing.read_header(b"\xc1")


@pytest.mark.parametrize("change", [{"owner": STRANGER}, {"writers": (bytes(STRANGER.public_key),)}])
async def test_a_header_with_the_archives_public_key_alone_is_not_believed(
    shelf: Shelf, change: dict[str, Any]
) -> None:
    await shelf.update()
    signer = change.get("owner", OWNER)
    forged = msgspec.structs.replace(
        heading(secret=opening.new_secret(), **change), archive_key=shelf.header.archive_key
    )
    (shelf.path / HEADER).write_bytes(signing.sign_header(signer, forged))
    with pytest.raises(Forged, match="not made with the archive's key"):
        await shelf.restore()


async def test_two_writers_do_not_overwrite_each_other(shelf: Shelf, tmp_path: Path) -> None:
    await shelf.update()
    shutil.copy(shelf.journal, tmp_path / "copy")
    shelf.node.put(entry(70))
    await shelf.update()
    shelf.node.put(entry(71))
    await shelf.update()
    shutil.copy(tmp_path / "copy", shelf.journal)
    with pytest.raises(AlreadyThere, match="one writer at a time"):
        await shelf.update()


async def test_a_part_of_an_archive_can_be_restored(shelf: Shelf) -> None:
    await shelf.update()
    await shelf.restore(wanted=Wanted(namespace="diary"))
    found = content(shelf.target)
    assert {row[1] for row in found["records"]} == {"diary"}
    assert not found["conversations"]
    shutil.rmtree(shelf.target)
    await shelf.restore(wanted=Wanted(since=1_200.0))
    assert {row[8] for row in content(shelf.target)["records"]} == {1_500.0}


async def test_a_failed_restore_leaves_what_was_there(shelf: Shelf) -> None:
    await shelf.update()
    await shelf.restore()
    before = content(shelf.target)
    shelf.parts("segments")[0].write_bytes(b"")
    with pytest.raises(Damaged):
        await shelf.restore()
    assert content(shelf.target) == before
    assert [path.name for path in shelf.target.iterdir() if path.name.startswith(".")] == []


async def test_a_restored_node_is_archived_on_without_sending_it_again(shelf: Shelf) -> None:
    await shelf.update()
    await shelf.restore()
    shutil.copy(shelf.journal, shelf.target / "archive.journal")
    again = await Archiver(
        shelf.place, shelf.header, OWNER, Journal.open(shelf.target / "archive.journal"), lambda: 1.0
    ).update(shelf.target)
    assert (again.added, again.removed, again.is_new) == (0, 0, False)


async def test_what_a_place_refuses_is_said_and_tried_again(shelf: Shelf) -> None:
    (shelf.path / "segments").touch()  # no folder can be made there
    with pytest.raises(PlaceUnavailable, match="cannot be written"):
        await shelf.update()
    (shelf.path / "segments").unlink()
    assert (await shelf.update()).rows == 28
    await shelf.restore()


async def test_a_torn_journal_costs_its_last_entry_only(shelf: Shelf) -> None:
    await shelf.update()
    os.truncate(shelf.journal, shelf.journal.stat().st_size - 3)  # the manifest is there, and was not noted
    made = await shelf.update()
    assert (made.sequence, made.is_new) == (1, False)
    shelf.journal.write_bytes(b"\0\0\0\1\xc1")
    with pytest.raises(Damaged, match="remove it"):
        await shelf.update()


async def test_check_reads_everything_and_changes_nothing(shelf: Shelf) -> None:
    await shelf.update()
    before = {path: path.read_bytes() for path in shelf.path.rglob("*") if path.is_file()}
    assert sum((await shelf.check()).rows.values()) == 28
    assert {path: path.read_bytes() for path in shelf.path.rglob("*") if path.is_file()} == before


def test_names_sort_as_numbers_do() -> None:
    assert key_name(9) < key_name(10) < key_name(999_999)
    assert manifest_name(99) < manifest_name(100)
