"""What goes wrong around an archive and must not harm it: the wrong node, two at once, old journals, faulty places."""

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from engram.archive import archiver, sealing, segments
from engram.archive.archiver import Allowed, Archiver
from engram.archive.errors import (
    AlreadyThere,
    Damaged,
    Forged,
    InUse,
    Locked,
    Missing,
    NothingThere,
    NotTakenUp,
    PlaceUnavailable,
    RowTooLarge,
    Shrunk,
)
from engram.archive.folder_place import FolderPlace
from engram.archive.journal import Dropped, Entry, Journal
from engram.archive.model import DELETIONS, key_name, manifest_name
from engram.archive.reading import open_archive
from engram.archive.restorer import Wanted
from engram.memory.upkeep import rows
from tests.archive.nodes import OWNER, Node, content, entry
from tests.archive.test_archive import SECRET, Shelf


class FaultyPlace:
    """A folder as a place far away, with the faults of one."""

    def __init__(self, folder: Path) -> None:
        self._place = FolderPlace(folder)
        self.lists = True
        self.deletes = True
        self.shows_more = True
        self.fails_at: str = ""
        self.put_names: list[str] = []
        self.before_put: Callable[[], None] = lambda: None

    @property
    def address(self) -> str:
        return self._place.address

    @property
    def is_local(self) -> bool:
        return False

    @property
    def keeps_forever(self) -> bool:
        return False

    async def price(self, sizes: Sequence[int]) -> int:
        return 0

    async def put(self, name: str, content: bytes) -> None:
        self.before_put()
        if self.fails_at and name.startswith(self.fails_at):
            raise PlaceUnavailable(f"{name} was not taken")
        self.put_names.append(name)
        await self._place.put(name, content)

    async def resume(self, name: str) -> bool:
        return await self._place.resume(name)

    async def delete(self, name: str) -> None:
        if not self.deletes:
            raise PlaceUnavailable(f"{name} was not removed")
        await self._place.delete(name)

    async def get(self, name: str, most: int) -> bytes:
        return await self._place.get(name, most)

    async def names(self, folder: str) -> list[str]:
        return await self._place.names(folder) if self.lists else []


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path)
    shelf.node.put(*(entry(number) for number in range(20)))
    shelf.node.note(1)
    return shelf


async def restored(shelf: Shelf) -> dict[str, list[tuple[object, ...]]]:
    shutil.rmtree(shelf.target, ignore_errors=True)
    await shelf.restore()
    return content(shelf.target)


async def test_a_new_empty_node_does_not_replace_a_memory(shelf: Shelf, tmp_path: Path) -> None:
    await shelf.update()
    before = content(shelf.node.folder)
    other = Node(tmp_path / "other")
    for work in ("update", "shred"):
        made = Archiver(shelf.place, shelf.header, OWNER, Journal(tmp_path / "other.journal"), lambda: 1.0)
        with pytest.raises(NotTakenUp, match="--take-over"):
            await getattr(made, work)(other.folder)
    assert await restored(shelf) == before


async def test_a_node_that_has_lost_most_of_its_memory_does_not_replace_it_without_a_word(shelf: Shelf) -> None:
    await shelf.update()
    before = content(shelf.node.folder)
    shelf.node.delete(*(entry(number) for number in range(12)))
    for _ in range(2):
        with pytest.raises(Shrunk, match="holds 9 rows of the owner's, and the archive has 21"):
            await shelf.update()
    with pytest.raises(Shrunk):
        await shelf.archiver().shred(shelf.node.folder)
    assert await restored(shelf) == before
    assert (await shelf.update(shrinking=True)).rows == 9
    assert await restored(shelf) == content(shelf.node.folder)


async def test_an_earlier_state_can_be_restored_while_its_segments_are_left(shelf: Shelf) -> None:
    await shelf.update()
    before = content(shelf.node.folder)
    for number in (50, 51):
        shelf.node.put(entry(number))
        await shelf.update()
    await shelf.restore(number=1)
    assert content(shelf.target) == before
    with pytest.raises(Missing, match="manifests 1 to 3, and none of number 4"):
        await shelf.restore(number=4)
    shutil.copy(shelf.path / manifest_name(1), shelf.path / manifest_name(2))
    with pytest.raises(Forged, match="does not follow"):
        await shelf.restore(number=1)


