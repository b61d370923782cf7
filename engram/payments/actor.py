"""The payment verifier: takes purchases, gives each payment a child of its own, answers within its deadline, and
reads the open facts again every few seconds, so that nothing depends on a message that arrived."""

from collections import deque
from contextlib import suppress
from typing import Final, final

import msgspec
import structlog
import trio

from actors import (
    LATER,
    Actor,
    ActorsError,
    AlreadyStarted,
    ChildSpec,
    Context,
    MailboxPolicy,
    MaxChildren,
    ReplyTo,
)
from engram.ledger import LedgerError
from engram.payments import pay_links, records, refunds, retention, rules
from engram.payments.model import AuthorizationKey, DuePayment, Payment, PaymentState
from engram.payments.payment_worker import PaymentWork
from engram.payments.ports import PaymentPorts
from engram.payments.protocol import Advanced, Ended, NewSession, Purchase, Reread, VerifierMessage, WorkOn
from engram.payments.purchase_answer import CannotNow, Conflict, NoRoom, PurchaseAnswer, Refused, Replayed
from engram.payments.reservations import (
    Known,
    ReservationAnswer,
    Reserved,
    known_answer,
    limits_of,
    reservation_of,
    reserve,
)

_log = structlog.get_logger("engram.payments")

PAYMENT_VERIFIER: Final = "payment_verifier"
PURCHASES: Final = "purchases"
"""Registered names."""
REREAD_S: Final = 2.0
"""Open facts are looked for this often."""
WAITING: Final = 512
"""Buyers that may wait for an answer at once; the next gets `busy`."""
WATCHED_AT_ONCE: Final = 2
"""Chain lookups for given-up payments: anyone can create these for free, and chain nodes are metered."""
QUEUED: Final = 1_024
"""Payments that wait for a child; those beyond are found by the next reading."""
LOOK_AGAIN_S: Final = 1.0
"""How often a buyer's payment is looked at that this process does not work on: another gateway of the ledger decides
it, and nobody tells us."""
FOLLOW_UP_S: Final = 0.05
"""How long a payment's last child may still take to be gone when its next one is wanted."""
REPLAY_KEYS_KEPT_S: Final = 3_600.0
"""A signed request is good for two minutes at most."""
FORGET_EVERY_S: Final = 300.0
PAGE: Final = 256
"""Due payments read at once, beyond what may run."""
NEXT_PAGE_S: Final = 0.25
"""A full page is followed by the next one this soon after it is worked off."""


class _Waiter:
    """A buyer waiting for a payment to be decided."""

    def __init__(self) -> None:
        self.decided = trio.Event()
        self.payment: Payment | None = None
        """The payment once it is decided."""
        self.seen: Payment | None = None
        """As it was when it was last looked at."""


