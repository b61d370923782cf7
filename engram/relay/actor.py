"""relay_emitter: works the outbox off, each stream in its order, streams beside each other, at its own pace.

The sending goes on beside the mailbox, so that a hanging receiver does not delay status requests.
"""

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Final, Protocol, assert_never, final

import msgspec
import structlog
import trio
from sqlalchemy import Connection

from actors import Actor, Context, ExitReason, MailboxPolicy
from engram import kill_points
from engram.clock import Clock
from engram.ledger import Ledger, owners
from engram.ledger.singletons import wait_for_turn
from engram.relay import records
from engram.relay.finality import FinalBlocks, Finality, FinalityGuard
from engram.relay.model import Entry, EntryState, Outcome, RelayStatus
from engram.relay.negotiation import NotKnown, Terms
from engram.relay.protocol import GetRelayStatus, OutboxGrew
from engram.relay.rounds import RoundLosses
from engram.relay.rules import (
    GAP,
    Blame,
    Decision,
    Door,
    RetryPolicy,
    after,
    blame,
    decide,
    describe,
    is_refusal,
    log_status,
    shut,
)
from engram.relay.signer import Keyring, Signed
from engram.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

RELAY_EMITTER: Final = "relay_emitter"
"""Its registered name."""
REREAD_S = 15.0
"""The outbox is read again after this at the latest, hint or not."""
PURGE_S = 3_600.0
FINALITY_LOOK_S = 2.0
"""A sixth of a block's time; the heads are remembered for as long."""
TERMS_KEPT_S = 3_600.0
"""For so long what a receiver takes is not asked again, unless it refuses a payload."""
TERMS_AGAIN_S = 60.0
REFUSALS_COME_FROM: Final = "relay.url, relay.original_receiver and the receiver's own settings"
REPEATS_MOST = 6
"""Of what was acknowledged, after a failure: their number varies, for receivers whose servers take turns."""
REPEATS_WITHIN_S = 10.0
"""For those after the first; fewer than wanted by then tell nothing."""
SET_BACK_S = 1.0
"""A wall clock that went back by less is let be."""
ALERT_AFTER = 3
"""Failures in a row from which on each is logged as an error."""


class Submits(Protocol):
    """The port to the receiver."""

    async def submit(self, signed: Signed) -> Outcome:
        """Send once, within its own deadline; never raises."""
        ...