async def test_a_journal_from_before_a_shredding_neither_writes_nor_brings_back_a_key(
    shelf: Shelf, tmp_path: Path
) -> None:
    await shelf.update()
    shutil.copy(shelf.journal, tmp_path / "copy")
    await shelf.archiver().shred(shelf.node.folder)
    before = sorted(shelf.path.rglob("*"))
    shutil.copy(tmp_path / "copy", shelf.journal)
    shelf.node.put(entry(70))
    with pytest.raises(AlreadyThere, match="one writer at a time"):
        await shelf.update()
    assert sorted(shelf.path.rglob("*")) == before
    await shelf.check()


async def test_a_key_that_was_destroyed_is_not_brought_back(shelf: Shelf) -> None:
    await shelf.update()
    (shelf.path / key_name(1)).unlink()
    shelf.node.put(entry(70))
    with pytest.raises(Locked, match="`engram archive shred` archives what lives under a new one"):
        await shelf.update()
    await shelf.archiver().shred(shelf.node.folder)
    assert await restored(shelf) == content(shelf.node.folder)


async def test_a_key_that_was_spoilt_is_noticed_by_the_next_update(shelf: Shelf) -> None:
    await shelf.update()
    (shelf.path / key_name(1)).write_bytes(b"spoilt")
    with pytest.raises(Damaged, match="is not the one that was brought there"):
        await shelf.update()


async def test_two_updates_at_once_are_one_after_the_other(shelf: Shelf) -> None:
    await shelf.update()
    shelf.node.put(entry(30))
    place, second = FaultyPlace(shelf.path), shelf.archiver()
    refused = []

    def meanwhile() -> None:
        place.before_put = lambda: None
        with pytest.raises(InUse, match="being archived there already"), second._journal.held():
            pass
        refused.append(True)

    place.before_put = meanwhile
    await shelf.archiver(place=place).update(shelf.node.folder)
    assert refused == [True]
    assert (await shelf.update()).is_new is False
    assert await restored(shelf) == content(shelf.node.folder)


