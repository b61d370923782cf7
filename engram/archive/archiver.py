"""Brings an archive up to what a node holds: sends what is new, notes what is gone, then names it all in a manifest.

    rows read --> new ones sealed, stored, noted --> gone ones listed, stored, noted --> worn segments written anew
              --> manifest stored --> noted --> what nothing names any more removed

A crash at any arrow leaves an archive whose newest manifest is whole. What was stored before it is known from the
journal and is not sent again; an object that arrived and was not noted is named by nothing.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

import msgspec

from engram.archive import rules, segments, signing
from engram.archive.errors import AlreadyThere
from engram.archive.journal import Buried, Dropped, Entry, Epoch, Journal, Listed, Stored
from engram.archive.model import DELETIONS, Header, Manifest, SegmentRef, key_name, manifest_name, segment_name
from engram.archive.place import Place
from engram.archive.reading import Found, newest
from engram.archive.sealing import KEY_BYTES, name_of, purpose, seal, wrap
from engram.archive.segments import Packer
from engram.hotkeys import Keypair
from engram.memory.proof.roots import RecordRoots
from engram.memory.upkeep import rows as node_rows
from engram.memory.upkeep.data_files import Progress
from engram.memory.upkeep.rows import KINDS, Snapshot

_PROGRESS_EVERY: Final = 500


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


@final
class Archiver:
    """Writes one archive. `note` makes an entry of the journal durable."""

    def __init__(
        self, place: Place, header: Header, writer: Keypair, journal: Journal, now: Callable[[], float]
    ) -> None:
        self._place = place
        self._header = header
        self._writer = writer
        self._journal = journal
        self._now = now
        self._sent = 0

    async def update(self, data: Path, on_progress: Progress = lambda done, total: None) -> Made:
        """Archive what the node's folder holds of the owner's; the node may run.

        Raises PlaceUnavailable (run it again), AlreadyThere when another writer is at work, Damaged, StoreDamaged.
        """
        await self._begin()
        before = set(self._journal.rows)
        self._sent = 0
        with node_rows.snapshot(data) as snapshot:
            here = await self._send_new(snapshot, on_progress)
            gone = self._journal.rows.keys() - here.digests
            if gone:
                await self._bury(gone)
            await self._renew(snapshot, rules.worn(self._journal.segments.values(), self._journal.dead))
        is_new = self._journal.unlisted or self._journal.listed_epoch != self._epoch.epoch
        if is_new:
            await self._list(here)
        assert self._journal.listed is not None
        return Made(
            sequence=self._journal.listed.sequence,
            rows=len(here.digests),
            added=len(here.digests - before),
            removed=len(gone),
            sent_bytes=self._sent,
            is_new=is_new,
        )

    async def shred(self, data: Path, on_progress: Progress = lambda done, total: None) -> Made:
        """Archive what lives under a new key, then destroy the old keys: nothing deleted can be opened any more.

        Raises as `update` does; run it again until it returns, since before that an old key may still lie somewhere.
        """
        await self._begin()
        self._begin_epoch(self._epoch.epoch + 1)
        made = await self.update(data, on_progress)
        await self.sweep()
        return made

    async def sweep(self) -> list[str]:
        """Remove former epochs' keys and what the newest manifest does not name; returns the names."""
        keys = [name for name in await self._place.names("keys") if name < key_name(self._epoch.epoch)]
        kept = {segment_name(name) for name in self._journal.segments}
        left = [*keys, *(name for name in await self._place.names("segments") if name not in kept)]
        for name in left:
            await self._place.delete(name)
        return left

    @property
    def _epoch(self) -> Epoch:
        assert self._journal.epoch is not None, "an update begins with _begin"
        return self._journal.epoch

    async def _begin(self) -> None:
        """Take up the archive where it stands."""
        listed = self._journal.listed
        found = await newest(self._place, self._header, 0 if listed is None else listed.sequence)
        if self._journal.epoch is None:
            keys = [int(name.rpartition("/")[2]) for name in await self._place.names("keys")]
            self._begin_epoch(max([0 if found is None else found.envelope.epoch, *keys]) + 1)
        if found is not None:
            self._take_up(found)
        await self._place.put(key_name(self._epoch.epoch), self._epoch.wrapped)

    def _take_up(self, found: Found) -> None:
        """Go on behind the newest manifest; one of ours that a crash kept us from noting is noted now."""
        listed, envelope = self._journal.listed, found.envelope
        if listed is not None and listed.link == found.link:
            return
        ours = envelope.writer == bytes(self._writer.public_key)
        if listed is not None and not (ours and envelope.sequence == listed.sequence + 1):
            raise AlreadyThere(
                f"manifest {envelope.sequence} at {self._place.address} was written by someone else: an archive has "
                "one writer at a time"
            )
        self._note(Listed(envelope.sequence, found.link, envelope.epoch))

    def _begin_epoch(self, number: int) -> None:
        key = secrets.token_bytes(KEY_BYTES)
        wrapped = wrap(self._header.archive_key, self._header.archive_id, number, key)
        listed = self._journal.listed
        self._journal.note(Epoch(number, key, wrapped))
        if listed is not None:
            self._journal.note(listed)

    async def _send_new(self, snapshot: Snapshot, on_progress: Progress) -> "_Here":
        here = _Here()
        total, done = sum(map(snapshot.count, KINDS)), 0
        for kind in KINDS:
            columns = snapshot.columns(kind)
            digest_of, packer = segments.digester(kind, columns), Packer(kind, columns)
            for row in snapshot.rows(kind, self._header.owner):
                digest = digest_of(row)
                here.add(kind, columns, row, digest)
                if digest not in self._journal.rows:
                    await self._pack(packer, row, digest)
                done += 1
                if done % _PROGRESS_EVERY == 0:
                    on_progress(done, total)
            await self._flush(kind, packer)
        on_progress(total, total)
        return here

    async def _renew(self, snapshot: Snapshot, worn: set[str]) -> None:
        """Write the living rows of worn segments into new ones, and drop the worn ones."""
        if not worn:
            return
        again = {digest for digest, name in self._journal.rows.items() if name in worn}
        kinds = {self._journal.segments[name].kind for name in worn}
        for kind in KINDS:
            if kind not in kinds:
                continue
            columns = snapshot.columns(kind)
            digest_of, packer = segments.digester(kind, columns), Packer(kind, columns)
            for row in snapshot.rows(kind, self._header.owner):
                digest = digest_of(row)
                if digest in again:
                    await self._pack(packer, row, digest)
            await self._flush(kind, packer)
        self._note(Dropped(sorted(worn | self._journal.needless(worn))))

    async def _pack(self, packer: Packer, row: tuple[object, ...], digest: bytes) -> None:
        if not packer.fits(row):
            await self._flush(packer.kind, packer)
        packer.add(row, digest)

    async def _flush(self, kind: str, packer: Packer) -> None:
        if len(packer):
            content, digests = packer.take()
            ref = await self._store(kind, content, len(digests))
            self._note(Stored(ref, b"".join(digests)))

    async def _bury(self, gone: set[bytes]) -> None:
        dead = self._journal.bury(gone)
        ref = await self._store(DELETIONS, segments.pack_deletions(dead), len(gone))
        self._note(Buried(ref, {name: b"".join(digests) for name, digests in dead.items()}))

    async def _store(self, kind: str, content: bytes, count: int) -> SegmentRef:
        epoch = self._epoch
        sealed = seal(epoch.key, purpose(self._header.archive_id, epoch.epoch, kind), content)
        ref = SegmentRef(name_of(sealed), kind, count, len(sealed), epoch.epoch)
        await self._place.put(segment_name(ref.name), sealed)
        self._sent += len(sealed)
        return ref

    async def _list(self, here: "_Here") -> None:
        epoch, listed = self._epoch, self._journal.listed
        sequence, previous = (1, b"") if listed is None else (listed.sequence + 1, listed.link)
        roots = here.roots.all()
        manifest = Manifest(
            archive_id=self._header.archive_id,
            owner=self._header.owner,
            made_at=self._now(),
            segments=list(self._journal.segments.values()),
            counts=here.counts,
            public_root=roots.public,
            whole_root=roots.whole,
            roots=roots.each,
            rows_sha256=segments.rows_sha256(here.digests),
        )
        stored = signing.seal_manifest(epoch.key, manifest, self._writer, sequence, previous, epoch.epoch)
        await self._place.put(manifest_name(sequence), stored)
        self._sent += len(stored)
        self._note(Listed(sequence, signing.link_of(stored), epoch.epoch))

    def _note(self, entry: Entry) -> None:
        self._journal.note(entry)


class _Here:
    """What the node holds, collected row by row."""

    def __init__(self) -> None:
        self.digests: set[bytes] = set()
        self.counts: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.roots = RecordRoots()

    def add(self, kind: str, columns: tuple[str, ...], row: tuple[object, ...], digest: bytes) -> None:
        self.digests.add(digest)
        self.counts[kind] += 1
        if kind == "record":
            named = dict(zip(columns, row, strict=True))
            embedding = named["embedding"]
            assert isinstance(embedding, bytes)
            self.roots.add(str(named["namespace"]), str(named["cid"]), embedding)
