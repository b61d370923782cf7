"""Reads an archive: its newest manifest, the keys, the segments; each part held against what names it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from engram.archive import opening, rules, segments, signing
from engram.archive.errors import Damaged, Forged, Locked, Missing
from engram.archive.model import (
    DELETIONS,
    HEADER,
    Envelope,
    Header,
    Manifest,
    SegmentRef,
    key_name,
    lasting_key_name,
    manifest_name,
    segment_name,
)
from engram.archive.place import MOST_BYTES, MOST_HEADER, Place
from engram.archive.sealing import name_of, purpose, unseal, unwrap
from engram.archive.segments import Rows

MOST_KEY: Final = 4_096


class Found(msgspec.Struct, frozen=True):
    """The newest manifest, still sealed."""

    envelope: Envelope
    link: bytes


class Opened(msgspec.Struct, frozen=True):
    """An archive that can be read."""

    header: Header
    sequence: int
    link: bytes
    """What the next manifest names this one by."""
    manifest: Manifest
    keys: dict[int, bytes]
    """Epoch -> its key."""


async def header_at(place: Place, owner: bytes | None = None) -> Header:
    """Return the header of the archive at a place. Raises Missing, Damaged, Forged, Foreign."""
    return signing.read_header(await place.get(HEADER, MOST_HEADER), owner)


async def newest(place: Place, header: Header, known: int) -> Found | None:
    """Return the newest manifest, at least number `known`; None when there is none. A listing may be cut: its end is
    looked behind.

    Raises Missing, Damaged, Foreign, Forged.
    """
    number = rules.newest_of(await place.names("manifests"), known)
    stored: bytes | None = None
    while True:
        try:
            stored = await place.get(manifest_name(number + 1), MOST_BYTES)
        except Missing:
            break
        number += 1
    if number == 0:
        return None
    stored = stored or await place.get(manifest_name(number), MOST_BYTES)
    envelope = signing.read_envelope(stored, header, number)
    if number > 1:
        before = await place.get(manifest_name(number - 1), MOST_BYTES)
        if signing.link_of(before) != envelope.previous:
            raise Forged(f"manifest {number} does not follow the manifest {number - 1} that is there")
    return Found(envelope, signing.link_of(stored))


async def open_archive(place: Place, header: Header, secret: bytes, seen: int = 0, number: int | None = None) -> Opened:
    """Open the newest manifest with the archive's secret key, or that of a `number`.

    Raises Locked, Replayed when it is older than number `seen`, Missing, Damaged, Foreign, and Forged, also for a
    header that was not made with that key.
    """
    opening.require(secret, header)
    found = await newest(place, header, 0)
    if found is None:
        raise Missing(f"{place.address} has no manifest: nothing was archived there yet")
    rules.require_not_older(found.envelope.sequence, seen)
    if number is not None:
        found = await _earlier(place, header, found, number)
    envelope = found.envelope
    keys = {envelope.epoch: await _key(place, header, secret, envelope.epoch)}
    manifest = signing.open_manifest(envelope, keys[envelope.epoch], header)
    for epoch in {ref.epoch for ref in manifest.segments} - keys.keys():
        keys[epoch] = await _key(place, header, secret, epoch)
    return Opened(header, envelope.sequence, found.link, manifest, keys)


async def _earlier(place: Place, header: Header, found: Found, number: int) -> Found:
    """Return manifest `number`, followed back from the newest. Raises Missing, Damaged, Foreign, Forged."""
    newest_number = found.envelope.sequence
    if not 1 <= number <= newest_number:
        raise Missing(f"{place.address} has manifests 1 to {newest_number}, and none of number {number}")
    while found.envelope.sequence > number:
        before = found.envelope.sequence - 1
        stored = await place.get(manifest_name(before), MOST_BYTES)
        link = signing.link_of(stored)
        if link != found.envelope.previous:
            raise Forged(f"manifest {before + 1} does not follow the manifest {before} that is there")
        found = Found(signing.read_envelope(stored, header, before), link)
    return found


async def living(place: Place, archive: Opened) -> AsyncIterator[tuple[Rows, list[bytes]]]:
    """Yield the living rows of each segment with their digests. Raises Missing, Damaged."""
    refs = archive.manifest.segments
    dead: dict[str, set[bytes]] = {}
    for ref in refs:
        if ref.kind == DELETIONS:
            for name, digests in segments.unpack_deletions(await _content(place, archive, ref)).items():
                dead.setdefault(name, set()).update(digests)
    for ref in refs:
        if ref.kind != DELETIONS:
            content = await _content(place, archive, ref)
            with _naming(ref.name):
                found = _alive(segments.unpack(content), ref, dead.get(ref.name, set()))
            yield found


def _alive(found: Rows, ref: SegmentRef, dead: set[bytes]) -> tuple[Rows, list[bytes]]:
    if (found.kind, len(found.rows)) != (ref.kind, ref.rows):
        raise Damaged(f"it has {len(found.rows)} {found.kind} rows; the manifest says {ref.rows} {ref.kind}")
    digest_of = segments.digester(found.kind, found.columns)
    pairs = [(row, digest) for row in found.rows for digest, _ in (digest_of(row),) if digest not in dead]
    rows = msgspec.structs.replace(found, rows=[row for row, _ in pairs])
    return rows, [digest for _, digest in pairs]


@contextmanager
def _naming(segment: str) -> Iterator[None]:
    """Name the segment in which something is damaged."""
    try:
        yield
    except Damaged as error:
        raise Damaged(f"segment {segment} is damaged: {error}") from None


async def _content(place: Place, archive: Opened, ref: SegmentRef) -> bytes:
    sealed = await place.get(segment_name(ref.name), MOST_BYTES)
    with _naming(ref.name):
        if name_of(sealed) != ref.name:
            raise Damaged("its bytes are not those that its name stands for")
        return unseal(archive.keys[ref.epoch], purpose(archive.header.archive_id, ref.epoch, ref.kind), sealed)


async def _key(place: Place, header: Header, secret: bytes, epoch: int) -> bytes:
    try:
        wrapped = await place.get(key_name(epoch), MOST_KEY)
    except Missing:
        if header.keys_forever:
            return unwrap(secret, header.archive_id, epoch, await place.get(lasting_key_name(epoch), MOST_KEY))
        raise Locked(f"the key of epoch {epoch} is not there: it was destroyed, or never arrived") from None
    return unwrap(secret, header.archive_id, epoch, wrapped)
