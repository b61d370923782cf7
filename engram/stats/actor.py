"""The stats poller: asks every running node how it is, again and again, and says when one stops answering."""

import heapq
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import final

import msgspec
import structlog
import trio

from actors import Actor, Context, MailboxPolicy
from config.model import StatsSettings
from engram.api.node_model import NodeStats
from engram.hints import Hints
from engram.http.errors import HttpError
from engram.ledger import Ledger, LedgerError
from engram.sessions import Instants, SessionEvent
from engram.sessions import records as session_records
from engram.stats import records, rules
from engram.stats.model import PollTarget
from engram.stats.protocol import RereadSessions, StatsMessage
from engram.stats.rules import Verdict
from engram.stats.view import StatsView
from engram.telemetry.metrics import Metrics

REREAD_S = 10.0
TICK_S = 0.05
"""Polls that fall due within a tick start together: a third of the wake-ups of a timer each."""

_log = structlog.get_logger("engram.stats")

Ask = Callable[[str], Awaitable[NodeStats]]
"""Endpoint -> stats; raises HttpError."""
Prove = Callable[[str, bytes, int], Awaitable[bool | None]]
"""(endpoint, the node's public key, its public records) -> whether it met a challenge, None when that is not known;
raises no HttpError."""


class StatsPorts(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of the poller."""

    ledger: Ledger
    ask: Ask
    view: StatsView
    instants: Instants
    settings: StatsSettings
    rng: random.Random
    hints: Hints
    metrics: Metrics
    prove: Prove | None = None
    """Challenges a node now and then."""
    block: Callable[[], int | None] = lambda: None
    """Stands in for a node that knows of no chain."""


class _Watched:
    """A session that is polled."""

    __slots__ = ("challenged", "degraded", "endpoint", "failures", "gone", "hotkey", "polls", "proved", "session_id")

    def __init__(self, target: PollTarget) -> None:
        self.session_id = target.session_id
        self.endpoint = target.endpoint
        self.degraded = target.degraded
        self.failures = 0
        self.gone = False
        self.hotkey = target.hotkey
        self.polls = rules.PROVE_EVERY
        """Since it was challenged last."""
        self.challenged = self.proved = 0
        """Challenges that were answered, and those that were met."""


class _News(msgspec.Struct, frozen=True):
    fresh: list[PollTarget]
    """Not watched yet, or at another address."""
    changed: list[PollTarget]
    """In another state than we know."""
    gone: list[str]


def _compare(found: list[PollTarget], watched: Mapping[str, _Watched]) -> _News:
    fresh, changed = [], []
    for target in found:
        known = watched.get(target.session_id)
        if known is None or known.endpoint != target.endpoint:
            fresh.append(target)
        elif known.degraded != target.degraded:
            changed.append(target)
    return _News(fresh, changed, list(watched.keys() - {target.session_id for target in found}))


@final
class StatsPoller(Actor[StatsMessage]):
    """Polls; keeps answers in the view. A failing node changes its session's state, nothing else."""

    mailbox = MailboxPolicy(bound=64, when_full="drop_newest")

    def __init__(self, ports: StatsPorts) -> None:
        self._ledger = ports.ledger
        self._ask = ports.ask
        self._view = ports.view
        self._instants = ports.instants
        self._settings = ports.settings
        self._rng = ports.rng
        self._hints = ports.hints
        self._metrics = ports.metrics
        self._prove = ports.prove
        self._block = ports.block
        self._watched: dict[str, _Watched] = {}
        self._due: list[tuple[float, int, _Watched]] = []
        self._serial = 0
        self._room = trio.Semaphore(ports.settings.concurrency)
        self.polls = 0

    async def on_start(self, context: Context) -> None:
        await self._reread(at_boot=True)
        context.every(REREAD_S, RereadSessions(), jitter=0.1)
        context.start_soon(self._poll_for_ever)

    async def handle(self, message: StatsMessage) -> None:
        await self._reread_quietly()

    async def _reread_quietly(self) -> None:
        try:
            await self._reread(at_boot=False)
        except LedgerError as error:
            _log.error("targets_not_read", reason=str(error))

    async def _reread(self, *, at_boot: bool) -> None:
        # Compared with what is watched where it is read, off the loop: only this method changes the table.
        news = await self._ledger.read(lambda connection: _compare(records.targets(connection), self._watched))
        for target in news.fresh:
            former = self._watched.get(target.session_id)
            if former is not None:
                former.gone = True
            watched = self._watched[target.session_id] = _Watched(target)
            roll = self._rng.random()
            self._schedule(watched, rules.first_poll_s(self._settings.interval_s, roll, at_boot=at_boot))
        for target in news.changed:
            self._watched[target.session_id].degraded = target.degraded
        for session_id in news.gone:
            self._watched.pop(session_id).gone = True
            self._view.forget(session_id)

    def _schedule(self, watched: _Watched, delay_s: float) -> None:
        self._serial += 1
        heapq.heappush(self._due, (trio.current_time() + delay_s, self._serial, watched))

    async def _poll_for_ever(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                if self._view.take_outdated():
                    await self._reread_quietly()
                while self._due and self._due[0][0] <= trio.current_time():
                    watched = heapq.heappop(self._due)[2]
                    if not watched.gone:
                        await self._room.acquire()
                        nursery.start_soon(self._poll, watched)
                await trio.sleep(TICK_S)

    async def _poll(self, watched: _Watched) -> None:
        began = trio.current_time()
        try:
            stats = await self._completed(watched, await self._ask(watched.endpoint))
        except HttpError as error:
            watched.failures += 1
            answered = False
            _log.debug("node_silent", session=watched.session_id, failures=watched.failures, reason=str(error))
        else:
            watched.failures = 0
            answered = True
            if not watched.gone:
                self._view.put(watched.session_id, stats)
                self._hints.node_observed(watched.session_id)
        finally:
            self._room.release()
        self.polls += 1
        self._metrics.polls.labels("answered" if answered else "failed").inc()
        self._metrics.poll_seconds.observe(trio.current_time() - began)
        if watched.gone:
            return
        wait_s = rules.next_poll_s(self._settings.interval_s, self._settings.jitter, self._rng.random())
        self._schedule(watched, wait_s)
        await self._conclude(watched, answered)

    async def _completed(self, watched: _Watched, stats: NodeStats) -> NodeStats:
        """Return the node's stats with what it does not know of itself, or is better found out by asking."""
        if self._prove is not None and watched.hotkey and rules.proof_is_due(watched.polls, stats.vectors):
            watched.polls = 0
            proved = await self._prove(watched.endpoint, watched.hotkey, stats.vectors)
            if proved is not None:
                watched.challenged += 1
                watched.proved += proved
        watched.polls += 1
        return msgspec.structs.replace(
            stats,
            proof_rate=round(watched.proved / watched.challenged, 6) if watched.challenged else stats.proof_rate,
            block=self._block() if stats.block is None else stats.block,
        )

    async def _conclude(self, watched: _Watched, answered: bool) -> None:
        found = rules.verdict(
            answered=answered,
            failures=watched.failures,
            degraded=watched.degraded,
            limit=self._settings.failures_to_degraded,
        )
        match found:
            case Verdict.NOTHING:
                return
            case Verdict.DEGRADE:
                await self._transition(watched, SessionEvent.DEGRADE, degraded=True)
                self._hints.session_changed(watched.session_id)
            case Verdict.REMIND:
                self._hints.session_changed(watched.session_id)
            case Verdict.RECOVER:
                await self._transition(watched, SessionEvent.RECOVER, degraded=False)

    async def _transition(self, watched: _Watched, event: SessionEvent, *, degraded: bool) -> None:
        now = self._instants.now()
        try:
            won = await self._ledger.write(
                lambda connection: session_records.transition(connection, watched.session_id, event, now)
            )
        except LedgerError as error:
            _log.error("state_not_written", session=watched.session_id, reason=str(error))
            return
        watched.degraded = degraded
        if won is not None:
            self._hints.node_turned(watched.session_id)
