"""Decisions about an archive: which segments to write anew, and which manifest is the newest."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from engram.archive.errors import Replayed
from engram.archive.model import DELETIONS, SegmentRef

_DEAD_SHARE: Final = 1 / 3
_CROWD: Final = 8
"""Segments of one size that become few of a larger one, and lists of deletions that become one."""


def worn(segments: Iterable[SegmentRef], dead: Mapping[str, int]) -> set[str]:
    """Return the segments of which a third or more is dead: their living rows are worth writing again.

    >>> half = SegmentRef("aa", "record", 10, 4096, 1)
    >>> worn([half], {"aa": 5}), worn([half], {"aa": 3}), worn([half], {})
    ({'aa'}, set(), set())
    """
    return {
        ref.name
        for ref in segments
        if ref.kind != DELETIONS and dead.get(ref.name, 0) >= max(1, ref.rows * _DEAD_SHARE)
    }


def crowded(segments: Iterable[SegmentRef], full: Collection[str], epoch: int) -> set[str]:
    """Return the segments that are worth merging: many of one kind and size that have room, and those left behind in a
    former epoch are none of them. Each row is so written again at most once a size.

    >>> few = [SegmentRef(str(n), "record", 1, 4096, 1) for n in range(7)]
    >>> crowded(few, (), 1), len(crowded([*few, SegmentRef("7", "record", 1, 4096, 1)], (), 1))
    (set(), 8)
    """
    alike: dict[tuple[str, int], set[str]] = {}
    for ref in segments:
        if ref.name not in full and ref.epoch == epoch:
            alike.setdefault((ref.kind, ref.bytes if ref.kind != DELETIONS else 0), set()).add(ref.name)
    return {name for names in alike.values() if len(names) >= _CROWD for name in names}


def is_shrunk(before: int, now: int) -> bool:
    """Return whether so much is gone at once that it may be another node's folder.

    >>> is_shrunk(100, 50), is_shrunk(100, 49), is_shrunk(0, 0)
    (False, True, False)
    """
    return 2 * now < before


def require_not_older(newest: int, seen: int) -> None:
    """Refuse a manifest older than one that was seen. Raises Replayed.

    >>> require_not_older(7, seen=7)
    >>> require_not_older(6, seen=7)
    Traceback (most recent call last):
    engram.archive.errors.Replayed: the newest manifest here is number 6, and number 7 was seen before: ...
    """
    if newest < seen:
        raise Replayed(
            f"the newest manifest here is number {newest}, and number {seen} was seen before: the place shows an older "
            "state (--older takes it all the same)"
        )


def newest_of(names: Iterable[str], hint: int) -> int:
    """Return the number of the newest manifest that is listed or hinted at; 0 for none.

    >>> newest_of(["manifests/000000000002", "manifests/x"], 1)
    2
    """
    numbers = [int(tail) for name in names for tail in (name.rpartition("/")[2],) if tail.isascii() and tail.isdigit()]
    return max([hint, *numbers])
