"""Whether a node announces itself now (serve_axon), and what is known of the last time it did. Pure.

Theory of operation. What the chain says of the hotkey is compared with what it should say, again and again; nothing is
done once and taken for done for ever. The first row that fits decides:

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

One that was sent counts as in flight until its era is over, unless the block at hand holds it: included in a block that
was reorganised away, it waits in the pools again. Only what certainly cannot come (refused, never sent, its era over)
is forgotten sooner. It is noted outside the process before it is sent, so that kill -9 sends no second one.
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
"""What refuses once (a limit, a missing registration) refuses again a block later."""
UNSENT_MIN_S: Final = 12.0
UNSENT_MAX_S: Final = 600.0
RETRY_AFTER_MAX_S: Final = 3_600.0


class ServingAddress(msgspec.Struct, frozen=True):
    """Where a node is reached. `ip` is in the one text form that `ipaddress` gives, without brackets."""

    ip: str
    port: int

    @property
    def text(self) -> str:
        """For people: IPv6 in brackets."""
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class HotkeyOnChain(msgspec.Struct, frozen=True):
    """What one finalized block says of a hotkey."""

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
    """What is remembered between two looks. Times are monotonic seconds."""

    attempt: Attempt | None = None
    failures: int = 0
    """In a row."""
    not_before_s: float = 0.0
    why: str = ""
    """Why the last one failed or is not known; empty after one that was included."""


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
    """A verdict, and the block it is good until where a block ends it."""

    verdict: AnnounceVerdict
    until_block: int | None = None


def serving_address(text: str, own_port: int) -> ServingAddress:
    """The place that `miner.announce` names, at the node's own port when it names none. Raises ValueError."""
    address, port = announced_at(text)
    return ServingAddress(str(address), port or own_port)


def hotkey_on_chain(metagraph: Metagraph, hotkey: PublicKey) -> HotkeyOnChain:
    """What the metagraph says of the hotkey."""
    neuron = metagraph.neuron(hotkey)
    return HotkeyOnChain(
        block=metagraph.block,
        registered=neuron is not None,
        axon=None if neuron is None else neuron.axon,
        serving_rate_limit_blocks=metagraph.parameters.serving_rate_limit_blocks,
    )


def is_at(axon: Axon | None, place: ServingAddress) -> bool:
    """Whether the axon says this place, however its address is written."""
    return axon is not None and axon.port == place.port and _same_address(axon.ip, place.ip)


def decide(
    wanted: ServingAddress, seen: HotkeyOnChain | None, state: AnnouncementState, now_s: float
) -> AnnounceDecision:
    """Whether to announce now; see the table above."""
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
    """Whether a block after this finalized one may still take it.

    A block more than an era before it was signed is of a chain that began anew: it was never signed for that one.
    """
    if is_at(seen.axon, attempt.place) and seen.axon is not None and seen.axon.block > attempt.birth:
        return False
    return attempt.birth - ERA_BLOCKS <= seen.block <= attempt.expires_at_block


def about_to_send(state: AnnouncementState, place: ServingAddress, birth: int) -> AnnouncementState:
    """One is being signed for the blocks after the finalized block `birth`."""
    return msgspec.structs.replace(state, attempt=Attempt(place, birth, birth + ERA_BLOCKS), why="")


def signed(state: AnnouncementState, extrinsic_hash: bytes, last_block: int) -> AnnouncementState:
    """It is on its way, under this hash."""
    return _attempted(state, extrinsic_hash="0x" + extrinsic_hash.hex(), expires_at_block=last_block)


def included(state: AnnouncementState, block: int) -> AnnouncementState:
    """It stands in this finalized block and did what it should."""
    return msgspec.structs.replace(_attempted(state, included_at_block=block), failures=0, not_before_s=0.0, why="")


def arrived(state: AnnouncementState, axon: Axon) -> AnnouncementState:
    """The chain says where the node serves, whatever was known of it before."""
    attempt = state.attempt
    if attempt is not None and attempt.included_at_block is None:
        attempt = msgspec.structs.replace(attempt, included_at_block=axon.block)
    return AnnouncementState(attempt)


def refused(state: AnnouncementState, why: str, now_s: float) -> AnnouncementState:
    """The chain or a pool refused it, by this name; nothing of it is left. Set aside for 5 min, 10 min, … 4 h."""
    wait_s = _doubled(REFUSED_MIN_S, REFUSED_MAX_S, state.failures)
    return AnnouncementState(None, state.failures + 1, now_s + wait_s, why)


def unsent(state: AnnouncementState, why: str, now_s: float, retry_after_s: float | None) -> AnnouncementState:
    """The one that was about to be sent never left this machine. Set aside as by `postponed`."""
    return msgspec.structs.replace(postponed(state, why, now_s, retry_after_s), attempt=None)


def postponed(state: AnnouncementState, why: str, now_s: float, retry_after_s: float | None) -> AnnouncementState:
    """None was begun. Set aside as long as the endpoint asked (at most 1 h), else for 12 s, 24 s, … 10 min."""
    if retry_after_s is None:
        wait_s = _doubled(UNSENT_MIN_S, UNSENT_MAX_S, state.failures)
    else:
        wait_s = min(RETRY_AFTER_MAX_S, max(UNSENT_MIN_S, retry_after_s))
    return AnnouncementState(state.attempt, state.failures + 1, now_s + wait_s, why)


def never(state: AnnouncementState, why: str) -> AnnouncementState:
    """Its era is over without it."""
    return msgspec.structs.replace(state, attempt=None, why=why)


def unknown(state: AnnouncementState, why: str) -> AnnouncementState:
    """What became of it is not known; it stays in flight until its era is over."""
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
