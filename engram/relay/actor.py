"""relay_emitter: works the outbox off, each stream in its order, streams beside each other, at its own pace.

The sending goes on beside the mailbox, so that a hanging receiver does not delay status requests.
"""

from random import Random
from typing import Final, Protocol, assert_never, final

import msgspec
import structlog
import trio

from actors import Actor, Context, ExitReason, MailboxPolicy
from engram import kill_points
from engram.clock import Clock
from engram.ledger import Ledger
from engram.relay import records
from engram.relay.finality import Finality, FinalityGuard
from engram.relay.model import Entry, EntryState, Outcome, RelayStatus, Unreachable
from engram.relay.protocol import GetRelayStatus, OutboxGrew
from engram.relay.rounds import RoundLosses
from engram.relay.rules import Decision, Door, RetryPolicy, after, decide, describe, log_status
from engram.relay.signer import PayloadSigner, Signed
from engram.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

RELAY_EMITTER: Final = "relay_emitter"
"""Its registered name."""
REREAD_S = 15.0
"""The outbox is read again after this at the latest, hint or not."""
PURGE_S = 3_600.0
FINALITY_LOOK_S = 6.0
"""Half a block's time."""
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
    signer: PayloadSigner
    policy: RetryPolicy
    clock: Clock
    rng: Random
    metrics: Metrics
    losses: RoundLosses
    concurrency: int = 8
    """Streams that are sent at once."""
    guard: FinalityGuard | None = None
    """Holds payloads back until their block is final; None: there is no chain to ask."""


