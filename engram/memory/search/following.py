"""Follows the truth with something derived from its texts, behind the acknowledgement of a write.

| state | what happens |
|---|---|
| opening | the derived file says up to which change it goes; a new or strange one begins at 0 |
| behind | changes are read from the truth in order and applied, each with the number up to which it then goes |
| level | waits for commits, and clears what was deleted once there were none for a second |
| failed | disk full, embedder down: tries again after 5 s to 5 min; a damaged file is made anew |

Changes are applied in lanes: what somebody waits for, and where signers share the work each in turn, is applied before
its time, and once more, without effect, when its turn in the whole comes. So nobody waits for what others have stored.

Nothing here holds a fact: a crash at any point resumes after the last applied change. The list of deletions is kept
until they were followed, unless that falls very far behind; then `missed` brings the derived file back in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol, TypeAlias, final

import structlog
import trio

from engram.durable.driver import code_of, sqlite3
from engram.memory.errors import EmbedderUnavailable, IndexUnavailable, TruthUnavailable
from engram.memory.model import PUBLIC, Change, Upserted
from engram.memory.search import feed
from engram.memory.search.derived_file import DAMAGED
from engram.memory.search.feed import Fed, FeedLane, TextStored
from engram.memory.store.record_db import Truth

MOST_KEPT: Final = 100_000
"""Changes behind which deletions are no longer kept for what follows."""
_GATHERED_S: Final = 0.05
"""Commits are gathered for so long while nobody waits for them."""
_QUIET_S: Final = 1.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 300.0

_log = structlog.get_logger("engram.memory")


Cleared: TypeAlias = Literal["done", "more", "later"]
"""What a step of clearing leaves to do; `later`: a reader or the disk prevented it."""


class Derived(Protocol):
    """Something that can be built again from the texts of the truth."""

    name: str
    batch: int
    """The most changes applied at once."""
    most_chars: int
    """The characters of texts after which no more changes are applied at once."""
    is_shared: bool
    """Whether it takes so long that signers are served in turn, those of the public namespace too."""

    async def open(self) -> int:
        """Open it; return the last change that it has. Raises sqlite3.Error, OSError."""
        ...

    async def apply(self, changes: Sequence[Fed], sequence: int) -> None:
        """Make changes, after which it goes up to `sequence`. Raises sqlite3.Error, EmbedderUnavailable.

        A change that it has made before, or that a later one has undone, changes nothing.
        """
        ...

    async def missed(self, truth: Truth) -> int:
        """Make up for deletions that are no longer listed; return the change to go on after."""
        ...

    async def reset(self) -> None:
        """Forget everything."""
        ...

    async def clear(self) -> Cleared:
        """Go on removing what was deleted from its files, for some milliseconds."""
        ...


@final
class Follower:
    """Keep `run` running, and call `hint` with the changes of each commit."""

    def __init__(self, truth: Truth, derived: Derived) -> None:
        self._truth = truth
        self._derived = derived
        self._arrived = trio.Event()
        self._awaited = trio.Event()
        self._progress = trio.Event()
        self._latest = 0
        self._pending: dict[FeedLane, int] = {}
        """The last committed change of each lane that has any to apply, as far as they are known."""
        self._ahead: dict[FeedLane, int] = {}
        """Up to which change a lane has been applied before its time."""
        self._wanted: dict[FeedLane, None] = {}
        self._is_level = False
        self._must_reset = False
        self._mended_to = 0
        self._wait_s = _FIRST_WAIT_S
        self.sequence = 0
        """The last change that was applied."""
        self.on_progress: Callable[[int], None] = lambda behind: None
        """Called with `behind` whenever changes were committed or applied."""

    @property
    def kept_after(self) -> int:
        """The change after which deletions must still be listed."""
        return max(self.sequence, self._latest - MOST_KEPT)

    @property
    def behind(self) -> int:
        """The number of committed changes that are not applied yet, as far as they are known."""
        return max(0, self._latest - self.sequence)

    def lane(self, namespace: str, owner: bytes | None) -> FeedLane:
        """Return the lane of what `owner` stores in a namespace."""
        if self._derived.is_shared and namespace == PUBLIC:
            return FeedLane(namespace, owner, is_of_owner=True)
        return FeedLane(namespace)

    def hint(self, changes: Sequence[Change]) -> None:
        """Note that these changes were committed."""
        for change in changes:
            owner = change.owner if isinstance(change, Upserted) else None
            self._pending[self.lane(change.namespace, owner)] = change.sequence
        if changes:
            self._latest = max(self._latest, changes[-1].sequence)
            self.on_progress(self.behind)
            self._arrived.set()

    def has(self, lane: FeedLane, sequence: int) -> bool:
        """Return whether the changes of a lane up to this one are applied."""
        return sequence <= max(self.sequence, self._ahead.get(lane, 0))

    def found_damage(self) -> None:
        """Note that the file is damaged: it is made anew."""
        self._must_reset = True
        self._is_level = False
        self._arrived.set()

    async def reached(self, within_s: float, lane: FeedLane | None = None) -> None:
        """Wait until every change of a lane, or of all, that was committed before this call is applied.

        Raises IndexUnavailable.
        """
        wanted = self._latest if lane is None else self._pending.get(lane, 0)
        with trio.move_on_after(within_s):
            while not self._is_level or (self.sequence < wanted and (lane is None or not self.has(lane, wanted))):
                if lane is not None:
                    self._wanted[lane] = None
                self._awaited.set()
                await self._progress.wait()
            return
        raise IndexUnavailable(f"the {self._derived.name} of this node are being built")

    async def run(self, ready: Callable[[], None]) -> None:
        """Follow until cancelled."""
        ready()
        opened = False
        while True:
            try:
                if not opened:
                    self.sequence = await self._derived.open()
                    opened = True
                await self._follow()
            except (sqlite3.Error, OSError, TruthUnavailable, EmbedderUnavailable) as error:
                self._is_level = False
                if isinstance(error, sqlite3.Error) and code_of(error) in DAMAGED:
                    self._must_reset = True
                what, wait_s = self._derived.name, self._wait_s
                _log.warning("derived_not_followed", what=what, reason=str(error), again_in_s=wait_s)
                await trio.sleep(wait_s)
                self._wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _follow(self) -> None:
        while True:
            if self._must_reset:
                await self._derived.reset()
                self.sequence, self._must_reset = 0, False
                self._ahead.clear()
                _log.warning("derived_made_anew", what=self._derived.name)
            if self.sequence < (pruned_to := self._truth.pruned_to) and self._mended_to < pruned_to:
                self.sequence = await self._derived.missed(self._truth)
                self._mended_to = pruned_to
                self._ahead.clear()
            self._arrived = trio.Event()
            for lane in self._next_lanes():
                await self._apply(lane)
            if not await self._apply(None):
                self._is_level = not self._must_reset
                await self._pause()

    def _next_lanes(self) -> list[FeedLane]:
        """Return the lanes that go before the others: those that are waited for, or else the next in turn."""
        wanted = [lane for lane in self._wanted if lane in self._pending]
        self._wanted.clear()
        if wanted or not self._derived.is_shared or len(self._pending) <= 1:
            return wanted
        lane = next(iter(self._pending))
        self._pending[lane] = self._pending.pop(lane)
        return [lane]

    async def _apply(self, lane: FeedLane | None) -> bool:
        """Apply the next changes of a lane, or of all; return whether there were any."""
        after = self.sequence if lane is None else max(self.sequence, self._ahead.get(lane, 0))
        wanted = None if lane is None else self._pending.get(lane)
        limit, most_chars = self._derived.batch, self._derived.most_chars
        changes = await self._truth.read(lambda held: feed.since(held, after, limit, most_chars, lane))
        if changes:
            last = changes[-1].sequence
            todo = [change for change in changes if change.sequence > self._ahead.get(self._lane_of(change), 0)]
            await self._derived.apply(todo, last if lane is None else self.sequence)
            if lane is None:
                self.sequence = last
            else:
                self._ahead[lane] = last
        elif lane is not None and self._pending.get(lane) == wanted:  # nothing is left of what was stored
            del self._pending[lane]
        for each in [each for each, latest in self._pending.items() if self.has(each, latest)]:
            del self._pending[each]
        for each in [each for each, applied in self._ahead.items() if applied <= self.sequence]:
            del self._ahead[each]
        self._wait_s = _FIRST_WAIT_S
        self.on_progress(self.behind)
        self._progress.set()
        self._progress = trio.Event()
        return bool(changes)

    def _lane_of(self, change: Fed) -> FeedLane:
        return self.lane(change.namespace, change.owner if isinstance(change, TextStored) else None)

    async def _pause(self) -> None:
        """Return when there is something to do."""
        is_clean = False
        while not self._arrived.is_set():
            with trio.move_on_after(math.inf if is_clean else _QUIET_S) as quiet:
                await self._arrived.wait()
            left: Cleared = "more" if quiet.cancelled_caught else "later"
            while left == "more" and not self._arrived.is_set():
                left = await self._derived.clear()
            is_clean = left == "done"
        if not self._awaited.is_set():
            with trio.move_on_after(_GATHERED_S):
                await self._awaited.wait()
        self._awaited = trio.Event()
