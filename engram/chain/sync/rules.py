"""Decisions of the syncing of the chain: what changed, whom to ask, and whether a head may be acted on.

Theory of operation. A poll asks one endpoint, the first in the configured order that is not set aside, for its
finalized head, and judges that head against the newest one acted on:

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

Ours is dead when nothing that descends from it could be acted on for `stall_after_s`. Without OVERTAKEN, a fork taken
while no other endpoint could be asked would be ours for ever. RESTARTED is the way out where endpoints began again
elsewhere (another fork, an older block, a new chain), for operators who set `reset_after_s` (0: never): the syncer
begins again at the head that is there, as it would after a restart of its process.

What descends from ours may still be one endpoint's own fork, so a head that is new is held against the other
endpoints before it is acted on, one after the other until one of them has the same block at that number. One that has
finalized less is compared at its own finalized block, so that a fork that stands still is seen too:

| verdict   | one has it too: CONFIRMED | none can tell: ALONE            | only others: CONTRADICTED |
|-----------|---------------------------|---------------------------------|---------------------------|
| ADVANCED  | act on it                 | act on it, unless heads differed| refuse; heads differ      |
| OVERTAKEN | act on it                 | refuse                          | refuse; heads differ      |
| RESTARTED | act on it                 | refuse, unless it is the only   | refuse; heads differ      |
|           |                           | endpoint that is configured     |                           |

Once heads differed, nothing new is acted on until two endpoints have the same one. AWAITED is a head that no other has
finalized yet, one of which follows the chain: then that one's own head is the next to be judged, and nobody is set
aside. Else whoever makes blocks up would only have to be ahead, for all that nobody else knows is true of them.

An endpoint that fails is set aside for a time that doubles, or for as long as it asked (Retry-After), and the next
one is asked in the same poll. One whose head was refused still answers for the heads of others.
"""

import enum
from collections.abc import Collection, Sequence
from random import Random

import msgspec

from engram.chain.model import (
    Axon,
    AxonMoved,
    EndpointHealth,
    Head,
    HeadWatch,
    Metagraph,
    PermitLost,
    Registered,
    Removed,
    Replaced,
    SubnetChange,
)

BACKOFF_MIN_S = 2.0
BACKOFF_MAX_S = 120.0
BUSY_MIN_S = 15.0
"""A refusal for load without Retry-After sets aside at least this long."""
RETRY_AFTER_MAX_S = 3_600.0
JITTER = 0.2
POLL_MIN_S = 1.0
LIVE_S = 180.0
"""A finalized block is some 36 s old on a healthy chain."""
HANG_S = 600.0
"""A command does not ask an endpoint that hung again before this, while another one can be asked."""


class HeadVerdict(enum.Enum):
    """What a finalized head is to us; see the table above."""

    ADVANCED = "advanced"
    SAME = "same"
    STALLED = "stalled"
    BEHIND = "behind"
    FORKED = "forked"
    OVERTAKEN = "overtaken"
    RESTARTED = "restarted"


class Opinion(enum.Enum):
    """What another endpoint has at the number of a head."""

    SAME = "same"
    OTHER = "other"
    NOT_YET = "not_yet"
    """No finalized block yet, though its newest one is of now."""
    NONE = "none"
    """No finalized block yet, on a chain that may stand still; or no answer."""


class Support(enum.Enum):
    """How a head stands with the other endpoints; see the second table above."""

    CONFIRMED = "confirmed"
    AWAITED = "awaited"
    ALONE = "alone"
    CONTRADICTED = "contradicted"


def judge_head(
    watch: HeadWatch | None,
    seen: Head,
    ours_on_its_chain: bytes | None,
    now_s: float,
    stall_after_s: float,
    reset_after_s: float = 0.0,
) -> HeadVerdict:
    """Judges a finalized head.

    `ours_on_its_chain` is the hash that the endpoint gives for the number of our newest block; None when it
    knows none. It is not looked at for a head lower than ours. `reset_after_s` 0 means never.
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


def opinion_of(head: Head, its_hash: bytes | None, its_finalized: int) -> Opinion:
    """What an endpoint with `its_hash` at the number of `head`, and finalized up to `its_finalized`, says of it.

    Blocks beyond the finalized one may still be replaced and contradict nothing.
    """
    if its_hash == head.hash:
        return Opinion.SAME
    return Opinion.NONE if its_hash is None or its_finalized < head.number else Opinion.OTHER


def support_of(opinions: Collection[Opinion]) -> Support:
    """How a head stands with the others: one that has it outweighs those that have another."""
    if Opinion.SAME in opinions:
        return Support.CONFIRMED
    if Opinion.OTHER in opinions:
        return Support.CONTRADICTED
    return Support.AWAITED if Opinion.NOT_YET in opinions else Support.ALONE


def is_live(made_ms: int | None, now_s: float) -> bool:
    """Whether an endpoint whose finalized block was made then (unix ms; None: it does not say) follows the chain."""
    return made_ms is not None and now_s - made_ms / 1000 <= LIVE_S


def may_act(verdict: HeadVerdict, support: Support, heads_differ: bool, only_endpoint: bool = False) -> bool:
    """Whether a new head is acted on. `heads_differ`: some did, and no two endpoints have had the same since.

    `only_endpoint`: no other one is configured, so that no other one will ever confirm it.
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


