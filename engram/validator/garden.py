"""What planting works with."""

from collections.abc import Awaitable, Callable, Sequence
from random import Random

import msgspec

from engram.clock import Clock
from engram.hotkeys import Keypair
from engram.ledger import Ledger
from engram.validator.corpus import PUBLISHED, Vocabulary
from engram.validator.miner_client import MinerClient
from engram.validator.workbench import Done, Draft

Embeds = Callable[[Sequence[str], Sequence[Draft]], Awaitable[Done]]
"""Workbench, or what stands in for it. Raises EmbeddingFailed."""


class Garden(msgspec.Struct, frozen=True, kw_only=True):
    """What planting works with."""

    ledger: Ledger
    client: MinerClient
    keypair: Keypair
    """The validator's own."""
    clock: Clock
    rng: Random
    seed: Callable[[], bytes]
    """32 random bytes for a signer's key."""
    embeds: Embeds
    planted_a_round: int
    keep_rounds: int
    round_s: float
    concurrency: int
    words: Vocabulary = PUBLISHED
    ground_truth: str = ""
    """Path of the file whose records every miner is given; empty: none."""
