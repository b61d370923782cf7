"""What is wanted and known of a node's announcement, for the announcer and whoever shows it. Asks nobody."""

from typing import final

import msgspec

from engram.chain.registry.announce_rules import (
    AnnounceDecision,
    AnnouncementState,
    AnnounceVerdict,
    HotkeyOnChain,
    ServingAddress,
    decide,
    hotkey_on_chain,
)
from engram.chain.sync.subnets import Subnets
from engram.clock import Clock
from engram.hotkeys import PublicKey


class AnnouncementStatus(msgspec.Struct, frozen=True):
    """How announcing stands, for /status."""

    wanted: str
    on_chain: str | None
    """What the newest block that was read says; None when it says nothing."""
    verdict: AnnounceVerdict
    until_block: int | None
    """The verdict is good until this block, where a block ends it."""
    retry_in_s: float
    failures: int
    error: str
    extrinsic: str | None
    """The newest one that was sent."""
    expires_at_block: int | None
    included_at_block: int | None


@final
class Announcements:
    """What is wanted, what is known, and what follows from both now; for the announcer and whoever shows it.

    Outlives the announcer, so that a restart of it forgets nothing that is in flight.
    """

    def __init__(self, subnets: Subnets, netuid: int, hotkey: PublicKey, wanted: ServingAddress, clock: Clock) -> None:
        self.netuid = netuid
        self.hotkey = hotkey
        self.wanted = wanted
        self.state = AnnouncementState()
        self._subnets = subnets
        self._clock = clock

    @property
    def now_s(self) -> float:
        """The monotonic clock that the state's times are of."""
        return self._clock.monotonic()

    def seen(self) -> HotkeyOnChain | None:
        """What the newest metagraph says of the hotkey; None before the first."""
        metagraph = self._subnets.get(self.netuid)
        return None if metagraph is None else hotkey_on_chain(metagraph, self.hotkey)

    def decision(self, seen: HotkeyOnChain | None) -> AnnounceDecision:
        """What follows from this and all that is remembered."""
        return decide(self.wanted, seen, self.state, self.now_s)

    def status(self) -> AnnouncementStatus:
        """For /status and /metrics; asks nobody."""
        seen, state = self.seen(), self.state
        axon, attempt = None if seen is None else seen.axon, state.attempt
        decision = self.decision(seen)
        return AnnouncementStatus(
            wanted=self.wanted.text,
            on_chain=None if axon is None else ServingAddress(axon.ip, axon.port).text,
            verdict=decision.verdict,
            until_block=decision.until_block,
            retry_in_s=round(max(0.0, state.not_before_s - self.now_s), 1),
            failures=state.failures,
            error=state.why,
            extrinsic=None if attempt is None else attempt.extrinsic_hash or None,
            expires_at_block=None if attempt is None else attempt.expires_at_block,
            included_at_block=None if attempt is None else attempt.included_at_block,
        )
