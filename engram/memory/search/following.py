"""Follows the truth with something derived from its texts, behind the acknowledgement of a write.

| state | what happens |
|---|---|
| opening | the derived file says up to which change it goes; a new or strange one begins at 0 |
| behind | changes are read from the truth in order and applied, each with the number up to which it then goes |
| level | waits for commits, and clears what was deleted once there were none for a second |
| failed | disk full, embedder down: tries again after 5 s to 5 min; a damaged file is made anew |

Nothing here holds a fact: a crash at any point resumes after the last applied change. The list of deletions is kept
until they were followed, unless that falls very far behind; then `missed` brings the derived file back in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Protocol, final

import structlog
import trio

from engram.durable.driver import code_of, sqlite3
from engram.memory.errors import EmbedderUnavailable, IndexUnavailable, TruthUnavailable
from engram.memory.model import Change
from engram.memory.search import feed
from engram.memory.search.derived_file import DAMAGED
from engram.memory.search.feed import Fed
from engram.memory.store.record_db import Truth

MOST_KEPT: Final = 100_000
"""Changes behind which deletions are no longer kept for what follows."""
_GATHERED_S: Final = 0.05
"""Commits are gathered for so long while nobody waits for them."""
_QUIET_S: Final = 1.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 300.0

_log = structlog.get_logger("engram.memory")


class Derived(Protocol):
    """Something that can be built again from the texts of the truth."""

    name: str
    batch: int
    """The most changes applied at once."""

    async def open(self) -> int:
        """Open it; return the last change that it has. Raises sqlite3.Error, OSError."""
        ...

    async def apply(self, changes: Sequence[Fed], sequence: int) -> None:
        """Make changes, the last of which is `sequence`. Raises sqlite3.Error, EmbedderUnavailable."""
        ...

    async def missed(self, truth: Truth) -> int:
        """Make up for deletions that are no longer listed; return the change to go on after."""
        ...

    async def reset(self) -> None:
        """Forget everything."""
        ...

    async def clear(self) -> bool:
        """Remove what was deleted from its files, if there is any; False when that must be tried again."""
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

    def hint(self, changes: Sequence[Change]) -> None:
        """Note that these changes were committed."""
        if changes:
            self._latest = max(self._latest, changes[-1].sequence)
            self.on_progress(self.behind)
            self._arrived.set()

    def found_damage(self) -> None:
        """Note that the file is damaged: it is made anew."""
        self._must_reset = True
        self._is_level = False
        self._arrived.set()

    async def reached(self, within_s: float) -> None:
        """Wait until every change that was committed before this call is applied. Raises IndexUnavailable."""
        wanted = self._latest
        with trio.move_on_after(within_s):
            while not self._is_level or self.sequence < wanted:
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
                _log.warning("derived_made_anew", what=self._derived.name)
            if self.sequence < (pruned_to := self._truth.pruned_to) and self._mended_to < pruned_to:
                self.sequence = await self._derived.missed(self._truth)
                self._mended_to = pruned_to
            self._arrived = trio.Event()
            changes = await self._truth.read(lambda held: feed.since(held, self.sequence, self._derived.batch))
            if changes:
                await self._derived.apply(changes, changes[-1].sequence)
                self.sequence = changes[-1].sequence
            else:
                self._is_level = not self._must_reset
            self._wait_s = _FIRST_WAIT_S
            self.on_progress(self.behind)
            self._progress.set()
            self._progress = trio.Event()
            if not changes:
                await self._pause()

    async def _pause(self) -> None:
        """Return when there is something to do."""
        is_clean = False
        while not self._arrived.is_set():
            with trio.move_on_after(math.inf if is_clean else _QUIET_S) as quiet:
                await self._arrived.wait()
            if quiet.cancelled_caught:
                is_clean = await self._derived.clear()
        if not self._awaited.is_set():
            with trio.move_on_after(_GATHERED_S):
                await self._awaited.wait()
        self._awaited = trio.Event()
