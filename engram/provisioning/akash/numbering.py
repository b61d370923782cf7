"""The numbers (dseq) of our deployments: a space of their own, so that a sweep never closes what others have made.

    dseq = (tenths of a second since 1970, or one more than the last) << 18 | 18 bits of the ledger's id

Console numbers by milliseconds and the CLI by blocks: both are far below. A number fits a JavaScript integer until
2078.
"""

import hashlib
from typing import Final

TAG_BITS: Final = 18
_TAG_MASK: Final = (1 << TAG_BITS) - 1
_OURS_FROM: Final = 10_000_000_000 << TAG_BITS
"""Ticks of the year 2001: no other program's numbers come near."""


def tag_of(ledger_id: str) -> int:
    """Return the bits that mark this ledger's numbers."""
    return int.from_bytes(hashlib.sha256(f"engram-akash:{ledger_id}".encode()).digest()[:4]) & _TAG_MASK


def next_dseq(ledger_id: str, now: float, last: int) -> int:
    """Return the number of the next deployment; `last` is the highest one so far (0: none), `now` unix seconds.

    >>> next_dseq("a", 1_700_000_000.0, 0) < next_dseq("a", 1_600_000_000.0, next_dseq("a", 1_700_000_000.0, 0))
    True
    """
    tick = max(int(now * 10), (last >> TAG_BITS) + 1)
    return tick << TAG_BITS | tag_of(ledger_id)


def is_ours(ledger_id: str, dseq: int) -> bool:
    """Return whether the number is of this ledger.

    >>> is_ours("a", next_dseq("a", 1.7e9, 0)), is_ours("b", next_dseq("a", 1.7e9, 0)), is_ours("a", 1_760_000_000_000)
    (True, False, False)
    """
    return dseq >= _OURS_FROM and dseq & _TAG_MASK == tag_of(ledger_id)


def made_at(dseq: int) -> float:
    """Return the unix time that the number of a deployment of ours carries."""
    return (dseq >> TAG_BITS) / 10