async def test_rows_that_two_segments_hold_are_in_one_after_the_next_update(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after small segments were merged, and before the small ones were dropped."""
    for number in range(100, 107):
        shelf.node.put(entry(number))
        await shelf.update()
    shelf.node.put(entry(107))
    note = Journal.note

    def die(journal: Journal, made: Entry) -> None:
        if isinstance(made, Dropped):
            raise KeyboardInterrupt
        note(journal, made)

    monkeypatch.setattr(Journal, "note", die)
    with pytest.raises(KeyboardInterrupt):
        await shelf.update()
    monkeypatch.undo()
    assert len(Journal.open(shelf.journal).doubled) == 8
    await shelf.update()
    assert await restored(shelf) == content(shelf.node.folder)


async def test_shredding_destroys_keys_that_no_listing_shows(shelf: Shelf) -> None:
    await shelf.update()
    place = FaultyPlace(shelf.path)
    place.lists = False
    await shelf.archiver(place=place).shred(shelf.node.folder)
    assert [path.name for path in shelf.parts("keys")] == ["000002"]


async def test_a_shredding_that_cannot_delete_goes_on_where_it_was(shelf: Shelf) -> None:
    await shelf.update()
    place = FaultyPlace(shelf.path)
    place.deletes = False
    with pytest.raises(PlaceUnavailable, match=r"did not remove keys/000001, segments/\w+, segments/\w+$"):
        await shelf.archiver(place=place).shred(shelf.node.folder)
    sent = len(place.put_names)
    for _ in range(2):
        with pytest.raises(PlaceUnavailable, match="did not remove keys/000001"):
            await shelf.archiver(place=place).shred(shelf.node.folder)
    assert len(place.put_names) == sent
    place.deletes = True
    await shelf.archiver(place=place).shred(shelf.node.folder)
    assert [path.name for path in shelf.parts("keys")] == ["000002"]
    assert await restored(shelf) == content(shelf.node.folder)


async def test_what_was_deleted_after_a_shredding_began_is_shredded_too(shelf: Shelf) -> None:
    await shelf.update()
    place = FaultyPlace(shelf.path)
    place.deletes = False
    with pytest.raises(PlaceUnavailable):
        await shelf.archiver(place=place).shred(shelf.node.folder)
    shelf.node.delete(entry(3))
    await shelf.update()
    await shelf.archiver().shred(shelf.node.folder)
    assert [path.name for path in shelf.parts("keys")] == ["000003"]
    assert await restored(shelf) == content(shelf.node.folder)


async def test_segments_that_nothing_names_any_more_do_not_pile_up(shelf: Shelf) -> None:
    await shelf.update()
    every = [entry(number) for number in range(20)]
    for _ in range(4):
        shelf.node.delete(*every)
        await shelf.update(shrinking=True)
        shelf.node.put(*every)
        await shelf.update()
    opened = await open_archive(shelf.place, shelf.header, SECRET)
    assert len(shelf.parts("segments")) == len(opened.manifest.segments) == 2
    assert await restored(shelf) == content(shelf.node.folder)


async def test_a_segment_that_cannot_be_removed_is_tried_again(shelf: Shelf) -> None:
    await shelf.update()
    shelf.node.delete(*(entry(number) for number in range(8)))
    place = FaultyPlace(shelf.path)
    place.deletes = False
    assert (await shelf.archiver(place=place).update(shelf.node.folder)).unremoved == 2
    place.deletes = True
    assert (await shelf.archiver(place=place).update(shelf.node.folder)).unremoved == 0
    assert len(shelf.parts("segments")) == 2


async def test_many_small_updates_make_few_segments(shelf: Shelf) -> None:
    for number in range(100, 130):
        shelf.node.put(entry(number))
        shelf.node.delete(entry(number - 100))
        await shelf.update(shrinking=True)
    opened = await open_archive(shelf.place, shelf.header, SECRET)
    kinds = [ref.kind for ref in opened.manifest.segments]
    assert len(kinds) < 20
    assert kinds.count(DELETIONS) < 8
    assert await restored(shelf) == content(shelf.node.folder)


async def test_more_deletions_than_one_list_holds_are_split(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiver, "_MOST_BURIED", 3)
    shelf.node.put(*(entry(number) for number in range(100, 140)))
    await shelf.update()
    shelf.node.delete(*(entry(number) for number in range(7)))
    await shelf.update()
    opened = await open_archive(shelf.place, shelf.header, SECRET)
    assert [ref.rows for ref in opened.manifest.segments if ref.kind == DELETIONS] == [3, 3, 1]
    assert await restored(shelf) == content(shelf.node.folder)


async def test_what_was_sealed_is_sent_as_it_is_after_a_failure(shelf: Shelf) -> None:
    place = FaultyPlace(shelf.path)
    place.fails_at = "segments/"
    with pytest.raises(PlaceUnavailable):
        await shelf.archiver(place=place).update(shelf.node.folder)
    staged = sorted(path.name for path in shelf.journal.with_suffix(".staged").iterdir())
    place.fails_at = ""
    await shelf.archiver(place=place).update(shelf.node.folder)
    assert sorted(path.name for path in shelf.parts("segments")) == staged
    assert not shelf.journal.with_suffix(".staged").exists() or not list(shelf.journal.with_suffix(".staged").iterdir())
    assert await restored(shelf) == content(shelf.node.folder)


async def test_the_nodes_databases_are_not_held_open_while_parts_are_sent(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, held = FaultyPlace(shelf.path), []
    opened: list[Path] = []
    snapshot = rows.snapshot

    @contextmanager
    def counted(data: Path) -> Iterator[rows.Snapshot]:
        with snapshot(data) as found:
            opened.append(data)
            yield found
            opened.pop()

    monkeypatch.setattr(rows, "snapshot", counted)
    place.before_put = lambda: held.append(len(opened))
    await shelf.archiver(place=place).update(shelf.node.folder)
    assert held == [0] * len(held)
    assert len(held) == 4  # the key, two segments, the manifest


async def test_a_part_that_holds_nothing_is_not_put_in_place_of_a_memory(shelf: Shelf) -> None:
    await shelf.update()
    await shelf.restore()
    before = content(shelf.target)
    with pytest.raises(NothingThere, match="its namespaces are __public__"):
        await shelf.restore(wanted=Wanted(namespace="diray"))
    assert content(shelf.target) == before
    shelf.node.put(entry(5, "diary", owner=bytes(OWNER.public_key)))
    await shelf.update()
    made = await shelf.restore(wanted=Wanted(namespace="diary"))
    assert made.rows == {"record": 1, "conversation": 0, "key_share": 0, "attestation": 0}


async def test_of_an_empty_archive_nothing_is_restored(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    await shelf.update()
    with pytest.raises(NothingThere, match="has no rows"):
        await shelf.restore()


async def test_an_archive_that_was_taken_over_is_not_written_by_the_former_node(shelf: Shelf, tmp_path: Path) -> None:
    await shelf.update()
    other = Node(tmp_path / "other")
    other.put(entry(1))
    taking = Allowed(take_over=True)
    made = Archiver(shelf.place, shelf.header, OWNER, Journal(tmp_path / "other.journal"), lambda: 1.0, taking)
    assert (await made.update(other.folder)).sequence == 2
    with pytest.raises(AlreadyThere, match="one writer at a time"):
        await shelf.update()
    assert (await shelf.update(take_over=True)).sequence == 3
    assert await restored(shelf) == content(shelf.node.folder)


async def test_a_key_that_another_began_is_not_replaced(shelf: Shelf) -> None:
    (shelf.path / "keys").mkdir()
    place = FaultyPlace(shelf.path)
    place.lists = False  # the listing shows nothing of it
    (shelf.path / key_name(1)).write_bytes(b"of another, who never wrote a manifest")
    await shelf.archiver(place=place).update(shelf.node.folder)
    assert [path.name for path in shelf.parts("keys")] == ["000001", "000002"]
    assert await restored(shelf) == content(shelf.node.folder)


def test_an_empty_column_of_a_later_version_leaves_digests_as_they_are() -> None:
    before = segments.digester("record", ("a", "b"))
    after = segments.digester("record", ("a", "b", "added", "later"))
    for row in ((1, "x"), (1, None), (None, None)):
        assert after((*row, None, None)) == before(row)
    assert after((1, "x", 0, None))[0] != before((1, "x"))[0]
    assert before((1, None))[0] != before((None, 1))[0]


@pytest.mark.parametrize("is_random", [True, False], ids=["as it is sealed", "as it is unpacked"])
async def test_a_row_that_no_segment_holds_is_refused_and_named(shelf: Shelf, is_random: bool) -> None:
    await shelf.update()
    text = random.Random(1).randbytes(18_000_000).hex() if is_random else "a" * (1 << 26)
    shelf.node.put(entry(60, text=text))
    with pytest.raises(RowTooLarge, match=r"a record row has \d+ bytes, packed \d+; the most that can be archived"):
        await shelf.update()
    await shelf.check()


def test_both_ways_to_seal_make_the_same_bytes() -> None:
    made = (bytes(range(32)), bytes(12), b"bound to", b"content" * 100)
    sealed = sealing.Portable.encrypt(*made)
    assert sealing.Portable.decrypt(*made[:3], sealed) == made[3]
    if sealing._GCM is sealing.Sodium:
        assert sealing.Sodium.encrypt(*made) == sealed
        assert sealing.Sodium.decrypt(*made[:3], sealed) == made[3]


@pytest.mark.parametrize("way", [sealing._GCM, sealing.Portable])
def test_what_was_sealed_for_elsewhere_or_changed_does_not_open(way: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_GCM", way)
    sealed = sealing.seal(b"k" * 32, b"here", b"content")
    assert sealing.unseal(b"k" * 32, b"here", sealed) == b"content"
    for key, bound_to, found in (
        (b"l" * 32, b"here", sealed),
        (b"k" * 32, b"elsewhere", sealed),
        (b"k" * 32, b"here", sealed[:-1] + bytes([sealed[-1] ^ 1])),
    ):
        with pytest.raises(Damaged, match="does not open"):
            sealing.unseal(key, bound_to, found)
