"""Decides whether a node announces itself now (serve_axon). Pure.

Theory of operation. The address on the chain is compared with the wanted one again and again; an announcement that was
made once is not assumed to last. The first row that applies decides:

| what is known                                              | verdict      | what the announcer does                |
|------------------------------------------------------------|--------------|----------------------------------------|
| the subnet was never read                                  | UNREAD       | waits                                  |
| the chain says where the node serves                       | ANNOUNCED    | nothing                                |
| one was sent, is not there, and a block may still take it  | IN_FLIGHT    | waits until its last block is final    |
| the hotkey is not registered on the subnet                 | UNREGISTERED | waits                                  |
| one was refused, or could not be sent, a short while ago   | SET_ASIDE    | waits                                  |
| the axon on the chain is younger than its serving limit    | RATE_LIMITED | waits until that block                 |
| else                                                       | DUE          | reads the newest block; if this is its |
|                                                            |              | verdict too, sends one                 |

An announcement counts as in flight until its era is over, unless the current block holds it: when its block is
reorganized away, it waits in the pools again. It is forgotten sooner only when it certainly cannot be included
(refused, never sent, era over). It is journaled before it is sent, so that kill -9 does not lead to a second one.
"""

import enum
import ipaddress
from typing import Final

import msgspec

from config.addresses import announced_at
from engram.chain.model import Axon, Metagraph
from engram.chain.read.runtime import ERA_BLOCKS
from engram.hotkeys import PublicKey

REFUSED_MIN_S: Final = 300.0
REFUSED_MAX_S: Final = 14_400.0
"""A refusal (a limit, a missing registration) repeats a block later, so the pause is long."""
UNSENT_MIN_S: Final = 12.0
UNSENT_MAX_S: Final = 600.0
RETRY_AFTER_MAX_S: Final = 3_600.0


class ServingAddress(msgspec.Struct, frozen=True):
    """The address that a node serves at. `ip` is in the form of `ipaddress`, without brackets."""

    ip: str
    port: int

    @property
    def text(self) -> str:
        """Text for people, with IPv6 in brackets."""
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class HotkeyOnChain(msgspec.Struct, frozen=True):
    """A hotkey in one finalized block."""

    block: int
    registered: bool
    axon: Axon | None
    serving_rate_limit_blocks: int


class Attempt(msgspec.Struct, frozen=True):
    """An announcement that was sent, or is about to be: blocks `birth` + 1 to `expires_at_block` may take it."""

    place: ServingAddress
    birth: int
    expires_at_block: int
    extrinsic_hash: str = ""
    """`0x` and hex, once it is signed."""
    included_at_block: int | None = None


class AnnouncementState(msgspec.Struct, frozen=True):
    """The state kept between two checks. Times are monotonic seconds."""

    attempt: Attempt | None = None
    failures: int = 0
    """In a row."""
    not_before_s: float = 0.0
    why: str = ""
    """Why the last announcement failed or its outcome is unknown; empty after one that was included."""


class AnnounceVerdict(enum.Enum):
    """See the table above."""

    UNREAD = "unread"
    ANNOUNCED = "announced"
    IN_FLIGHT = "in_flight"
    UNREGISTERED = "unregistered"
    SET_ASIDE = "set_aside"
    RATE_LIMITED = "rate_limited"
    DUE = "due"


class AnnounceDecision(msgspec.Struct, frozen=True):
    """A verdict, and the block at which it ends, if a block ends it."""

    verdict: AnnounceVerdict
    until_block: int | None = None


def serving_address(text: str, own_port: int) -> ServingAddress:
    """Return the address of `miner.announce`, with the node's own port by default. Raises ValueError."""
    address, port = announced_at(text)
    return ServingAddress(str(address), port or own_port)


def hotkey_on_chain(metagraph: Metagraph, hotkey: PublicKey) -> HotkeyOnChain:
    """Return the hotkey's entry in the metagraph."""
    neuron = metagraph.neuron(hotkey)
    return HotkeyOnChain(
        block=metagraph.block,
        registered=neuron is not None,
        axon=None if neuron is None else neuron.axon,
        serving_rate_limit_blocks=metagraph.parameters.serving_rate_limit_blocks,
    )


def is_at(axon: Axon | None, place: ServingAddress) -> bool:
    """Return whether the axon is at this address, however it is written."""
    return axon is not None and axon.port == place.port and _same_address(axon.ip, place.ip)