@final
class RelayEmitter(Actor[OutboxGrew | GetRelayStatus]):
    """Off (and only telling how the outbox stands) while there is no receiver."""

    mailbox = MailboxPolicy(bound=64, when_full="drop_newest")

    def __init__(self, ports: EmitterPorts) -> None:
        self._ledger = ports.ledger
        self._receiver = ports.receiver
        self._signer = ports.signer
        self._policy = ports.policy
        self._clock = ports.clock
        self._rng = ports.rng
        self._metrics = ports.metrics
        self._losses = ports.losses
        self._guard = ports.guard
        self._room = trio.CapacityLimiter(ports.concurrency)
        self._grew = trio.Event()
        self._busy: set[int] = set()
        """Streams with an entry under way."""
        self._idle = trio.Event()
        self._door = Door()
        self._stopping = False
        self._failures_in_a_row = 0

    async def on_start(self, context: Context) -> None:
        self._context = context
        if self._receiver is not None:
            context.start_soon(self._work, self._receiver)

    async def on_stop(self, reason: ExitReason) -> None:
        """Let attempts under way end, within the shutdown time, so that their outcome is known."""
        self._stopping = True
        while self._busy:
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
        not_queued, held_back = self._losses.payloads, self._door.reason
        return await self._ledger.read(
            lambda connection: records.status(
                connection,
                enabled=enabled,
                failures_in_a_row=failures,
                not_queued=not_queued,
                held_back=held_back,
            )
        )

    async def _work(self, receiver: Submits) -> None:
        await self._settle_interrupted()
        await self._purge()
        self._context.start_soon(self._purge_for_ever)
        while not self._stopping:
            self._grew = trio.Event()
            if (wait_s := self._shut_s()) > 0:
                await trio.sleep(wait_s)  # what came next would meet the same closed door: hints change nothing
                continue
            if not self._door.is_open and self._busy:
                await self._wait_for_work()
                continue
            await self._room.acquire_on_behalf_of(turn := object())
            entry = await self._claim()
            if entry is None:
                self._room.release_on_behalf_of(turn)
                await self._wait_for_work()
                continue
            self._context.start_soon(self._attempt, receiver, entry, turn)

    def _shut_s(self) -> float:
        """Seconds until the next entry may be tried; 0 when it may be now."""
        return 0.0 if self._door.is_open else max(0.0, self._door.opens_at - self._clock.now())

    async def _attempt(self, receiver: Submits, entry: Entry, turn: object) -> None:
        try:
            kill_points.point("relay:before")
            outcome = await receiver.submit(Signed(entry.signed or b"", entry.signed_hash or ""))
            kill_points.point("relay:after")
            await self._settle(entry, outcome)
        finally:
            self._room.release_on_behalf_of(turn)
            self._busy.discard(entry.stream_id)
            self._grew.set()
            self._idle.set()

    async def _claim(self) -> Entry | None:
        """Claim the next entry that may be sent; its stream is busy from then on."""
        while True:
            now, busy = self._clock.now(), frozenset(self._busy)
            guarded: int | None = None
            if self._guard is not None:
                waiting = await self._ledger.read(lambda c, t=now, b=busy: records.due(c, t, b))  # type: ignore[misc]
                if waiting is None:
                    return None
                if not await self._may_go(waiting, now):
                    continue
                guarded = waiting.id
            entry = await self._ledger.write(
                lambda c, t=now, b=busy, only=guarded: records.claim(c, t, self._signer.sign, b, only=only)  # type: ignore[misc]
            )
            if entry is None and guarded is not None:
                continue  # another entry came before it meanwhile, and nobody has looked at its block
            if entry is not None:
                self._busy.add(entry.stream_id)
            return entry

    async def _may_go(self, entry: Entry, now: float) -> bool:
        """Ask the guard about an entry; withdraw it, or let its stream wait, when it may not go."""
        assert self._guard is not None
        match await self._guard(entry.block, entry.block_hash):
            case Finality.FINAL:
                return True
            case Finality.REORGANIZED:
                reason = f"block {entry.block} became another one"
                await self._ledger.write(lambda c: records.withdraw(c, entry, reason, now))
                self._metrics.relay_withdrawn.inc()
                log.error("relay payload withdrawn", entry=entry.id, block=entry.block, reason=reason)
            case Finality.AWAITED:
                await self._ledger.write(lambda c: records.postpone(c, entry, now + FINALITY_LOOK_S))
        return False

    async def _settle_interrupted(self) -> None:
        now = self._clock.now()
        found = await self._ledger.write(
            lambda connection: records.interrupted(
                connection, lambda entry, outcome: self._decide(entry, outcome, now), now
            )
        )
        if found:
            log.warning("relay attempts of unknown outcome will be repeated", entries=found)

    async def _purge_for_ever(self) -> None:
        while True:
            await trio.sleep(PURGE_S)
            await self._purge()

    async def _purge(self) -> None:
        now = self._clock.now()
        await self._ledger.write(lambda connection: records.purge(connection, now))

    async def _settle(self, entry: Entry, outcome: Outcome) -> None:
        now = self._clock.now()
        decision = self._decide(entry, outcome, now)
        await self._ledger.write(lambda connection: records.settle(connection, entry, outcome, decision, now))
        self._metrics.relay_sends.labels(log_status(outcome)).inc()
        delivered = decision.state is EntryState.DELIVERED
        self._failures_in_a_row = 0 if delivered else self._failures_in_a_row + 1
        self._metrics.relay_failures_in_a_row.set(self._failures_in_a_row)
        self._turn_door(outcome, now)
        if decision.state is EntryState.ABANDONED:
            log.error("relay entry abandoned", entry=entry.id, attempts=entry.attempts, reason=decision.reason)
        elif not delivered:
            tell = log.error if self._failures_in_a_row >= ALERT_AFTER else log.warning
            tell("relay attempt failed", entry=entry.id, attempt=entry.attempts, reason=describe(outcome))

    def _turn_door(self, outcome: Outcome, now: float) -> None:
        was, self._door = self._door, after(self._door, outcome, now, self._policy, self._rng)
        self._metrics.relay_held_back.set(not self._door.is_open)
        if was.is_open and not self._door.is_open and not isinstance(outcome, Unreachable):
            log.error(
                "relay receiver refuses", reason=self._door.reason, see="relay.url and the receiver's own settings"
            )

    async def _wait_for_work(self) -> None:
        busy = frozenset(self._busy)
        due_at = await self._ledger.read(lambda connection: records.next_attempt_at(connection, busy))
        wait_s = REREAD_S if due_at is None else min(REREAD_S, max(0.1, due_at - self._clock.now()))
        with trio.move_on_after(wait_s):
            await self._grew.wait()

    def _decide(self, entry: Entry, outcome: Outcome, now: float) -> Decision:
        return decide(entry.attempts, outcome, now, self._policy, self._rng)
