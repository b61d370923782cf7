"""The epochs of a subnet: the stretches of blocks at whose ends weights take effect and permits change."""

import msgspec

from engram.chain.model import Metagraph


class Epoch(msgspec.Struct, frozen=True):
    """An epoch of a subnet, as its blocks go: `first_block` to `last_block`, both of it."""

    index: int
    first_block: int
    last_block: int

    def has_had(self, committed_at: int | None) -> bool:
        """Return whether a hotkey that committed last in this block has had its one commit of the epoch, or more."""
        return committed_at is not None and committed_at >= self.first_block


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


def current_epoch(metagraph: Metagraph) -> Epoch:
    """Return the epoch that the metagraph's block belongs to, by the block at which the chain ran the last one.

    So it holds for runtimes that keep a schedule of their own, and while a subnet's tempo changes. Where no epoch has
    been run for more than two tempos, blocks are counted as by the schedule without state.
    """
    tempo, last = metagraph.parameters.tempo, metagraph.last_epoch_block
    if last <= 0 or not 0 <= metagraph.block - last <= 2 * (tempo + 1):
        return epoch_of(metagraph.block, metagraph.netuid, tempo)
    return _begun_at(last, metagraph)


def epoch_at(metagraph: Metagraph, block: int) -> Epoch:
    """Return the epoch of a block near the metagraph's own: that one, or counted from it in steps of tempo + 1."""
    current = current_epoch(metagraph)
    if current.first_block <= block <= max(current.last_block, metagraph.block):
        return current
    length = metagraph.parameters.tempo + 1
    return _begun_at(max(0, current.first_block + (block - current.first_block) // length * length), metagraph)


def _begun_at(first: int, metagraph: Metagraph) -> Epoch:
    tempo = metagraph.parameters.tempo
    return Epoch(epoch_of(first, metagraph.netuid, tempo).index, first, first + tempo)
