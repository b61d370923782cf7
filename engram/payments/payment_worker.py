"""One payment's own work, in a child of its own: verify, settle, and settle again until the outcome is known.

Each step is committed before the next one asks anything of the facilitator, so the work may be interrupted anywhere
and is taken up again from its row. It ends at a decided payment, or in `unknown`, where the verifier starts it again
when its next attempt is due.
"""

from collections.abc import Awaitable
from typing import Final, TypeVar, final

import structlog
import trio

from actors import ActorRef, ActorsError, Context, Job
from engram import kill_points
from engram.ledger import LedgerError
from engram.payments import evidence, records, rules
from engram.payments.evidence import Finding, NoEvidence, Paid, Spent, Unused, Watch
from engram.payments.model import Payment, PaymentState
from engram.payments.networks import NETWORKS
from engram.payments.outcomes import (
    Invalid,
    NotSent,
    Pending,
    Rejected,
    Settled,
    Settlement,
    Unavailable,
    Unknown,
    Valid,
)
from engram.payments.ports import PaymentPorts
from engram.payments.protocol import Advanced, Ended, VerifierMessage
from engram.payments.refund_sender import Refunding
from engram.payments.rules import PaymentEvent

_log = structlog.get_logger("engram.payments")

Outcome = TypeVar("Outcome")


