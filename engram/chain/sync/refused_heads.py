"""Says why a finalized head is not accepted, and what would end that. Pure."""

from typing import Final

from engram.chain.model import FinalizedBlock, HeadWatch
from engram.chain.sync.rules import HeadVerdict

_WHY: Final = {
    HeadVerdict.BEHIND: "is behind ours",
    HeadVerdict.STALLED: "is still behind ours",
    HeadVerdict.FORKED: "does not descend from ours",
}


def refusal(verdict: HeadVerdict, seen: FinalizedBlock, watch: HeadWatch | None, way_out: str) -> str | None:
    """Return why a head of this verdict is refused regardless of other endpoints; None when it is not.

    >>> refusal(HeadVerdict.FORKED, FinalizedBlock(101, b"b"), HeadWatch(FinalizedBlock(100, b"a"), 0.0), "")
    'its finalized block 101 does not descend from ours (100)'
    """
    why = _WHY.get(verdict)
    if why is None or watch is None:
        return None
    if seen == watch.head:
        return f"the finalized head is stalled at block {seen.number}"
    return f"its finalized block {seen.number} {why} ({watch.head.number}){way_out}"


def way_out(endpoints: int, reset_after_s: float) -> str:
    """Return what ends the refusal when the endpoints restarted elsewhere and no head will ever descend from ours.

    >>> way_out(2, 0.0), way_out(2, 600.0)
    ('', '; another chain is followed if two endpoints have it after chain.reset_after_s (600 s)')
    """
    only = "; it is the only endpoint" if endpoints == 1 else ""
    if reset_after_s:
        believed = "followed" if only else "followed if two endpoints have it"
        return f"{only}; another chain is {believed} after chain.reset_after_s ({reset_after_s:g} s)"
    if only:
        return f"{only}: nothing new is taken until this process restarts, or chain.reset_after_s is set"
    return ""
