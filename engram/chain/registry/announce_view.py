"""The state of a node's announcement, shared by the announcer and /status. Makes no requests."""

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
    """The status of the announcement, for /status."""

    wanted: str
    on_chain: str | None
    """The address in the newest block that was read; None when it has none."""
    verdict: AnnounceVerdict
    until_block: int | None
    """The verdict is good until this block, where a block ends it."""
    retry_in_s: float
    failures: int
    error: str
    extrinsic: str | None
    """Hash of the newest one that was sent."""
    expires_at_block: int | None
    included_at_block: int | None


@final
class Announcements:
    """The wanted address, the announcement's state, and the decision that follows now.

    It outlives the announcer, so that a restart does not lose track of an announcement in flight.
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
        """Now, by the monotonic clock of the state's times."""
        return self._clock.monotonic()

    def seen(self) -> HotkeyOnChain | None:
        """Return the hotkey in the newest metagraph; None before the first one."""
        metagraph = self._subnets.get(self.netuid)
        return None if metagraph is None else hotkey_on_chain(metagraph, self.hotkey)

    def decision(self, seen: HotkeyOnChain | None) -> AnnounceDecision:
        """Return the decision for this block and the remembered state."""
        return decide(self.wanted, seen, self.state, self.now_s)

    def status(self) -> AnnouncementStatus:
        """Return the status for /status and /metrics."""
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