class EmitterPorts(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of the emitter."""

    ledger: Ledger
    receiver: Submits | None
    """None: nothing is sent."""
    keyring: Keyring
    """Signs each payload as the signer of its stream."""
    policy: RetryPolicy
    clock: Clock
    rng: Random
    metrics: Metrics
    losses: RoundLosses
    concurrency: int = 8
    """Streams that are sent at once."""
    guard: FinalityGuard | None = None
    """Holds payloads back until their block is final; None: there is no chain to ask."""
    ask_terms: Callable[[bool], Awaitable[Terms | NotKnown]] | None = None
    """Asks the receiver what it takes, given whether it has negotiated before; None: payloads leave as they were
    queued."""
    acknowledged_by: Callable[[], str] = lambda: ""
    """The key (ss58) that signed the last acknowledgement."""
    receiver_pinned: bool = False
    """Whether acknowledgements by one key alone count."""
    destination: str = ""
    """Names the receiver over restarts: its URL."""
    log_kept_s: float = records.LOG_KEPT_S
    """For so long the log of all attempts is kept."""
    settled: Callable[[Entry], None] = lambda entry: None
    """Called after the commit that has an entry delivered."""


@final
class RelayEmitter(Actor[OutboxGrew | GetRelayStatus]):
    """Off (and only telling how the outbox stands) while there is no receiver."""

    mailbox = MailboxPolicy(bound=64, when_full="drop_newest")

    def __init__(self, ports: EmitterPorts) -> None:
        self._ledger = ports.ledger
        self._receiver = ports.receiver
        self._keyring = ports.keyring
        self._policy = ports.policy
        self._clock = ports.clock
        self._rng = ports.rng
        self._metrics = ports.metrics
        self._losses = ports.losses
        self._guard = ports.guard
        self._final = FinalBlocks()
        self._ask_terms = ports.ask_terms
        self._destination = ports.destination
        self._acknowledged_by = ports.acknowledged_by
        self._receiver_pinned = ports.receiver_pinned
        self._negotiates: bool | None = None
        """Whether the receiver has negotiated; None until that was read from the ledger."""
        self._settled = ports.settled
        self._log_kept_s = ports.log_kept_s
        self._terms: Terms | None = None
        self._terms_until = 0.0
        """On the monotonic clock; what the receiver takes is asked again then."""
        self._concurrency = ports.concurrency
        self._grew = trio.Event()
        self._under_way = 0
        """Streams that are being sent."""
        self._idle = trio.Event()
        self._door = Door()
        self._well: set[int] = set()
        """Streams to the last payload of which the receiver gave an answer that does not refuse them."""
        self._acknowledged: Signed | None = None
        """What this receiver has acknowledged last."""
        self._passed = 0
        """Deliveries, and repeats that were acknowledged again."""
        self._failing: dict[int, tuple[int, int]] = {}
        """Streams whose last attempt failed: how often in a row, and what had passed by then."""
        self._refused: dict[int, tuple[str, str]] = {}
        """Streams that are refused while others are not: why, and their names."""
        self._stopping = False
        self._failures_in_a_row = 0
        self._wall_ahead_s = ports.clock.now() - ports.clock.monotonic()
        """Of the monotonic clock, in seconds."""

    async def on_start(self, context: Context) -> None:
        self._context = context
        self._metrics.relay_failures_in_a_row.set(self._failures_in_a_row)
        self._metrics.relay_held_back.set(not self._door.is_open)
        if self._receiver is not None:
            context.start_soon(self._work, self._receiver)

    async def on_stop(self, reason: ExitReason) -> None:
        """Let attempts under way end, within the shutdown time, so that their outcome is known."""
        self._stopping = True
        while self._under_way:
            self._idle = trio.Event()
            await self._idle.wait()

    async def handle(self, message: OutboxGrew | GetRelayStatus) -> RelayStatus | None:
        match message:
            case OutboxGrew():
                self._grew.set()
                return None
            case GetRelayStatus():
                return await self._status()
            case _:
                assert_never(message)

    async def _status(self) -> RelayStatus:
        enabled, failures = self._receiver is not None, self._failures_in_a_row
        held = [f"stream {name}: {reason}" for reason, name in self._refused.values()]
        not_queued, held_back = self._losses.payloads, self._door.reason or "; ".join(held)
        acknowledged_by = self._acknowledged_by()
        return await self._ledger.read(
            lambda connection: records.status(
                connection,
                acknowledged_by=acknowledged_by,
                receiver_pinned=self._receiver_pinned,
                enabled=enabled,
                failures_in_a_row=failures,
                not_queued=not_queued,
                held_back=held_back,
            )
        )

    async def _work(self, receiver: Submits) -> None:
        await wait_for_turn(self._ledger, RELAY_EMITTER)  # the outbox is one, and each of its streams has an order
        await self._settle_interrupted()
        await self._purge()
        self._context.start_soon(self._purge_for_ever)
        while not self._stopping:
            self._grew = trio.Event()
            await self._follow_the_wall()
            if (wait_s := self._shut_s()) > 0:
                await trio.sleep(wait_s)  # what came next would meet the same closed door: hints change nothing
                continue
            room = self._concurrency - self._under_way if self._door.is_open else 1 - self._under_way
            if room <= 0:
                await self._grew.wait()
                continue
            if not await self._negotiate():
                continue
            repeated = self._acknowledged if self._negotiates and self._door.is_doubted else None
            if repeated is not None and self._door.repeats_first:
                await self._repeat(receiver, repeated)
                continue
            entries, held, due_at = await self._claim(room)
            for entry in entries:
                self._under_way += 1
                self._context.start_soon(self._deliver, receiver, entry)
            if held and self._guard is not None:
                await self._look(self._guard, held)
            elif repeated is not None and not entries:
                await self._repeat(receiver, repeated)
            elif len(entries) < room:
                await self._wait_for_work(due_at)

    async def _follow_the_wall(self) -> None:
        """Bring forward what waits where the wall clock was set back, by as much; streams wait by it."""
        ahead_s = self._clock.now() - self._clock.monotonic()
        back_s, self._wall_ahead_s = self._wall_ahead_s - ahead_s, ahead_s
        if back_s > SET_BACK_S:
            log.warning("relay wall clock was set back", seconds=round(back_s))
            await self._ledger.write(lambda c: records.bring_forward(c, back_s))

    def _shut_s(self) -> float:
        """Seconds until the next entry may be tried; 0 when it may be now."""
        return 0.0 if self._door.is_open else max(0.0, self._door.opens_at - self._clock.monotonic())

    async def _deliver(self, receiver: Submits, first: Entry) -> None:
        """Send an entry, and after it what is next, until nothing is."""
        entry: Entry | None = first
        try:
            while entry is not None:
                await owners.until_held(self._ledger)
                kill_points.point("relay:before")
                began = trio.current_time()
                outcome = await receiver.submit(Signed(entry.signed or b"", entry.signed_hash or ""))
                self._metrics.relay_send_seconds.observe(trio.current_time() - began)
                kill_points.point("relay:after")
                entry = await self._settle(entry, outcome)
        finally:
            self._under_way -= 1
            self._grew.set()
            self._idle.set()

    async def _negotiate(self) -> bool:
        """Return whether it is known what the receiver takes; ask it where that was not asked for an hour."""
        if self._ask_terms is None or self._clock.monotonic() < self._terms_until:
            return True
        if self._negotiates is None:
            self._negotiates = await self._ledger.read(lambda c: records.has_negotiated(c, self._destination))
            if self._negotiates:  # else what was delivered last may have been taken by another one
                self._acknowledged = await self._ledger.read(records.last_delivered)
        found = await self._ask_terms(self._negotiates)
        if isinstance(found, Terms):
            if found.negotiated is not self._negotiates:
                await self._ledger.write(lambda c: records.note_negotiated(c, self._destination, found.negotiated))
                self._negotiates = found.negotiated
            if found != self._terms:
                log.info("relay receiver takes", schemas=msgspec.to_builtins(found.takes), said=found.negotiated)
            self._terms, self._terms_until = found, self._clock.monotonic() + TERMS_KEPT_S
            return True
        if self._terms is not None:  # what it said before holds until it says something else
            self._terms_until = self._clock.monotonic() + TERMS_AGAIN_S
            log.warning("relay receiver does not say what it takes", reason=describe(found.outcome))
            return True
        self._count_failure()
        now_s = self._clock.monotonic()
        self._hold_back(shut(self._door, found.outcome, now_s, self._policy, self._rng), found.outcome)
        return False

    async def _repeat(self, receiver: Submits, acknowledged: Signed) -> None:
        """Give a doubted receiver again what it has acknowledged, which changes nothing, to learn how it is.

        Others pass only where all of several repeats do; their number is random. Were one given each time, the dead one
        of two servers that take turns would meet every attempt, and the other one every repeat.
        """
        outcome = await receiver.submit(acknowledged)
        if blame(outcome) is Blame.NOTHING:
            wanted, passed = self._rng.randrange(REPEATS_MOST), 0
            with trio.move_on_after(REPEATS_WITHIN_S):  # what comes meanwhile waits
                for _ in range(wanted):
                    passed += blame(await receiver.submit(acknowledged)) is Blame.NOTHING
            self._passed += passed == wanted
            self._hold_back(Door(), outcome)
            return
        self._count_failure()
        self._hold_back(shut(self._door, outcome, self._clock.monotonic(), self._policy, self._rng), outcome)
        self._tell_failure("relay receiver is down", reason=describe(outcome))

    async def _claim(self, room: int) -> tuple[list[Entry], list[Entry], float | None]:
        """Claim at most `room` entries that may be sent; return as well those that are due and whose blocks are to be
        looked at first, and when the next may be due."""
        now = self._clock.now()
        unsent: list[Entry] = []

        def claim(connection: Connection) -> tuple[list[Entry], list[Entry], float | None]:
            unsent.clear()
            entries = self._claimed(connection, now, room, unsent)
            left = room - len(entries)
            held = records.due(connection, now, left) if self._guard is not None and left > 0 else []
            return entries, held, records.next_attempt_at(connection)

        found = await self._ledger.write(claim)
        self._note_unsent(unsent)
        return found

    def _claimed(self, connection: Connection, now: float, room: int, unsent: list[Entry]) -> list[Entry]:
        return records.claim(
            connection,
            now,
            self._keyring.sign,
            room=room,
            may_leave=self._may_leave,
            terms=self._terms,
            unsent=unsent.append,
        )

    def _may_leave(self, entry: Entry) -> bool:
        return self._guard is None or self._final.holds(entry.block, entry.block_hash)

    async def _look(self, guard: FinalityGuard, held: Sequence[Entry]) -> None:
        """Ask for the blocks of entries, once for each; withdraw or postpone those of blocks that are not final."""
        by_block: dict[tuple[int, bytes | None], list[Entry]] = {}
        for entry in held:
            by_block.setdefault((entry.block, entry.block_hash), []).append(entry)

        async def look(block: int, block_hash: bytes | None, entries: Sequence[Entry]) -> None:
            found, now = await guard(block, block_hash), self._clock.now()
            match found:
                case Finality.FINAL:
                    self._final.add(block, block_hash)
                case Finality.REORGANIZED:
                    reason = f"block {block} became another one"
                    withdrawn = await self._ledger.write(
                        lambda c: [records.withdraw(c, entry, reason, now) for entry in entries]
                    )
                    self._note_unsent([entry for entry in withdrawn if entry is not None])
                case Finality.AWAITED:
                    again = now + FINALITY_LOOK_S
                    await self._ledger.write(lambda c: records.postpone(c, entries, again))

        async with trio.open_nursery() as nursery:
            for (block, block_hash), entries in by_block.items():
                nursery.start_soon(look, block, block_hash, entries)

    async def _settle_interrupted(self) -> None:
        now = self._clock.now()
        heir = self._keyring.heir

        def settle(connection: Connection) -> list[tuple[Entry, Decision]]:
            if heir:
                records.adopt(connection, heir)
            records.end_long_waits(connection, now, self._policy.backoff_max_s)
            return records.interrupted(connection, lambda entry, outcome: self._decide(entry, outcome, now), now)

        if found := await self._ledger.write(settle):
            log.warning("relay attempts of unknown outcome will be repeated", entries=len(found))

    async def _purge_for_ever(self) -> None:
        while True:
            await trio.sleep(PURGE_S)
            await self._purge()

    async def _purge(self) -> None:
        """Forget what is old, in batches that hold up no other write for long."""
        now = self._clock.now()
        while await self._ledger.write(lambda c: records.purge(c, now, self._log_kept_s)) == records.PURGED_AT_ONCE:
            await trio.lowlevel.checkpoint()

    async def _settle(self, entry: Entry, outcome: Outcome) -> Entry | None:
        """Write the outcome of an attempt; return what is to be sent next, claimed in the same transaction."""
        now = self._clock.now()
        is_alone = is_refusal(outcome) and bool(self._well - {entry.stream_id})
        refused = ""
        decision = self._decide(entry, outcome, now)
        goes_on = self._after(outcome, is_alone).is_open and not self._stopping
        unsent: list[Entry] = []

        def settle(connection: Connection) -> Entry | None:
            nonlocal refused
            records.settle(connection, entry, outcome, decision, now)
            refused = records.stream_name(connection, entry.stream_id) if is_alone else ""
            if not goes_on:
                return None
            unsent.clear()
            return next(iter(self._claimed(connection, now, 1, unsent)), None)

        following = await self._ledger.write(settle)
        self._note_unsent(unsent)
        self._metrics.relay_sends.labels(log_status(outcome)).inc()
        delivered = decision.state is EntryState.DELIVERED
        if delivered:
            self._acknowledged = Signed(entry.signed or b"", entry.signed_hash or "")
            self._passed += 1
            self._failures_in_a_row = 0
            self._metrics.relay_failures_in_a_row.set(0)
            self._metrics.relay_lag_seconds.observe(max(0.0, now - entry.created_at))
            self._settled(entry)
        else:
            self._count_failure()
        self._note_stream(entry.stream_id, outcome, decision, refused)
        self._hold_back(self._after(outcome, is_alone), outcome)
        if blame(outcome) is Blame.PAYLOAD:
            self._terms_until = 0.0  # it may take other schemas by now
        if decision.state is EntryState.ABANDONED:
            log.error("relay entry abandoned", entry=entry.id, attempts=entry.attempts, reason=decision.reason)
        elif not delivered:
            self._tell_failure("relay attempt failed", entry=entry.id, attempt=entry.attempts, reason=decision.reason)
        return following

    def _note_unsent(self, entries: Sequence[Entry]) -> None:
        """Log and count entries that left the outbox without having been sent."""
        for entry in entries:
            if entry.state is EntryState.WITHDRAWN:
                self._metrics.relay_withdrawn.inc()
            else:
                self._terms_until = 0.0  # it may take other schemas by now
            log.error("relay payload not sent", entry=entry.id, state=str(entry.state), reason=entry.last_reason)

    def _note_stream(self, stream: int, outcome: Outcome, decision: Decision, refused: str) -> None:
        """Note how a stream does; `refused` is its name where the receiver refuses it alone."""
        if decision.state is EntryState.PENDING:
            self._failing[stream] = self._failing.get(stream, (0, 0))[0] + 1, self._passed
        else:
            self._failing.pop(stream, None)
        if is_refusal(outcome):
            self._well.discard(stream)
        elif blame(outcome) in (Blame.NOTHING, Blame.PAYLOAD):
            self._well.add(stream)
            self._refused.pop(stream, None)
        if refused:
            if stream not in self._refused:
                log.error("relay stream refused", stream=refused, reason=decision.reason, see=REFUSALS_COME_FROM)
            self._refused[stream] = decision.reason, refused

    def _tell_failure(self, event: str, **values: object) -> None:
        (log.error if self._failures_in_a_row >= ALERT_AFTER else log.warning)(event, **values)

    def _count_failure(self) -> None:
        self._failures_in_a_row += 1
        self._metrics.relay_failures_in_a_row.set(self._failures_in_a_row)

    def _after(self, outcome: Outcome, is_alone: bool) -> Door:
        """Return the door after an outcome, of one stream alone or not."""
        return self._door if is_alone else after(self._door, outcome, self._clock.monotonic(), self._policy, self._rng)

    def _hold_back(self, door: Door, outcome: Outcome) -> None:
        was, self._door = self._door, door
        self._metrics.relay_held_back.set(bool(self._refused) or not door.is_open)
        if (was.is_open or was.is_doubted) and not door.is_open and not door.is_doubted and is_refusal(outcome):
            log.error("relay receiver refuses", reason=door.reason, see=REFUSALS_COME_FROM)

    async def _wait_for_work(self, due_at: float | None) -> None:
        wait_s = REREAD_S if due_at is None else min(REREAD_S, max(0.1, due_at - self._clock.now()))
        with trio.move_on_after(wait_s):
            await self._grew.wait()

    def _decide(self, entry: Entry, outcome: Outcome, now: float) -> Decision:
        failures, passed = self._failing.get(entry.stream_id, (0, self._passed))
        others_pass = passed < self._passed and entry.kind != GAP
        return decide(entry.attempts, outcome, now, self._policy, self._rng, failures, others_pass=others_pass)
