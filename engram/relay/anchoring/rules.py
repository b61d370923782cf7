"""What is committed and when. No I/O.

The leaves are the output hashes (32 bytes) of what the receiver has acknowledged since the last anchor, those of one
stream after those of another; the root over them is that of RFC 6962. It stands in the commitment of the hotkey as
`engram-relay:1:<root in hex>`, beside what else is committed there. When that is final, one signed anchor for each
stream goes to the receiver, which rebuilds the root from the leaves that it holds.

| a root is intended | the chain holds it | the last commit of the hotkey    | what follows                           |
|--------------------|--------------------|----------------------------------|----------------------------------------|
| no                 |                    | and there are no leaves          | NOTHING                                |
| no                 |                    | was in this epoch                | WAIT, whoever made it                  |
| no                 |                    | an anchor waits to be delivered  | WAIT, ANCHOR_EPOCHS at the most        |
| no                 |                    | none, or in an earlier epoch     | COMMIT, the intent first               |
| yes                | yes                |                                  | ANCHOR: the anchors are queued         |
| yes                | no                 | was in this epoch                | WAIT                                   |
| yes                | no                 | an extrinsic may still go in     | WAIT                                   |
| yes                | no                 | none, or in an earlier epoch     | COMMIT again, the same root            |
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final

import msgspec

from engram.chain.epochs import Epoch
from engram.chain.registry.commitment_fields import ROOT_PREFIX
from engram.memory.proof import rfc6962
from engram.relay.rules import OF_THE_PAYLOAD

LEAVES_MOST: Final = 2_000
"""Of one anchor; what is more waits for the next epoch."""


ANCHOR_EPOCHS: Final = 3
"""For so many epochs nothing is committed in the place of a root whose anchors wait to be delivered: a receiver that
reads no state of the past finds none but the newest root."""
_REFUSED: Final = frozenset(f"the receiver answered {status}" for status in OF_THE_PAYLOAD)


class Decision(Enum):
    """See the table above."""

    NOTHING = "nothing"
    WAIT = "wait"
    COMMIT = "commit"
    ANCHOR = "anchor"


class Intent(msgspec.Struct, frozen=True):
    """A root that is to be committed."""

    root: bytes
    sent_until_block: int
    """The last block that may include the extrinsic that was sent; 0 when none was."""


def decide(
    intent: Intent | None,
    leaves: int,
    held_root: bytes | None,
    committed_at: int | None,
    head: int,
    epoch: Epoch,
    anchor_of: int | None = None,
) -> Decision:
    """Return what follows; `committed_at` is the block of the hotkey's last commit, `head` the finalized block, and
    `anchor_of` the block of the oldest commit whose anchors wait to be delivered."""
    had_one = epoch.has_had(committed_at)
    if intent is None:
        if leaves == 0:
            return Decision.NOTHING
        length = epoch.last_block - epoch.first_block + 1
        is_awaited = anchor_of is not None and head < anchor_of + ANCHOR_EPOCHS * length
        return Decision.WAIT if had_one or is_awaited else Decision.COMMIT
    if held_root == intent.root:
        return Decision.ANCHOR
    return Decision.WAIT if had_one or head <= intent.sent_until_block else Decision.COMMIT


def is_anchored_again(parked_for: str | None) -> bool:
    """Return whether the leaves of an anchor that was parked go under the next root: it came at the wrong time.

    One that the receiver refuses, or does not take, would be refused again, with all that is new beside it.

    >>> is_anchored_again("the receiver answered 425"), is_anchored_again("outcome unknown: timed out")
    (True, True)
    >>> is_anchored_again("the receiver answered 422"), is_anchored_again("the receiver takes no anchor payload")
    (False, False)
    """
    reason = parked_for or ""
    return reason.startswith(("the receiver answered", "outcome unknown")) and reason not in _REFUSED


def leaf_hashes(leaves: Sequence[str]) -> list[bytes]:
    """Return the leaf hashes of output hashes in hex. Raises ValueError when one is no 32 bytes in hex."""
    octets = [bytes.fromhex(leaf) for leaf in leaves]
    if any(len(each) != rfc6962.HASH_BYTES for each in octets):
        raise ValueError("a leaf is 32 bytes in hex")
    return [rfc6962.leaf(each) for each in octets]


def root_of(leaves: Sequence[str]) -> bytes:
    """Return the RFC 6962 root over output hashes in hex. Raises ValueError as `leaf_hashes`."""
    return rfc6962.root(leaf_hashes(leaves))


def path_of(leaves: Sequence[str], index: int) -> list[str]:
    """Return the inclusion path of a leaf in hex, bottom up."""
    return [each.hex() for each in rfc6962.inclusion_path(leaf_hashes(leaves), index)]


def committed_text(root: bytes) -> bytes:
    """Return the field that stands in the commitment."""
    return ROOT_PREFIX + root.hex().encode("ascii")


def root_in(fields: Sequence[bytes | None]) -> bytes | None:
    """Return the root among the Raw fields of a commitment (None for fields of another form); None without one.

    >>> root_in([b"http://1.2.3.4", None, committed_text(bytes(32))]) == bytes(32), root_in([b"engram-relay:1:zz"])
    (True, None)
    """
    for field in fields:
        if field is not None and field.startswith(ROOT_PREFIX):
            try:
                root = bytes.fromhex(field.removeprefix(ROOT_PREFIX).decode("ascii"))
            except (ValueError, UnicodeDecodeError):
                return None
            return root if len(root) == rfc6962.HASH_BYTES else None
    return None


def is_root(octets: bytes) -> bool:
    """Return whether a Raw field of a commitment is ours.

    >>> is_root(committed_text(bytes(32))), is_root(b"13.89.38.129:9999")
    (True, False)
    """
    return octets.startswith(ROOT_PREFIX)
