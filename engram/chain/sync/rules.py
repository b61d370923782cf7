"""Decides whether a finalized head is accepted, and what changed between two metagraphs. Pure.

Theory of operation. A poll asks the first configured endpoint that is not set aside for its finalized head, and judges
that head against the newest accepted one:

| head seen                        | verdict   | what the syncer does                                     |
|----------------------------------|-----------|----------------------------------------------------------|
| first of all                     | ADVANCED  | read the subnets at its hash                             |
| higher, our block is its ancestor| ADVANCED  | read the subnets at its hash                             |
| the same block                   | SAME      | nothing                                                  |
| the same or lower for too long   | STALLED   | set the endpoint aside, ask the next one                 |
| lower                            | BEHIND    | set the endpoint aside; another was further already      |
| our block is not on its chain    | FORKED    | set the endpoint aside; do not act on it                 |
| the same, higher, ours is dead   | OVERTAKEN | follow it if a second endpoint has it                    |
| not ours, after `reset_after_s`  | RESTARTED | follow it if a second endpoint has it, or there is none  |

Ours is dead when no descendant of it was accepted for `stall_after_s`. Without OVERTAKEN, a fork accepted while no
other endpoint was reachable would be ours for ever. RESTARTED is for endpoints that restarted elsewhere (another fork,
an older block, a new chain) and operators who set `reset_after_s` (0: never): the syncer continues at the head that is
there, as it would after a restart of its process.

A descendant of ours may still be one endpoint's own fork, so a new head is compared with the other endpoints, one
after the other, until one of them has the same block at that number. One that has finalized less is compared at its
own finalized block, so that a stalled fork is seen too:

| verdict   | one has it too: CONFIRMED | none can tell: ALONE            | only others: CONTRADICTED |
|-----------|---------------------------|---------------------------------|---------------------------|
| ADVANCED  | act on it                 | act on it, unless heads differed| refuse; heads differ      |
| OVERTAKEN | act on it                 | refuse                          | refuse; heads differ      |
| RESTARTED | act on it                 | refuse, unless it is the only   | refuse; heads differ      |
|           |                           | endpoint that is configured     |                           |

Once heads differed, no new head is accepted until two endpoints have the same one. AWAITED is a head that no other
endpoint has finalized yet although one follows the chain: that one's own head is judged next, and no endpoint is set
aside. Otherwise an endpoint that invents blocks would only have to be ahead, where none can contradict it.

An endpoint that fails is set aside for a time that doubles, or for as long as it asked (Retry-After), and the next
one is asked in the same poll. One whose head was refused still answers for the heads of others.
"""

import enum
from collections.abc import Collection

from engram.chain.model import (
    Axon,
    AxonMoved,
    FinalizedBlock,
    HeadWatch,
    Metagraph,
    PermitLost,
    Registered,
    Removed,
    Replaced,
    SubnetChange,
)
from engram.chain.read.head_opinions import Opinion


class HeadVerdict(enum.Enum):
    """How a finalized head relates to ours; see the first table above."""

    ADVANCED = "advanced"
    SAME = "same"
    STALLED = "stalled"
    BEHIND = "behind"
    FORKED = "forked"
    OVERTAKEN = "overtaken"
    RESTARTED = "restarted"


class Support(enum.Enum):
    """Whether other endpoints confirm a head; see the second table above."""

    CONFIRMED = "confirmed"
    AWAITED = "awaited"
    ALONE = "alone"
    CONTRADICTED = "contradicted"


def judge_head(
    watch: HeadWatch | None,
    seen: FinalizedBlock,
    ours_on_its_chain: bytes | None,
    now_s: float,
    stall_after_s: float,
    reset_after_s: float = 0.0,
) -> HeadVerdict:
    """Judge a finalized head.

    `ours_on_its_chain` is the hash that the endpoint gives for the number of our newest block; None when it
    knows none. It is ignored for a head lower than ours. `reset_after_s` 0 means never.
    """
    if watch is None:
        return HeadVerdict.ADVANCED
    still_s = now_s - watch.advanced_at_s
    dead = still_s > stall_after_s
    if seen.number > watch.head.number and ours_on_its_chain == watch.head.hash:
        return HeadVerdict.ADVANCED
    if 0.0 < reset_after_s < still_s and seen.hash != watch.head.hash:
        return HeadVerdict.RESTARTED
    if seen.number > watch.head.number:
        return HeadVerdict.OVERTAKEN if dead else HeadVerdict.FORKED
    if seen.number == watch.head.number and seen.hash != watch.head.hash:
        return HeadVerdict.FORKED
    if dead:
        return HeadVerdict.STALLED
    return HeadVerdict.SAME if seen.number == watch.head.number else HeadVerdict.BEHIND


def support_of(opinions: Collection[Opinion]) -> Support:
    """Return the support for a head: one endpoint that has it outweighs those that have another."""
    if Opinion.SAME in opinions:
        return Support.CONFIRMED
    if Opinion.OTHER in opinions:
        return Support.CONTRADICTED
    return Support.AWAITED if Opinion.NOT_YET in opinions else Support.ALONE


def may_act(verdict: HeadVerdict, support: Support, heads_differ: bool, only_endpoint: bool = False) -> bool:
    """Return whether a new head is accepted. `heads_differ`: some did, and no two endpoints have agreed since.

    `only_endpoint`: no other one is configured that could confirm it.
    """
    match verdict, support:
        case ((HeadVerdict.ADVANCED | HeadVerdict.OVERTAKEN | HeadVerdict.RESTARTED), Support.CONFIRMED):
            return True
        case HeadVerdict.ADVANCED, Support.ALONE:
            return not heads_differ
        case HeadVerdict.RESTARTED, Support.ALONE:
            return only_endpoint
        case _:
            return False


def changes(old: Metagraph, new: Metagraph) -> tuple[SubnetChange, ...]:
    """Return the changes between two metagraphs of one subnet, by uid.

    A replaced uid is one change: permit and axon of the new hotkey are not changes of the old one.
    """
    netuid, block = new.netuid, new.block
    found: list[SubnetChange] = []
    for before, now in zip(old.neurons, new.neurons, strict=False):
        if before == now:
            continue
        if before.hotkey != now.hotkey:
            found.append(Replaced(netuid, block, now.uid, before.hotkey, now.hotkey))
            continue
        if before.validator_permit and not now.validator_permit:
            found.append(PermitLost(netuid, block, now.uid, now.hotkey))
        if _address(before.axon) != _address(now.axon):
            found.append(AxonMoved(netuid, block, now.uid, now.hotkey, now.axon))
    found += [Removed(netuid, block, gone.uid, gone.hotkey) for gone in old.neurons[len(new.neurons) :]]
    found += [Registered(netuid, block, came.uid, came.hotkey) for came in new.neurons[len(old.neurons) :]]
    return tuple(found)


def _address(axon: Axon | None) -> tuple[str, int] | None:
    return None if axon is None else (axon.ip, axon.port)