def decide(
    wanted: ServingAddress, seen: HotkeyOnChain | None, state: AnnouncementState, now_s: float
) -> AnnounceDecision:
    """Return whether to announce now; see the table above."""
    if seen is None:
        return AnnounceDecision(AnnounceVerdict.UNREAD)
    if is_at(seen.axon, wanted):
        return AnnounceDecision(AnnounceVerdict.ANNOUNCED)
    if state.attempt is not None and may_come(state.attempt, seen):
        return AnnounceDecision(AnnounceVerdict.IN_FLIGHT, state.attempt.expires_at_block + 1)
    if not seen.registered:
        return AnnounceDecision(AnnounceVerdict.UNREGISTERED)
    if now_s < state.not_before_s:
        return AnnounceDecision(AnnounceVerdict.SET_ASIDE)
    due = 0 if seen.axon is None else seen.axon.block + seen.serving_rate_limit_blocks
    if seen.block < due:
        return AnnounceDecision(AnnounceVerdict.RATE_LIMITED, due)
    return AnnounceDecision(AnnounceVerdict.DUE)


def may_come(attempt: Attempt, seen: HotkeyOnChain) -> bool:
    """Return whether a block after this finalized one may still include the attempt.

    A block more than an era older than its birth is of a restarted chain, for which it was not signed.
    """
    if is_at(seen.axon, attempt.place) and seen.axon is not None and seen.axon.block > attempt.birth:
        return False
    return attempt.birth - ERA_BLOCKS <= seen.block <= attempt.expires_at_block


def about_to_send(state: AnnouncementState, place: ServingAddress, birth: int) -> AnnouncementState:
    """Return the state while an attempt is signed for the blocks after the finalized block `birth`."""
    return msgspec.structs.replace(state, attempt=Attempt(place, birth, birth + ERA_BLOCKS), why="")


def signed(state: AnnouncementState, extrinsic_hash: bytes, last_block: int) -> AnnouncementState:
    """Return the state once the attempt is sent under this hash."""
    return _attempted(state, extrinsic_hash="0x" + extrinsic_hash.hex(), expires_at_block=last_block)


def included(state: AnnouncementState, block: int) -> AnnouncementState:
    """Return the state once this finalized block includes the attempt."""
    return msgspec.structs.replace(_attempted(state, included_at_block=block), failures=0, not_before_s=0.0, why="")


def arrived(state: AnnouncementState, axon: Axon) -> AnnouncementState:
    """Return the state once the chain holds the wanted address, by whichever announcement."""
    attempt = state.attempt
    if attempt is not None and attempt.included_at_block is None:
        attempt = msgspec.structs.replace(attempt, included_at_block=axon.block)
    return AnnouncementState(attempt)


def refused(state: AnnouncementState, why: str, now_s: float) -> AnnouncementState:
    """Return the state after the chain or a pool refused the attempt: pause for 5 min, 10 min, … 4 h."""
    wait_s = _doubled(REFUSED_MIN_S, REFUSED_MAX_S, state.failures)
    return AnnouncementState(None, state.failures + 1, now_s + wait_s, why)


def unsent(state: AnnouncementState, why: str, now_s: float, retry_after_s: float | None) -> AnnouncementState:
    """Return the state when the attempt never left this machine: pause as by `postponed`."""
    return msgspec.structs.replace(postponed(state, why, now_s, retry_after_s), attempt=None)


def postponed(state: AnnouncementState, why: str, now_s: float, retry_after_s: float | None) -> AnnouncementState:
    """Return the state when no attempt was made: pause for Retry-After (at most 1 h), else 12 s, 24 s, … 10 min."""
    if retry_after_s is None:
        wait_s = _doubled(UNSENT_MIN_S, UNSENT_MAX_S, state.failures)
    else:
        wait_s = min(RETRY_AFTER_MAX_S, max(UNSENT_MIN_S, retry_after_s))
    return AnnouncementState(state.attempt, state.failures + 1, now_s + wait_s, why)


def never(state: AnnouncementState, why: str) -> AnnouncementState:
    """Return the state once the era is over without the attempt."""
    return msgspec.structs.replace(state, attempt=None, why=why)


def unknown(state: AnnouncementState, why: str) -> AnnouncementState:
    """Return the state when the outcome is unknown: the attempt stays in flight until its era is over."""
    return msgspec.structs.replace(state, why=why)


def _attempted(state: AnnouncementState, **changed: object) -> AnnouncementState:
    attempt = state.attempt
    return msgspec.structs.replace(
        state, attempt=None if attempt is None else msgspec.structs.replace(attempt, **changed)
    )


def _doubled(first_s: float, most_s: float, times: int) -> float:
    return min(most_s, first_s * 2.0 ** min(times, 20))


def _same_address(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    except ValueError:
        return False
