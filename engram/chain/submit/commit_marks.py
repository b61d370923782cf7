"""Finds a commit of weights on the chain by what was written down before it was sent, after a crash too.

A mark is the commit's hash: blake2b-256 of what is sent under a timelock, or the hash that is sent itself.
"""

import hashlib
from typing import Final

import msgspec

from engram.chain.errors import AnswerMalformed, RuntimeApiMissing
from engram.chain.read.runtime import SUBTENSOR
from engram.chain.read.view import View
from engram.chain.submit import hashed_weights
from engram.chain.submit.weights import TIMELOCKED_COMMITS, WeightsPlan

_HEX_OF_A_HASH: Final = 64


class HeldCommit(msgspec.Struct, frozen=True):
    """A commit that the chain holds; `block` is the one that included it, None where the chain does not say."""

    block: int | None


def mark_of(plan: WeightsPlan) -> str | None:
    """Return the mark of a plan, in hex; None when its weights are set in the open."""
    if plan.hashed is not None:
        return plan.hashed.hash.hex()
    return None if plan.commit is None else _digest(plan.commit)


async def find_commit(view: View, netuid: int, mark: str) -> HeldCommit | None:
    """Return the commit with a mark; None when the chain does not hold it, or not any more.

    Raises AnswerMalformed, RuntimeApiMissing where commits are held in a form, or a place, that is not known here: then
    nobody can say that this one is not among them.
    """
    items = [item for item in (*TIMELOCKED_COMMITS, hashed_weights.HELD) if view.types.has_storage(SUBTENSOR, item)]
    if not items:
        raise RuntimeApiMissing("the runtime has no storage of commits that Engram knows")
    unreadable = ""
    for item in items:
        for _, value in await view.entries(SUBTENSOR, item, netuid):
            held = view.types.storage_value(SUBTENSOR, item, bytes.fromhex(value[2:]))
            for commit in held if isinstance(held, list) else []:
                found = _parts(commit)
                if found is None:
                    unreadable = item
                elif mark in found[0]:
                    return HeldCommit(found[1])
    if unreadable:
        raise AnswerMalformed(f"commits in {unreadable} have a form that is not known here")
    return None


def _parts(commit: object) -> tuple[set[str], int | None] | None:
    """Return the marks that a commit may go by, and its block.

    (account, commit, drand round) before the chain noted blocks, (account, block, commit, drand round) since then;
    (hash, block, first and last block of the reveal) by hash.
    """
    match list(commit) if isinstance(commit, list | tuple) else commit:
        case [str(), int(block), str(octets), int()] | [str(octets), int(block), int(), int()]:
            return _marks(octets), block
        case [str(), str(octets), int()]:
            return _marks(octets), None
        case _:
            return None


def _marks(octets: str) -> set[str]:
    digits = octets.removeprefix("0x")
    if len(digits) == _HEX_OF_A_HASH:
        return {digits}
    try:
        return {_digest(bytes.fromhex(digits))}
    except ValueError:
        return set()  # a commit of another hotkey may be anything


def _digest(commit: bytes) -> str:
    return hashlib.blake2b(commit, digest_size=32).hexdigest()
