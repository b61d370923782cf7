"""The subnets in memory: the syncer writes them, all others read them without waiting."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import assert_never, final

import msgspec

from engram.chain.model import (
    AxonMoved,
    ChainStatus,
    EndpointHealth,
    HeadWatch,
    Metagraph,
    PermitLost,
    Registered,
    Removed,
    Replaced,
    SubnetChange,
    SubnetStatus,
)
from engram.clock import Clock
from engram.hotkeys import ss58

CHANGES_KEPT = 1_000
"""Number of newest changes kept."""
CHANGES_SHOWN = 20
"""Number of these in /status."""


class SyncState(msgspec.Struct, frozen=True):
    """The state of the syncer, apart from the metagraphs."""

    network: str = ""
    """The chain's own name (`system_chain`); empty before the first read."""
    endpoint: str = ""
    spec_version: int | None = None
    watch: HeadWatch | None = None
    best: int | None = None
    """Number of the best block, read with each new finalized one; it may still be reorganized away."""
    syncs: int = 0
    failures: int = 0
    error: str = ""
    endpoints: dict[str, EndpointHealth] = {}
    subnet_errors: dict[int, str] = {}


@final
class Subnets:
    """The newest metagraph of each subnet. A failed sync leaves the last good one in place, with its age."""

    def __init__(self, clock: Clock, netuids: Sequence[int], stall_after_s: float) -> None:
        self._clock = clock
        self._netuids = tuple(netuids)
        self._stall_after_s = stall_after_s
        self._since_s = clock.monotonic()
        self._metagraphs: dict[int, Metagraph] = {}
        self._state = SyncState()
        self._recent: deque[SubnetChange] = deque(maxlen=CHANGES_KEPT)
        self._listeners: list[Callable[[Sequence[SubnetChange]], None]] = []

    def get(self, netuid: int) -> Metagraph | None:
        """Return the newest metagraph; None when the subnet has not been read (yet)."""
        return self._metagraphs.get(netuid)

    @property
    def followed(self) -> tuple[int, ...]:
        """Netuids that are followed, read or not yet."""
        return self._netuids

    @property
    def synced(self) -> tuple[int, ...]:
        """Netuids of which a metagraph is held, ascending."""
        return tuple(sorted(self._metagraphs))

    @property
    def state(self) -> SyncState:
        """The state of the syncer."""
        return self._state

    @property
    def block(self) -> int | None:
        """Number of the newest accepted finalized block."""
        return None if self._state.watch is None else self._state.watch.head.number

    @property
    def best(self) -> int | None:
        """Number of the best block that was seen with the newest finalized one."""
        return self._state.best

    def hash_of(self, block: int) -> bytes | None:
        """Return the hash of the newest accepted finalized block if it has this number, else None."""
        head = None if self._state.watch is None else self._state.watch.head
        return head.hash if head is not None and head.number == block else None

    @property
    def recent(self) -> tuple[SubnetChange, ...]:
        """The newest changes, oldest first."""
        return tuple(self._recent)

    @property
    def now_s(self) -> float:
        """Now, by the monotonic clock of the ages."""
        return self._clock.monotonic()

    def age_s(self, netuid: int) -> float | None:
        """Return the seconds since the metagraph was read; None when there is none."""
        metagraph = self.get(netuid)
        return None if metagraph is None else metagraph.age_s(self.now_s)

    @property
    def running_s(self) -> float:
        """Seconds since the start."""
        return max(0.0, self.now_s - self._since_s)

    @property
    def still_s(self) -> float:
        """Seconds since the finalized head last advanced; since the start as long as none is known."""
        watch = self._state.watch
        return max(0.0, self.now_s - (self._since_s if watch is None else watch.advanced_at_s))

    def listen(self, listener: Callable[[Sequence[SubnetChange]], None]) -> None:
        """Call `listener` with the changes of each new metagraph; it must neither wait nor raise."""
        self._listeners.append(listener)

    def status(self) -> ChainStatus:
        """Return the status for /status and /metrics."""
        now_s = self.now_s
        state = self._state
        head_age_s = None if state.watch is None else max(0.0, now_s - state.watch.advanced_at_s)
        return ChainStatus(
            network=state.network,
            endpoint=state.endpoint,
            spec_version=state.spec_version,
            head=self.block,
            best=self.best,
            head_age_s=head_age_s,
            stalled=self.still_s > self._stall_after_s,
            syncs=state.syncs,
            failures=state.failures,
            error=state.error,
            endpoints=dict(state.endpoints),
            subnets=tuple(self._subnet_status(netuid, now_s) for netuid in self._netuids),
            changes=tuple(in_words(change) for change in list(self._recent)[-CHANGES_SHOWN:]),
        )

    def publish(self, metagraph: Metagraph, changes: Sequence[SubnetChange]) -> None:
        """Replace the metagraph and call the listeners with the changes. For the syncer only."""
        self._metagraphs[metagraph.netuid] = metagraph
        self._recent.extend(changes)
        if changes:
            for listener in self._listeners:
                listener(changes)

    def note(self, state: SyncState) -> None:
        """Replace the state of the syncer. For the syncer only."""
        self._state = state

    def _subnet_status(self, netuid: int, now_s: float) -> SubnetStatus:
        metagraph = self.get(netuid)
        return SubnetStatus(
            netuid=netuid,
            block=None if metagraph is None else metagraph.block,
            age_s=None if metagraph is None else metagraph.age_s(now_s),
            neurons=0 if metagraph is None else len(metagraph.neurons),
            error=self._state.subnet_errors.get(netuid, ""),
        )


def in_words(change: SubnetChange) -> str:
    """Return one line for people: where, who, what."""
    where = f"subnet {change.netuid} block {change.block} uid {change.uid}"
    hotkey = ss58.encode(change.hotkey)
    match change:
        case Registered():
            return f"{where}: {hotkey} registered"
        case Replaced(old_hotkey=old):
            return f"{where}: {hotkey} replaced {ss58.encode(old)}"
        case Removed():
            return f"{where}: {hotkey} removed"
        case PermitLost():
            return f"{where}: {hotkey} lost its validator permit"
        case AxonMoved(axon=axon):
            return f"{where}: {hotkey} serves " + ("no longer" if axon is None else f"at {axon.ip} port {axon.port}")
        case _:
            assert_never(change)
