"""Weights committed by their hash and revealed later by the same hotkey: commit-reveal before timelocks.

The commit is blake2b-256 of SCALE (AccountId hotkey, u16 netuid, Vec<u16> uids, Vec<u16> values, Vec<u16> salt,
u64 version key). The chain takes the reveal in one epoch only, `reveal_period` epochs after that of the commit:

| finalized head                          | the chain holds the commit | stage    | what may be done           |
|-----------------------------------------|----------------------------|----------|----------------------------|
| the next block is before the window     | yes                        | WAITING  | nothing: RevealTooEarly    |
| the next block is inside it             | yes                        | OPEN     | reveal                     |
| the next block is after it              | yes                        | EXPIRED  | nothing, ever              |
| before the end of the commit's era      | no                         | UNSEEN   | wait: it may still come    |
| after it                                | no                         | GONE     | nothing: revealed, expired |
|                                         |                            |          | or never included          |

Epochs are counted as (block + netuid + 1) // (tempo + 1), with the tempo and the period that hold when it is
revealed. Revealing one commit drops every older one of the same hotkey, so the oldest is revealed first.
Source: subtensor, pallets/subtensor/src/subnets/weights.rs.
"""

import hashlib
import secrets
from enum import Enum
from typing import Final

import msgspec

from engram.chain.errors import AnswerMalformed
from engram.chain.model import SubnetParameters
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.queries import read_hash_at
from engram.chain.read.runtime import ERA_BLOCKS, SUBTENSOR, RuntimeCall
from engram.chain.read.view import View
from engram.chain.submit.scale import u16s
from engram.hotkeys import PublicKey, ss58

COMMIT: Final = "commit_weights"
REVEAL: Final = "reveal_weights"
HELD: Final = "WeightCommits"
SALT_WORDS: Final = 16
"""256 bits: weights alone could be guessed."""


class HashedCommit(msgspec.Struct, frozen=True, kw_only=True):
    """All that is needed to reveal a commit. Its repr shows neither weights nor salt."""

    genesis: bytes
    """Hash of the chain's first block, which identifies the chain."""
    netuid: int
    hotkey: PublicKey
    uids: tuple[int, ...]
    values: tuple[int, ...]
    version_key: int
    salt: tuple[int, ...]
    signed_at_block: int
    """Finalized block at which the commit was signed; it may be included for ERA_BLOCKS after it."""

    def __repr__(self) -> str:
        return f"HashedCommit(netuid={self.netuid}, hotkey={ss58.encode(self.hotkey)}, hash=0x{self.hash.hex()})"

    @property
    def hash(self) -> bytes:
        """The hash that the chain holds until the reveal."""
        netuid, key = self.netuid.to_bytes(2, "little"), self.version_key.to_bytes(8, "little")
        octets = self.hotkey + netuid + u16s(self.uids) + u16s(self.values) + u16s(self.salt) + key
        return hashlib.blake2b(octets, digest_size=32).digest()

    @property
    def commit_call(self) -> RuntimeCall:
        """The call that commits."""
        return RuntimeCall(SUBTENSOR, COMMIT, {"netuid": self.netuid, "commit_hash": self.hash})

    @property
    def reveal_call(self) -> RuntimeCall:
        """The call that reveals."""
        arguments: dict[str, object] = {
            "netuid": self.netuid,
            "uids": list(self.uids),
            "values": list(self.values),
            "salt": list(self.salt),
            "version_key": self.version_key,
        }
        return RuntimeCall(SUBTENSOR, REVEAL, arguments)


class Window(msgspec.Struct, frozen=True):
    """The first and the last block that may include the reveal."""

    first_block: int
    last_block: int


class Stage(Enum):
    """What can be done with a commit now; see the table above."""

    WAITING = "waiting"
    OPEN = "open"
    EXPIRED = "expired"
    UNSEEN = "unseen"
    GONE = "gone"


def fresh_salt() -> tuple[int, ...]:
    """Return a random salt of SALT_WORDS words."""
    return tuple(secrets.randbits(16) for _ in range(SALT_WORDS))


def window(commit_block: int, netuid: int, tempo: int, period_epochs: int) -> Window:
    """Return the blocks that may include the reveal of a commit included in this block."""
    epoch = (commit_block + netuid + 1) // (tempo + 1) + period_epochs
    first = max(0, epoch * (tempo + 1) - netuid - 1)
    return Window(first, epoch * (tempo + 1) - netuid - 1 + tempo)


def window_of(commit: HashedCommit, commit_block: int, parameters: SubnetParameters) -> Window:
    """Return the window of a commit that is included in this block."""
    return window(commit_block, commit.netuid, parameters.tempo, parameters.commit_reveal_period_tempos)


def stage(held: Window | None, signed_at_block: int, head_block: int) -> Stage:
    """Return the stage of a commit; `held` is its window, None when the chain does not hold it at `head_block`."""
    if held is None:
        return Stage.UNSEEN if head_block < signed_at_block + ERA_BLOCKS else Stage.GONE
    soonest = head_block + 1
    if soonest < held.first_block:
        return Stage.WAITING
    return Stage.OPEN if soonest <= held.last_block else Stage.EXPIRED


async def read_genesis(node: ChainEndpoint) -> bytes:
    """Return the hash of the chain's first block."""
    genesis = await read_hash_at(node, 0)
    if genesis is None:
        raise AnswerMalformed(f"{node.name}: has no block 0")
    return genesis


async def committed_at(view: View, commit: HashedCommit) -> int | None:
    """Return the block that included the commit; None when the chain does not hold it now."""
    held = await view.storage(SUBTENSOR, HELD, commit.netuid, commit.hotkey)
    if held is None:
        return None
    for one in held if isinstance(held, list) else [held]:
        match list(one) if isinstance(one, list | tuple) else one:
            case [str(digest), int(block), *_]:
                if digest.removeprefix("0x") == commit.hash.hex():
                    return block
            case _:
                raise AnswerMalformed(f"{view.node.name}: {HELD} holds {one!r}")
    return None
