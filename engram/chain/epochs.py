"""The epochs of a subnet: the stretches of blocks at whose ends weights take effect and permits change."""

import msgspec


class Epoch(msgspec.Struct, frozen=True):
    """An epoch of a subnet, as its blocks go: `first_block` to `last_block`, both of it."""

    index: int
    first_block: int
    last_block: int


def epoch_of(block: int, netuid: int, tempo: int) -> Epoch:
    """Return the epoch of a block by the schedule that runtimes keep without state: epochs of tempo + 1 blocks.

    Source: subtensor, `blocks_until_next_epoch`. An epoch ends with the block at which
    (block + netuid + 1) % (tempo + 1) is 0.

    >>> epoch_of(359 - 450 % 361 + 361, 450, 360).index - epoch_of(359 - 450 % 361 + 360, 450, 360).index
    0
    """
    length = tempo + 1
    index = (block + netuid + 1) // length
    first = index * length - netuid - 1
    return Epoch(index, max(0, first), first + length - 1)