@final
class PaymentWork:
    """Makes one job a payment, and holds what the jobs share."""

    def __init__(self, ports: PaymentPorts, verifier: ActorRef[VerifierMessage]) -> None:
        self._ledger: Final = ports.ledger
        self._facilitator: Final = ports.facilitator
        self._instants: Final = ports.instants
        self._verifier: Final = verifier
        self._hints: Final = ports.hints
        self._metrics: Final = ports.metrics
        self._refunding: Final = Refunding(ports)
        self._evidence: Final = ports.evidence
        self._reserve_ttl_s: Final = ports.settings.payments.reserve_ttl_s

    @property
    def sends_refunds(self) -> bool:
        """False when refunds wait for the operator."""
        return self._refunding.sends

    def job(self, payment_id: str, fresh: Payment | None = None) -> Job:
        """Return the job that works on a payment; `fresh` is its record when it was reserved a moment ago."""

        async def run(context: Context) -> None:
            context.ready()
            try:
                await self._run(payment_id, fresh)
            finally:
                self._verifier.hint(Ended(payment_id))

        return Job(run)

    async def _run(self, payment_id: str, fresh: Payment | None) -> None:
        try:
            if not self._ledger.holds:  # another process may own it by now: the next reading finds out
                return
            payment = fresh or await self._ledger.read(lambda connection: records.get(connection, payment_id))
            if payment is not None and payment.quarantined_at is None:
                await self._drive(payment)
        except (LedgerError, ActorsError) as error:
            # Not this payment's fault; its row says where to go on.
            _log.warning("payment_interrupted", payment_id=payment_id, cause=type(error).__name__)
        except Exception:
            # Supervision seam: any other error is counted against this payment and crashes its child.
            counted = await self._ledger.write(
                lambda connection: records.count_crash(connection, payment_id, self._instants.now().wall)
            )
            if counted is not None and counted.quarantined_at is not None:
                _log.error("payment_quarantined", payment_id=payment_id, crashes=counted.crashes)
                self._verifier.hint(Advanced(counted))
            raise

    async def _drive(self, payment: Payment) -> None:
        match payment.state:
            case PaymentState.RESERVED:
                await self._verify(payment)
            case PaymentState.SETTLING:  # read from the ledger: a settlement may be on its way
                unknown = await self._advance(payment, PaymentEvent.UNCLEAR, reason=rules.INTERRUPTED)
                if unknown is not None:
                    await self._reconcile(unknown)
            case PaymentState.UNKNOWN:
                await self._reconcile(payment)
            case PaymentState.REFUND_DUE | PaymentState.REFUNDING:
                await self._refunding.run(payment.id)
            case PaymentState.SETTLED | PaymentState.REJECTED | PaymentState.VOID:
                if payment.next_attempt_at is not None:
                    await self._watch(payment)
                self._verifier.hint(Advanced(payment))
            case _:
                self._verifier.hint(Advanced(payment))

    async def _verify(self, payment: Payment) -> None:
        if rules.is_stale(payment, self._instants.now().wall, self._reserve_ttl_s):
            await self._advance(payment, PaymentEvent.REFUSED, reason=rules.INTERRUPTED)
            return
        kill_points.point("verify:before")
        verdict = await self._timed("verify", self._facilitator.verify(payment))
        kill_points.point("verify:after")
        match verdict:
            case Valid():
                settling = await self._advance(payment, PaymentEvent.VERIFIED)
                if settling is not None and settling.state is PaymentState.SETTLING:
                    await self._settle(settling)
            case Invalid(reason) if self._evidence is not None:
                await self._invalid(payment, reason, await self._evidence.look(evidence.about(payment)))
            case Invalid(reason):
                kept = rules.kept_refusal(reason, proven=NETWORKS[payment.network].play)
                await self._advance(payment, PaymentEvent.REFUSED, reason=kept)
            case Unavailable(why):
                _log.warning("facilitator_unavailable", payment_id=payment.id, cause=why)
                await self._advance(payment, PaymentEvent.REFUSED, reason=rules.NOT_REACHED)

    async def _invalid(self, payment: Payment, reason: str, finding: Finding) -> None:
        """Decide a payment that the facilitator calls invalid by what the chain shows.

        Someone may have submitted it before us. It counts as paid when it paid us, and is refused only when the money
        cannot have moved.
        """
        match finding:
            case Paid():
                settling = await self._advance(payment, PaymentEvent.VERIFIED)
                if settling is not None and settling.state is PaymentState.SETTLING:
                    await self._found(settling, PaymentEvent.SETTLED, finding)
            case Spent():
                await self._advance(payment, PaymentEvent.REFUSED, reason=rules.NONCE_USED)
            case Unused() if reason != rules.NONCE_USED:  # which a node that is behind does not know yet
                await self._advance(payment, PaymentEvent.REFUSED, reason=reason)
            case Unused() | NoEvidence():
                await self._advance(payment, PaymentEvent.REFUSED, reason=rules.kept_refusal(reason, proven=False))

    async def _settle(self, payment: Payment) -> None:
        if not self._ledger.holds:
            return
        kill_points.point("settle:before")
        settlement = await self._timed("settle", self._facilitator.settle(payment))
        kill_points.point("settle:after")
        if isinstance(settlement, Settled) and self._evidence is not None:
            question = evidence.about(payment, settlement.transaction)
            finding = await self._timed("look", self._evidence.look(question))
            await self._prove(payment, settlement, finding)
            return
        if isinstance(settlement, Rejected) and payment.state is PaymentState.SETTLING and self._evidence is not None:
            finding = await self._timed("look", self._evidence.look(evidence.about(payment)))
            if isinstance(finding, Paid):
                await self._found(payment, PaymentEvent.SETTLED, finding)
                return
        event = rules.settlement_event(
            payment.state,
            settlement,
            play=NETWORKS[payment.network].play,
            valid_before=payment.valid_before,
            now=self._instants.now().wall,
        )
        if event is PaymentEvent.UNCLEAR:
            _log.warning(
                "settlement_unclear", payment_id=payment.id, attempts=payment.attempts, cause=_reason(settlement)
            )
        await self._advance(payment, event, reason=_reason(settlement), transaction=_transaction(settlement))

    async def _prove(self, payment: Payment, settled: Settled, finding: Finding) -> None:
        """Count a facilitator's success as paid only when the chain shows the transfer of this authorization."""
        if isinstance(finding, Paid):
            await self._found(payment, PaymentEvent.SETTLED, finding)
            return
        _log.warning("success_not_on_chain", payment_id=payment.id, finding=evidence.word(finding))
        await self._advance(
            payment,
            PaymentEvent.UNCLEAR,
            reason=f"success_but_{evidence.word(finding)}",
            transaction=settled.transaction,
        )

    async def _reconcile(self, payment: Payment) -> None:
        """Read the chain; where it does not decide, settle again with the identical payload."""
        if self._evidence is not None:
            finding = await self._timed("look", self._evidence.look(evidence.about(payment)))
            decided = evidence.decide(payment, finding, self._instants.now().wall)
            if isinstance(decided, PaymentEvent):
                await self._found(payment, decided, finding)
                return
        await self._settle(payment)

    async def _watch(self, payment: Payment) -> None:
        """Check that a settled payment stays settled, and that no money arrives on one that was given up."""
        at: float | None = None
        if self._evidence is not None:
            finding = await self._timed("look", self._evidence.look(evidence.about(payment)))
            decided = evidence.decide(payment, finding, self._instants.now().wall)
            if isinstance(decided, PaymentEvent):
                await self._found(payment, decided, finding)
                return
            now = self._instants.now().wall
            at = None if decided is Watch.REST else now + rules.watch_delay_s(now - payment.updated_at)
        await self._ledger.write(lambda connection: records.look_again(connection, payment, at))

    async def _found(self, payment: Payment, event: PaymentEvent, finding: Finding) -> None:
        _log.info("found_on_chain", payment_id=payment.id, was=str(payment.state), finding=evidence.word(finding))
        reason = None if event is PaymentEvent.SETTLED else f"chain_{evidence.word(finding)}"
        await self._advance(payment, event, reason=reason, transaction=evidence.transaction_of(finding))

    def _watch_at(self) -> float | None:
        return None if self._evidence is None else self._instants.now().wall + rules.WATCH_MIN_S

    async def _advance(
        self, payment: Payment, event: PaymentEvent, *, reason: str | None = None, transaction: str | None = None
    ) -> Payment | None:
        now, watch_at = self._instants.now(), self._watch_at()
        after = await self._ledger.write(
            lambda connection: records.advance(
                connection, payment.id, event, now, reason=reason, transaction=transaction, watch_at=watch_at
            )
        )
        if after is None:
            return None
        self._metrics.payments.labels(str(after.state)).inc()
        if rules.is_decided(after):
            self._metrics.payment_seconds.labels(str(after.state)).observe(max(0.0, now.wall - after.created_at))
        if after.state in rules.PAID:
            _log.info("payment_settled", payment_id=after.id, session=after.session_id, state=str(after.state))
            self._hints.session_changed(after.session_id)
        if rules.is_decided(after):
            self._verifier.hint(Advanced(after))
        return after

    async def _timed(self, call: str, outcome: Awaitable[Outcome]) -> Outcome:
        began = trio.current_time()
        known = await outcome
        word = type(known).__name__.lower()
        self._metrics.facilitator_seconds.labels(call, word).observe(trio.current_time() - began)
        return known


def _reason(settlement: Settlement) -> str | None:
    match settlement:
        case Settled():
            return None
        case Rejected(reason):
            return reason
        case NotSent():
            return rules.NOT_REACHED
        case Pending():
            return rules.PENDING
        case Unknown(why):
            return why


def _transaction(settlement: Settlement) -> str | None:
    match settlement:
        case Settled(transaction) | Pending(transaction) | Unknown(_, transaction):
            return transaction
        case Rejected() | NotSent():
            return None
