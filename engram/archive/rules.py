"""Decisions about an archive: which segments to write anew, and which manifest is the newest."""

from collections.abc import Iterable, Mapping
from typing import Final

from engram.archive.errors import Replayed
from engram.archive.model import DELETIONS, SegmentRef

_DEAD_SHARE: Final = 1 / 3


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
