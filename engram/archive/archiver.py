"""Brings an archive up to what a node holds: sends what is new, notes what is gone, then names it all in a manifest.

    rows read --> new ones sealed --> gone ones listed --> worn and small segments written again --> manifest sealed
              --> all sent, a manifest last --> what nothing names any more removed

Where sending takes long or costs something, sealed parts wait on disk until every row was read, so that the node's
databases are not held open meanwhile and the price of all is known. A crash at any arrow leaves an archive whose newest
manifest is whole. What was sealed before it is sent as it is: the same bytes, under the same name.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, final

import msgspec

from engram import files
from engram.archive import rules, segments, signing
from engram.archive.errors import (
    AlreadyThere,
    CannotErase,
    Damaged,
    Locked,
    Missing,
    NotTakenUp,
    PlaceUnavailable,
    Shrunk,
)
from engram.archive.journal import (
    Arrived,
    Buried,
    Dropped,
    Epoch,
    Journal,
    Keyed,
    Listing,
    Sealed,
    Shredded,
    Swept,
    Unsent,
)
from engram.archive.model import (
    DELETIONS,
    Header,
    Manifest,
    SegmentRef,
    key_name,
    lasting_key_name,
    manifest_name,
    segment_name,
)
from engram.archive.place import MOST_BYTES, Place
from engram.archive.reading import MOST_KEY, Found, newest
from engram.archive.sealing import KEY_BYTES, name_of, purpose, seal, wrap
from engram.archive.segments import Packer
from engram.hotkeys import Keypair
from engram.memory.proof.roots import RecordRoots
from engram.memory.upkeep import rows as node_rows
from engram.memory.upkeep.data_files import Progress
from engram.memory.upkeep.rows import KINDS, Snapshot

_PROGRESS_EVERY: Final = 500
_MOST_BURIED: Final = 100_000
"""Rows in one list of deletions: 3.2 MB."""
_NAMED: Final = 3
"""How many of the parts that could not be removed are named."""


class Made(msgspec.Struct, frozen=True):
    """What an update did."""

    sequence: int
    rows: int
    """Living rows in the archive."""
    added: int
    removed: int
    sent_bytes: int
    is_new: bool
    """Whether a manifest was written: there was something to archive."""
    unremoved: int = 0
    """Segments that nothing names any more and that could not be removed; the next update tries again."""
    can_erase: bool = True
    """Whether what was deleted can be made unreadable by shredding."""


class Allowed(msgspec.Struct, frozen=True):
    """What a person said may be done."""

    take_over: bool = False
    """Go on with an archive that this journal knows nothing of."""
    shrinking: bool = False
    """Archive a node that holds less than half of what the archive has."""


NOTHING: Final = Allowed()
OnPrice = Callable[[int, int, int], None]
"""Called with the number of parts, their bytes, and the price in the place's smallest unit; 0: free."""