@final
class PaymentVerifier(Actor[VerifierMessage]):
    """Registered as `payment_verifier`; its children live under the dynamic supervisor `purchases`."""

    mailbox = MailboxPolicy(bound=2_048)

    def __init__(self, ports: PaymentPorts) -> None:
        self._ports = ports
        self._purchases = ports.registry.supervisor(PURCHASES)
        self._work = PaymentWork(ports, ports.registry.ref(PaymentVerifier, PAYMENT_VERIFIER))
        self._payments = ports.settings.payments
        self._ledger = ports.ledger
        self._serving = 0
        self._waiters: dict[AuthorizationKey, list[_Waiter]] = {}
        self._running: set[str] = set()
        self._queue: deque[str] = deque()
        self._reconciling: set[str] = set()
        self._watching: set[str] = set()
        """Of those, the given up ones."""
        self._backlog: deque[DuePayment] = deque()
        self._more = False
        """There may be more to do than is in the backlog."""
        self._forgotten_at = 0.0

    async def on_start(self, context: Context) -> None:
        """Begin reading open facts: booting is recovering."""
        context.every(REREAD_S, Reread(), jitter=0.1)
        context.start_soon(self._wake_refunds)
        context.ref.tell(Reread())

    async def handle(self, message: VerifierMessage) -> object:
        """Handle a message quickly; a purchase is served in a task of its own."""
        match message:
            case Purchase():
                if self._serving >= WAITING:
                    return CannotNow("busy", "too many payments at once: send it again", rules.UNAVAILABLE_RETRY_S)
                self._serving += 1
                self.context.start_soon(self._serve, message, self.context.reply_to())
                return LATER
            case Advanced(payment):
                self._wake(payment)
            case Ended(payment_id):
                self._running.discard(payment_id)
                self._reconciling.discard(payment_id)
                self._watching.discard(payment_id)
                await self._start_next()
            case WorkOn(payment_id):
                await self._start(payment_id)
            case Reread():
                await self._reread()
        return None

    # Buyers.

    async def _serve(self, purchase: Purchase, reply_to: ReplyTo) -> None:
        deadline = trio.current_time() + self._payments.answer_within_s
        try:
            answer = await self._buy(purchase, deadline)
        except (LedgerError, ActorsError) as error:
            _log.warning("purchase_not_recorded", cause=type(error).__name__)
            answer = CannotNow("ledger_unavailable", "send the same request again", rules.UNAVAILABLE_RETRY_S)
        finally:
            self._serving -= 1
        reply_to.reply(answer)

    async def _buy(self, purchase: Purchase, deadline: float) -> PurchaseAnswer:
        now, order = self._ports.instants.now(), purchase.order
        requirements = order.quote.requirements
        refusal = pay_links.overdue(order.expires_at, now.wall) or rules.refusal(
            purchase.payload, requirements, now.wall, self._payments.min_validity_left_s
        )
        found: ReservationAnswer
        if refusal is None:
            limits = limits_of(self._ports.settings, self._ports.places(order.wanted))
            reservation = reservation_of(purchase, self._ports.ids, now, limits)
            places_in, wanted = self._ports.places_in, order.wanted
            if places_in is not None and isinstance(wanted, NewSession):
                reservation = msgspec.structs.replace(reservation, places_in=lambda c: places_in(c, wanted))
            found = await self._ledger.write(lambda connection: reserve(connection, reservation))
        else:  # it cannot be a new payment, but it may be one that we know
            known = await self._ledger.read(lambda connection: records.find_authorization(connection, purchase.key))
            if known is None:
                return Refused(refusal.reason, refusal.message)
            found = known_answer(known, order.controller, order.request_hash)
            if isinstance(found, Known) and known.state is PaymentState.REJECTED:
                return Refused(refusal.reason, refusal.message)
        match found:
            case Reserved(payment):
                return await self._wait(payment, deadline, fresh=True)
            case Known(payment):
                if rules.is_decided(payment):
                    return rules.answer(payment)
                return await self._wait(payment, deadline, fresh=False)
            case Conflict() | Replayed() | NoRoom():
                return found

    async def _wait(self, payment: Payment, deadline: float, *, fresh: bool) -> PurchaseAnswer:
        waiter = _Waiter()
        self._waiters.setdefault(payment.key, []).append(waiter)
        try:
            if fresh:
                await self._start(payment.id, payment)
            with trio.move_on_at(deadline):
                while not fresh and not waiter.decided.is_set():
                    await self._look(payment.id, waiter)
                    with trio.move_on_after(LOOK_AGAIN_S):
                        await waiter.decided.wait()
                await waiter.decided.wait()
            if waiter.payment is None:
                await self._look(payment.id, waiter)
            return rules.answer(waiter.payment or waiter.seen or payment)
        finally:
            waiters = self._waiters[payment.key]
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[payment.key]

    async def _look(self, payment_id: str, waiter: _Waiter) -> None:
        payment = await self._ledger.read(lambda connection: records.get(connection, payment_id))
        waiter.seen = payment
        if payment is not None and rules.is_decided(payment) and waiter.payment is None:
            waiter.payment = payment
            waiter.decided.set()

    def _wake(self, payment: Payment) -> None:
        if rules.is_decided(payment):
            for waiter in self._waiters.get(payment.key, ()):
                waiter.payment = payment
                waiter.decided.set()

    # Children.

    async def _start(self, payment_id: str, fresh: Payment | None = None) -> None:
        if payment_id in self._running:
            return
        if len(self._running) >= self._payments.concurrency:
            if len(self._queue) < QUEUED and payment_id not in self._queue:
                self._queue.append(payment_id)
            return
        self._running.add(payment_id)
        spec = ChildSpec(
            payment_id,
            start=lambda: self._work.job(payment_id, fresh),
            restart="temporary",
            shutdown=self._payments.settle_timeout_s,
        )
        try:
            await self._purchases.start_child(spec)
        except AlreadyStarted:  # its last child is about to be gone, or runs since before a restart of ours
            self._running.discard(payment_id)
            self.context.after(FOLLOW_UP_S, WorkOn(payment_id))
        except MaxChildren:
            self._running.discard(payment_id)
        except BaseException:
            self._running.discard(payment_id)
            raise

    async def _start_next(self) -> None:
        while self._queue and len(self._running) < self._payments.concurrency:
            await self._start(self._queue.popleft())
        while self._backlog and len(self._reconciling) < self._reconcilers:
            given_up = self._backlog[0].state in rules.GIVEN_UP
            if given_up and len(self._watching) >= WATCHED_AT_ONCE:
                break
            payment_id = self._backlog.popleft().id
            if payment_id not in self._running:
                self._reconciling.add(payment_id)
                if given_up:
                    self._watching.add(payment_id)
                await self._start(payment_id)
        if self._more and not self._backlog:
            self._more = False
            self.context.after(NEXT_PAGE_S, Reread())

    @property
    def _reconcilers(self) -> int:
        """Children that unknown payments and refunds may have at once: new purchases always find one, and go first."""
        return max(1, self._payments.concurrency // (16 if self._serving else 4))

    async def _reread(self) -> None:
        try:
            self._running = {child.id for child in await self._purchases.children()}
            self._reconciling &= self._running
            self._watching &= self._running
            now = self._ports.instants.now().wall
            page = 2 * self._payments.concurrency + PAGE
            due = await self._ledger.read(lambda connection: records.due(connection, now, page))
            idle = [payment for payment in due if payment.id not in self._running]
            self._backlog = deque(payment for payment in idle if payment.state not in rules.AT_ONCE)
            self._more = len(due) == page
            for payment in idle:
                if payment.state in rules.AT_ONCE:
                    await self._start(payment.id)
            await self._start_next()
            if abs(now - self._forgotten_at) >= FORGET_EVERY_S:
                await self._forget(now)
        except (LedgerError, ActorsError) as error:
            _log.warning("payments_not_reread", cause=type(error).__name__)

    async def _wake_refunds(self) -> None:
        """Wake refunds that fell due while there was no key to send them."""
        if not self._work.sends_refunds:
            return
        with suppress(LedgerError):  # they wait for the next start, and the operator sees them
            at = self._ports.instants.now().wall
            await self._ledger.write(lambda connection: refunds.wake(connection, at))

    async def _forget(self, now: float) -> None:
        """Drop what is not kept forever, in portions small enough not to delay buyers."""
        keys_before, unpaid_before = now - REPLAY_KEYS_KEPT_S, now - retention.UNPAID_KEPT_S
        await self._ledger.write(lambda connection: records.forget_answered_requests(connection, keys_before))
        dropped = await self._ledger.write(lambda connection: retention.forget_unpaid(connection, unpaid_before))
        if dropped < retention.AT_ONCE:  # else the next reading goes on
            self._forgotten_at = now
