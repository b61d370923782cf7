"""relay_emitter: works the outbox off, in the order in which it was filled, at its own pace.

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
from engram.relay.model import EntryState, OutboxEntry, Outcome, RelayStatus, Unreachable
from engram.relay.protocol import GetRelayStatus, OutboxGrew
from engram.relay.rounds import RoundLosses
from engram.relay.rules import EntryDecision, RetryPolicy, backoff_s, decide, describe, log_status
from engram.relay.signer import PayloadSigner, Signed
from engram.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

RELAY_EMITTER: Final = "relay_emitter"
"""Its registered name."""
REREAD_S = 15.0
"""The outbox is read again after this at the latest, hint or not."""
PURGE_S = 3_600.0
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
        self._grew = trio.Event()
        self._attempt = trio.Lock()
        self._failures_in_a_row = 0
        self._unreachable_in_a_row = 0

    async def on_start(self, context: Context) -> None:
        if self._receiver is not None:
            context.start_soon(self._work, self._receiver)

    async def on_stop(self, reason: ExitReason) -> None:
        """Let an attempt under way end, within the shutdown time, so that its outcome is known."""
        await self._attempt.acquire()

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
        not_queued = self._losses.payloads
        return await self._ledger.read(
            lambda connection: records.status(
                connection, enabled=enabled, failures_in_a_row=failures, not_queued=not_queued
            )
        )

    async def _work(self, receiver: Submits) -> None:
        await self._settle_interrupted()
        purge_at = self._clock.monotonic()
        while True:
            self._grew = trio.Event()
            if self._clock.monotonic() >= purge_at:
                await self._purge()
                purge_at = self._clock.monotonic() + PURGE_S
            async with self._attempt:
                outcome = await self._try_next(receiver)
            if outcome is None:
                await self._wait_for_work()
            elif isinstance(outcome, Unreachable):
                # Whatever came next would meet the same closed door: hints do not shorten this wait.
                await trio.sleep(backoff_s(self._unreachable_in_a_row - 1, self._policy, self._rng))

    async def _try_next(self, receiver: Submits) -> Outcome | None:
        """Try the oldest entry that is due once; None when none is."""
        entry = await self._claim()
        if entry is None:
            return None
        kill_points.point("relay:before")
        outcome = await receiver.submit(Signed(entry.signed or b"", entry.signed_hash or ""))
        kill_points.point("relay:after")
        await self._settle(entry, outcome)
        return outcome

    async def _settle_interrupted(self) -> None:
        now = self._clock.now()
        found = await self._ledger.write(
            lambda connection: records.interrupted(
                connection, lambda entry, outcome: self._decide(entry, outcome, now), now
            )
        )
        if found:
            log.warning("relay attempts of unknown outcome will be repeated", entries=found)

    async def _purge(self) -> None:
        now = self._clock.now()
        await self._ledger.write(lambda connection: records.purge(connection, now))

    async def _claim(self) -> OutboxEntry | None:
        now = self._clock.now()
        return await self._ledger.write(lambda connection: records.claim(connection, now, self._signer.sign))

    async def _settle(self, entry: OutboxEntry, outcome: Outcome) -> None:
        now = self._clock.now()
        decision = self._decide(entry, outcome, now)
        await self._ledger.write(lambda connection: records.settle(connection, entry, outcome, decision, now))
        self._metrics.relay_sends.labels(log_status(outcome)).inc()
        delivered = decision.state is EntryState.DELIVERED
        self._failures_in_a_row = 0 if delivered else self._failures_in_a_row + 1
        self._unreachable_in_a_row = self._unreachable_in_a_row + 1 if isinstance(outcome, Unreachable) else 0
        if decision.state is EntryState.ABANDONED:
            log.error("relay entry abandoned", entry=entry.id, attempts=entry.attempts, reason=decision.reason)
        elif not delivered:
            tell = log.error if self._failures_in_a_row >= ALERT_AFTER else log.warning
            tell("relay attempt failed", entry=entry.id, attempt=entry.attempts, reason=describe(outcome))

    async def _wait_for_work(self) -> None:
        due_at = await self._ledger.read(records.next_attempt_at)
        wait_s = REREAD_S if due_at is None else min(REREAD_S, max(0.1, due_at - self._clock.now()))
        with trio.move_on_after(wait_s):
            await self._grew.wait()

    def _decide(self, entry: OutboxEntry, outcome: Outcome, now: float) -> EntryDecision:
        return decide(entry.attempts, outcome, now, self._policy, self._rng)