def after_success() -> EndpointHealth:
    """The health of an endpoint that answered well."""
    return EndpointHealth()


def after_failure(health: EndpointHealth, error: str, now_s: float, rng: Random) -> EndpointHealth:
    """Sets the endpoint aside for 2 s, 4 s, … 120 s, ± 20 %."""
    return _set_aside(health, error, now_s, _backoff_s(health, rng))


def after_hang(health: EndpointHealth, error: str, now_s: float) -> EndpointHealth:
    """Sets the endpoint aside for 10 minutes: a command that waits for it once waits no second time."""
    return _set_aside(health, error, now_s, HANG_S)


def after_refused_head(health: EndpointHealth, error: str, now_s: float, rng: Random) -> EndpointHealth:
    """Asks for no head of this endpoint as long as after a failure; it still answers for the heads of others."""
    aside = _set_aside(health, error, now_s, _backoff_s(health, rng))
    return msgspec.structs.replace(aside, silent_until_s=health.silent_until_s)


def after_busy(
    health: EndpointHealth, error: str, retry_after_s: float | None, now_s: float, rng: Random
) -> EndpointHealth:
    """Sets the endpoint aside for as long as it asked (at most an hour), else for 15 s, 30 s, … 120 s, ± 20 %.

    What it asked is never shortened by the jitter.
    """
    if retry_after_s is None:
        wait_s = _jittered(min(BACKOFF_MAX_S, BUSY_MIN_S * 2.0 ** min(health.failures, 10)), rng)
    else:
        wait_s = min(RETRY_AFTER_MAX_S, max(POLL_MIN_S, retry_after_s)) * (1.0 + JITTER * rng.random())
    return _set_aside(health, error, now_s, wait_s)


def choose(healths: Sequence[EndpointHealth], now_s: float, passed: Collection[int] = ()) -> int | None:
    """The first endpoint in order that may be asked now and is none of `passed`; None when there is none."""
    for number, health in enumerate(healths):
        if health.not_before_s <= now_s and number not in passed:
            return number
    return None


def witnesses(healths: Sequence[EndpointHealth], asked: int, now_s: float) -> list[int]:
    """The endpoints that may be asked about an answer of endpoint `asked`: those not set aside come first."""
    others = [place for place in range(len(healths)) if place != asked and healths[place].silent_until_s <= now_s]
    return sorted(others, key=lambda place: healths[place].not_before_s > now_s)


def next_poll_s(healths: Sequence[EndpointHealth], poll_s: float, now_s: float, failed: bool) -> float:
    """Seconds to the next poll: `poll_s`, sooner after a failure if an endpoint may be asked sooner."""
    if not failed:
        return poll_s
    soonest_s = min(health.not_before_s for health in healths) - now_s
    return min(poll_s, max(POLL_MIN_S, soonest_s))


def changes(old: Metagraph, new: Metagraph) -> tuple[SubnetChange, ...]:
    """What happened between two metagraphs of one subnet, by uid.

    A replaced uid is one event only: permit and axon of another hotkey are no news about this one.
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


def _backoff_s(health: EndpointHealth, rng: Random) -> float:
    return _jittered(min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(health.failures, 10)), rng)


def _jittered(wait_s: float, rng: Random) -> float:
    return wait_s * (1.0 + JITTER * (2.0 * rng.random() - 1.0))


def _set_aside(health: EndpointHealth, error: str, now_s: float, wait_s: float) -> EndpointHealth:
    until_s = now_s + wait_s
    return EndpointHealth(health.failures + 1, until_s, error, silent_until_s=until_s)
