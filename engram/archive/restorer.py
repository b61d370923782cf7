"""Restores a memory from an archive: made beside, held against the manifest, then put in place of what was there."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from engram.archive import segments
from engram.archive.errors import Damaged, NothingThere
from engram.archive.place import Place
from engram.archive.reading import Opened, living
from engram.archive.segments import Rows
from engram.memory.upkeep import data_files, rows, verify
from engram.memory.upkeep.data_files import Progress
from engram.memory.upkeep.rows import KINDS, Kind

KEPT = "before-restore"
_NAMESPACES: Final = 20
"""How many namespaces are named where a part was asked for that is not there."""


class Wanted(msgspec.Struct, frozen=True):
    """Which part of an archive to restore; all of it by default."""

    namespace: str | None = None
    since: float | None = None
    """Unix seconds; only records stored from then on."""

    def takes(self, row: "dict[str, object]", kind: str) -> bool:
        """Return whether a row is wanted. A part has records only."""
        if self.namespace is None and self.since is None:
            return True
        if kind != "record" or (self.namespace is not None and row["namespace"] != self.namespace):
            return False
        stored_at = row["created_at"]
        assert isinstance(stored_at, float | int)
        return self.since is None or stored_at >= self.since

    @property
    def is_all(self) -> bool:
        """Return whether nothing is left out."""
        return self.namespace is None and self.since is None


_KINDS: Final[dict[str, Kind]] = {kind: kind for kind in KINDS}
EVERYTHING: Final = Wanted()


class Restored(msgspec.Struct, frozen=True):
    """What was written; `rows` of each kind."""

    sequence: int
    rows: dict[str, int]
    public_root: str
    whole_root: str


class Checked(msgspec.Struct, frozen=True):
    """An archive whose every byte was read and held against its manifest."""

    sequence: int
    rows: dict[str, int]
    public_root: str
    whole_root: str


async def check(place: Place, archive: Opened, on_progress: Progress = lambda done, total: None) -> Checked:
    """Read all of an archive. Raises Missing, Damaged, PlaceUnavailable."""
    return await _read(place, archive, lambda _: None, on_progress)


async def restore(
    place: Place,
    archive: Opened,
    data: Path,
    truth_id: str,
    wanted: Wanted = EVERYTHING,
    on_progress: Progress = lambda done, total: None,
) -> Restored:
    """Replace the memory of a node's folder, which the caller has claimed; the former one stays beside it.

    The index is not archived: the node builds it from the records when it starts. Whatever is raised, nothing was
    changed. Raises NothingThere when no row is wanted, Missing, Damaged, PlaceUnavailable, UnknownColumns, OSError.
    """
    written: dict[str, int] = dict.fromkeys(KINDS, 0)
    incoming = data / data_files.INCOMING
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(mode=0o700, parents=True)
    try:
        with rows.write(incoming, truth_id) as writer:

            def put(found: Rows) -> None:
                kind = _KINDS[found.kind]
                kept = found.rows
                if not wanted.is_all:
                    named = [dict(zip(found.columns, row, strict=True)) for row in kept]
                    kept = [row for row, each in zip(kept, named, strict=True) if wanted.takes(each, kind)]
                writer.add(kind, found.columns, kept)
                written[kind] += len(kept)

            checked = await _read(place, archive, put, on_progress)
            _require_any(written, archive, wanted)
        roots = _require_sound(incoming, archive, wanted)
        data_files.put_in_place(incoming, data, KEPT)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return Restored(checked.sequence, written, *roots)


def _require_any(written: dict[str, int], archive: Opened, wanted: Wanted) -> None:
    if any(written.values()):
        return
    if wanted.is_all:
        raise NothingThere(f"manifest {archive.sequence} has no rows: there is nothing to restore")
    names = ", ".join(sorted(archive.manifest.roots)[:_NAMESPACES]) or "none"
    raise NothingThere(f"no record of manifest {archive.sequence} is in that part; its namespaces are {names}")


async def _read(place: Place, archive: Opened, put: Callable[[Rows], None], on_progress: Progress) -> Checked:
    manifest, digests = archive.manifest, list[bytes]()
    counts: dict[str, int] = dict.fromkeys(KINDS, 0)
    total = sum(ref.rows for ref in manifest.segments if ref.kind in counts)
    done = 0
    async for found, seen in living(place, archive):
        if found.kind not in counts:
            raise Damaged(f"the archive has rows of kind {found.kind!r}, which this version of Engram does not know")
        counts[found.kind] += len(seen)
        digests += seen
        put(found)
        done += len(found.rows)
        on_progress(done, total)
    if counts != manifest.counts:
        raise Damaged(f"the archive has {counts} rows; its manifest says {manifest.counts}")
    if segments.rows_sha256(sorted(digests)) != manifest.rows_sha256:
        raise Damaged("a row differs from what its manifest was made over")
    return Checked(archive.sequence, counts, manifest.public_root, manifest.whole_root)


def _require_sound(folder: Path, archive: Opened, wanted: Wanted) -> tuple[str, str]:
    """Compute every CID and root anew; return the public root and the one over all. Raises Damaged."""
    found = verify.check(folder)
    if not found.is_sound:
        wrong = [*found.problems, *(f"{bad.cid}: {bad.reason}" for bad in found.bad[:1])]
        raise Damaged(f"what was restored does not hold: {wrong[0]}")
    manifest = archive.manifest
    if wanted.is_all and (found.public_root, found.whole_root) != (manifest.public_root, manifest.whole_root):
        raise Damaged("the roots over what was restored are not those of the manifest")
    return found.public_root, found.whole_root