@final
class Archiver:
    """Writes one archive. `on_price` hears what sending will cost, before anything is sent."""

    def __init__(
        self,
        place: Place,
        header: Header,
        writer: Keypair,
        journal: Journal,
        now: Callable[[], float],
        allowed: Allowed = NOTHING,
        on_price: OnPrice = lambda parts, size, price: None,
    ) -> None:
        self._place = place
        self._header = header
        self._writer = writer
        self._journal = journal
        self._now = now
        self._allowed = allowed
        self._on_price = on_price
        self._sent = 0
        self._waiting: list[SegmentRef] = []

    async def update(self, data: Path, on_progress: Progress = lambda done, total: None) -> Made:
        """Archive what the node's folder holds of the owner's; the node may run.

        Raises PlaceUnavailable (run it again), AlreadyThere when another writer is at work, NotTakenUp, Shrunk, InUse,
        Locked when the epoch's key was destroyed, Damaged, StoreDamaged.
        """
        with self._journal.held():
            await self._begin()
            return await self._update(data, on_progress)

    async def shred(self, data: Path, on_progress: Progress = lambda done, total: None) -> Made:
        """Archive what lives under a new key, then destroy the old keys: nothing deleted can be opened any more.

        Raises as `update` does; run it again until it returns, since before that an old key may still lie somewhere.
        A second run goes on with the first one's epoch. Raises CannotErase where keys lie for ever.
        """
        if self._header.keys_forever:
            raise CannotErase(
                "the keys of this archive lie on Arweave for ever, as was chosen at its making: nothing that was "
                "archived can be erased"
            )
        journal = self._journal
        with journal.held():
            await self._begin()
            goes_on = journal.shreds
            if not goes_on:
                self._begin_epoch(shreds=True)
            made = await self._update(data, on_progress)
            if goes_on and journal.has_buried:  # it was deleted after that epoch began, and lies under its key
                self._begin_epoch(shreds=True)
                made = await self._update(data, on_progress)
            await self._destroy()
            journal.note(Shredded())
            return made

    @property
    def _epoch(self) -> Epoch:
        assert self._journal.epoch is not None, "an update begins with _begin"
        return self._journal.epoch

    async def _begin(self) -> None:
        """Take up the archive where it stands, and send what was sealed before.

        Raises NotTakenUp for a history that is not this journal's, AlreadyThere for one that another went on with.
        """
        journal = self._journal
        self._sent, self._waiting = 0, []
        for name, part in journal.pending.items():
            if isinstance(part, Listing):  # all that it names arrived before
                await self._place.resume(name)
        listed = journal.listed
        found = await newest(self._place, self._header, 0 if listed is None else listed.sequence)
        for name, part in list(journal.pending.items()):
            if isinstance(part, Listing):
                journal.note(Arrived(name) if found is not None and found.link == part.link else Unsent(name))
        if found is not None and (journal.listed is None or journal.listed.link != found.link):
            self._require_taking_over(found)
            journal.listed = Listing(found.envelope.sequence, found.link, found.envelope.epoch, 0)
            journal.epoch = None
        if journal.epoch is None:
            self._begin_epoch(await self._newest_epoch() + 1)
        for name, part in list(journal.pending.items()):
            assert not isinstance(part, Listing)
            await self._resume(name, part.ref)
        if journal.staged.exists():
            waiting = {ref.name for ref in self._waiting}
            for path in journal.staged.iterdir():
                if path.name not in waiting:
                    path.unlink()

    def _require_taking_over(self, found: Found) -> None:
        number, address = found.envelope.sequence, self._place.address
        if self._allowed.take_over:
            return
        if self._journal.listed is None:
            raise NotTakenUp(
                f"{address} has {number} manifests that this node's folder knows nothing of (--take-over replaces what "
                "they hold by what the node holds)"
            )
        raise AlreadyThere(
            f"manifest {number} at {address} was written by another: an archive has one writer at a time (--take-over "
            "makes this node the writer)"
        )

    async def _newest_epoch(self) -> int:
        keys = [int(name.rpartition("/")[2]) for name in await self._place.names("keys")]
        return max([self._journal.listed_epoch, *keys])

    async def _resume(self, name: str, ref: SegmentRef) -> None:
        if (self._journal.staged / ref.name).exists():
            self._journal.take_up(name)
            self._waiting.append(ref)
            return
        self._journal.note(Arrived(name) if await self._place.resume(name) else Unsent(name))

    def _begin_epoch(self, number: int = 0, *, shreds: bool = False) -> None:
        number = number or self._epoch.epoch + 1
        key = secrets.token_bytes(KEY_BYTES)
        wrapped = wrap(self._header.archive_key, self._header.archive_id, number, key)
        self._journal.note(Epoch(number, key, wrapped, shreds))

    async def _require_key(self) -> None:
        """Bring the epoch's key to its place, once: a key that is gone later was destroyed, and stays so."""
        name = key_name(self._epoch.epoch)
        if not self._journal.is_keyed:
            try:
                await self._place.put(name, self._epoch.wrapped)
            except AlreadyThere:  # another began this epoch; nothing was sealed in it here
                self._begin_epoch(max(self._epoch.epoch, await self._newest_epoch()) + 1, shreds=self._journal.shreds)
                await self._place.put(key_name(self._epoch.epoch), self._epoch.wrapped)
            if self._header.keys_forever:
                await self._place.put(lasting_key_name(self._epoch.epoch), self._epoch.wrapped)
            self._journal.note(Keyed())
            return
        if self._header.keys_forever:
            return
        try:
            if await self._place.get(name, MOST_KEY) != self._epoch.wrapped:
                raise Damaged(f"the key {name} at {self._place.address} is not the one that was brought there")
        except Missing:
            raise Locked(
                f"the key {name} was at {self._place.address} and is gone: `engram archive shred` archives what lives "
                "under a new one"
            ) from None

    async def _update(self, data: Path, on_progress: Progress) -> Made:
        journal = self._journal
        await self._require_key()
        before = len(journal)
        with node_rows.snapshot(data) as snapshot:
            here = await self._seal_new(snapshot, on_progress)
            gone = journal.unseen()
            now = len(journal) - len(gone)
            if not self._allowed.shrinking and journal.listed and rules.is_shrunk(journal.listed.rows, now):
                for ref in self._waiting:
                    journal.note(Unsent(segment_name(ref.name)))
                raise Shrunk(
                    f"the node holds {now} rows of the owner's, and the archive has {journal.listed.rows}: if this is "
                    "the right node, say so with --shrink"
                )
            await self._bury(gone)
            await self._renew(snapshot, self._worn())
            await self._merge_lists()
        is_new = journal.unlisted or journal.listed_epoch != self._epoch.epoch
        if is_new:
            await self._list(here)
        assert journal.listed is not None
        return Made(
            sequence=journal.listed.sequence,
            rows=now,
            added=now + len(gone) - before,
            removed=len(gone),
            sent_bytes=self._sent,
            is_new=is_new,
            unremoved=len(await self._sweep()),
            can_erase=not self._header.keys_forever,
        )

    async def _seal_new(self, snapshot: Snapshot, on_progress: Progress) -> "_Here":
        here, journal = _Here(), self._journal
        journal.begin_pass()
        total, done = sum(map(snapshot.count, KINDS)), 0
        for kind in KINDS:
            columns = snapshot.columns(kind)
            digest_of, packer = segments.digester(kind, columns), Packer(kind, columns)
            count = here.counter(kind, columns)
            for row in snapshot.rows(kind, self._header.owner):
                digest, size = digest_of(row)
                count(row)
                if not journal.see(digest):
                    await self._pack(packer, row, digest, size)
                done += 1
                if done % _PROGRESS_EVERY == 0:
                    on_progress(done, total)
            await self._flush(packer)
        on_progress(total, total)
        return here

    def _worn(self) -> set[str]:
        journal = self._journal
        worn = rules.worn(journal.segments.values(), journal.dead) | journal.doubled
        if not self._place.keeps_forever:
            left = (ref for ref in journal.segments.values() if ref.kind != DELETIONS and ref.name not in worn)
            worn |= rules.crowded(left, journal.full, self._epoch.epoch)
        return worn

    async def _renew(self, snapshot: Snapshot, worn: set[str]) -> None:
        """Write the living rows of worn segments into new ones, and drop the worn ones."""
        if not worn:
            return
        kinds = {self._journal.segments[name].kind for name in worn}
        for kind in KINDS:
            if kind not in kinds:
                continue
            columns = snapshot.columns(kind)
            digest_of, packer = segments.digester(kind, columns), Packer(kind, columns)
            for row in snapshot.rows(kind, self._header.owner):
                digest, size = digest_of(row)
                if self._journal.segment_of(digest) in worn:
                    await self._pack(packer, row, digest, size)
            await self._flush(packer)
        self._journal.note(Dropped(sorted(worn | self._journal.needless(worn))))

    async def _merge_lists(self) -> None:
        journal = self._journal
        lists = (ref for ref in journal.segments.values() if ref.kind == DELETIONS)
        crowd = set() if self._place.keeps_forever else rules.crowded(lists, (), self._epoch.epoch)
        if not crowd:
            return
        dead = {name: sorted(set(digests)) for name, digests in journal.dead_in(crowd).items()}
        for part in _parts(dead):
            await self._store_dead(part, is_merged=True)
        journal.note(Dropped(sorted(crowd)))

    async def _pack(self, packer: Packer, row: tuple[object, ...], digest: bytes, size: int) -> None:
        if not packer.fits(size):
            await self._flush(packer, is_full=True)
        packer.add(row, digest, size)

    async def _flush(self, packer: Packer, *, is_full: bool = False) -> None:
        if len(packer):
            content, digests = packer.take()
            ref, sealed = self._sealed(packer.kind, content, len(digests))
            await self._store(Sealed(ref, b"".join(digests), is_full), sealed)

    async def _bury(self, gone: list[bytes]) -> None:
        for part in _parts(self._journal.bury(gone)):
            await self._store_dead(part)

    async def _store_dead(self, dead: dict[str, list[bytes]], *, is_merged: bool = False) -> None:
        ref, sealed = self._sealed(DELETIONS, segments.pack_deletions(dead), sum(map(len, dead.values())))
        await self._store(Buried(ref, {name: b"".join(each) for name, each in dead.items()}, is_merged), sealed)

    def _sealed(self, kind: str, content: bytes, count: int) -> tuple[SegmentRef, bytes]:
        epoch = self._epoch
        sealed = seal(epoch.key, purpose(self._header.archive_id, epoch.epoch, kind), content)
        return SegmentRef(name_of(sealed), kind, count, len(sealed), epoch.epoch), sealed

    async def _store(self, part: Sealed | Buried, sealed: bytes) -> None:
        if self._place.is_local:
            self._journal.note(part)
            await self._put(segment_name(part.ref.name), sealed)
            return
        self._journal.staged.mkdir(mode=0o700, exist_ok=True)
        files.put(self._journal.staged / part.ref.name, sealed)
        self._journal.note(part)
        self._waiting.append(part.ref)

    async def _put(self, name: str, content: bytes) -> None:
        await self._place.put(name, content)
        self._sent += len(content)
        self._journal.note(Arrived(name))

    async def _list(self, here: "_Here") -> None:
        journal, epoch = self._journal, self._epoch
        sequence, previous = (1, b"") if journal.listed is None else (journal.listed.sequence + 1, journal.listed.link)
        roots = here.roots.all()
        manifest = Manifest(
            archive_id=self._header.archive_id,
            owner=self._header.owner,
            made_at=self._now(),
            segments=list(journal.segments.values()),
            counts=here.counts,
            public_root=roots.public,
            whole_root=roots.whole,
            roots=roots.each,
            rows_sha256=segments.rows_sha256(journal.digests()),
        )
        stored = signing.seal_manifest(epoch.key, manifest, self._writer, sequence, previous, epoch.epoch)
        if not self._place.is_local:
            self._forget_dropped()
            sizes = [*(ref.bytes for ref in self._waiting), len(stored)]
            self._on_price(len(sizes), sum(sizes), await self._place.price(sizes))
        for ref in self._waiting:
            staged = journal.staged / ref.name
            await self._put(segment_name(ref.name), staged.read_bytes())
            staged.unlink()
        self._waiting = []
        journal.note(Listing(sequence, signing.link_of(stored), epoch.epoch, len(journal)))
        await self._put(manifest_name(sequence), stored)

    def _forget_dropped(self) -> None:
        """Send nothing that was sealed before and has become worn since."""
        for ref in self._waiting:
            if ref.name not in self._journal.segments:
                self._journal.note(Unsent(segment_name(ref.name)))
                (self._journal.staged / ref.name).unlink()
        self._waiting = [ref for ref in self._waiting if ref.name in self._journal.segments]

    async def _sweep(self) -> list[str]:
        """Remove segments that the newest manifest names no more; return those that could not be."""
        if self._place.keeps_forever or not self._journal.dropped:
            return []
        gone = sorted(self._journal.dropped)
        left = await self._delete(map(segment_name, gone))
        self._journal.note(Swept([name for name in gone if segment_name(name) not in left]))
        return left

    async def _destroy(self) -> None:
        """Destroy the keys of all former epochs, each by its name, and remove what the newest manifest does not name.

        Raises PlaceUnavailable with the names of what may be left.
        """
        here = self._epoch.epoch
        listed = [name for name in await self._place.names("keys") if name < key_name(here)]
        keys = sorted({*map(key_name, range(1, here)), *listed})
        kept = {segment_name(name) for name in self._journal.segments}
        left = await self._delete(keys)
        left += [name for name in keys if name not in left and await self._is_there(name)]
        left += await self._delete(name for name in await self._place.names("segments") if name not in kept)
        if left:
            named = ", ".join(left[:_NAMED]) + (f" and {len(left) - _NAMED} more" if len(left) > _NAMED else "")
            raise PlaceUnavailable(f"{self._place.address} did not remove {named}")

    async def _delete(self, names: Iterable[str]) -> list[str]:
        left = []
        for name in names:
            try:
                await self._place.delete(name)
            except PlaceUnavailable:
                left.append(name)
        return left

    async def _is_there(self, name: str) -> bool:
        try:
            await self._place.get(name, MOST_BYTES)
        except Missing:
            return False
        except PlaceUnavailable:
            return True
        return True


class _Here:
    """What the node holds, collected row by row."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.roots = RecordRoots()

    def counter(self, kind: str, columns: tuple[str, ...]) -> Callable[[tuple[object, ...]], None]:
        """Return what takes the rows of one kind."""
        if kind != "record":
            return lambda row: self._count(kind)
        namespace, cid, vector = (columns.index(name) for name in ("namespace", "cid", "embedding"))

        def add(row: tuple[object, ...]) -> None:
            self._count(kind)
            embedding = row[vector]
            assert isinstance(embedding, bytes)
            self.roots.add(str(row[namespace]), str(row[cid]), embedding)

        return add

    def _count(self, kind: str) -> None:
        self.counts[kind] += 1


def _parts(dead: dict[str, list[bytes]]) -> Iterator[dict[str, list[bytes]]]:
    """Yield the dead rows in lists of at most _MOST_BURIED."""
    part: dict[str, list[bytes]] = {}
    room = _MOST_BURIED
    for name, digests in dead.items():
        for at in range(0, len(digests), _MOST_BURIED):
            each = digests[at : at + _MOST_BURIED]
            if len(each) > room:
                yield part
                part, room = {}, _MOST_BURIED
            part[name] = each
            room -= len(each)
    if part:
        yield part
