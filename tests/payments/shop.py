"""The payments branch, running: an inline ledger, a double of the facilitator, virtual time."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
import trio
from sqlalchemy import Connection

from actors import ActorRef, EventStream, Registry, System, open_system
from config.model import Settings
from engram import sessions
from engram.clock import SeededIds, TrioClock
from engram.hints import Hints
from engram.ledger import InlineLedger, open_inline
from engram.payments import records, rules
from engram.payments.actor import PAYMENT_VERIFIER, PaymentVerifier
from engram.payments.evidence import Evidence
from engram.payments.facilitator import Facilitator
from engram.payments.model import Payment, Quote, Refund
from engram.payments.ports import PaymentPorts
from engram.payments.protocol import NewSession, Order, Purchase, VerifierMessage, Wanted
from engram.payments.purchase_answer import PurchaseAnswer
from engram.payments.refund_key import RefundKey
from engram.sessions import ClockInstants, EndReason, Session, SessionEvent, TierName
from engram.telemetry.actor_events import observer
from engram.telemetry.metrics import Metrics
from tests.fakes.facilitator import FakeFacilitator
from tests.fakes.hints import RecordedHints
from tests.payments import builders
from tests.payments.branch import payments_branch

T = TypeVar("T")
HOUR = NewSession(TierName.LITE, 3600.0)


class Shop:
    """What a test touches."""

    def __init__(
        self,
        ledger: InlineLedger,
        facilitator: FakeFacilitator,
        verifier: ActorRef[VerifierMessage],
        clock: TrioClock,
        settings: Settings,
    ) -> None:
        self.ledger = ledger
        self.facilitator = facilitator
        self.verifier = verifier
        self.clock = clock
        self.settings = settings
        self.metrics = Metrics()
        self.hints = RecordedHints()
        self.system: System | None = None

    def purchase(
        self,
        text: str = "a nonce",
        *,
        controller: bytes = builders.ALICE,
        request: str | None = None,
        wanted: Wanted = HOUR,
        quote: Quote | None = None,
        message: str | None = None,
        amount: int = 100_000,
    ) -> Purchase:
        quote = quote or builders.quote(amount)
        signed = builders.authorization(text, value=quote.requirements.amount, valid_before=int(self.clock.now()) + 120)
        order = Order(
            quote=quote,
            wanted=wanted,
            controller=controller,
            request_hash=builders.nonce(f"request {request or text}"),
            message_hash=builders.nonce(f"message {message or text}"),
            client_address="",
        )
        payload = builders.payload(signed, quote.requirements)
        return Purchase(order, payload, rules.key_of(payload, quote.requirements))

    async def buy(self, purchase: Purchase) -> PurchaseAnswer:
        return await self.verifier.call(purchase, timeout=self.settings.payments.answer_within_s + 0.5)

    async def until(self, holds: Callable[[], bool], within_s: float = 600.0) -> None:
        """Let virtual time pass until it holds."""
        with trio.fail_after(within_s):
            while not holds():  # noqa: ASYNC110 - virtual time, and what holds is in the ledger
                await trio.sleep(0.5)

    def read(self, query: Callable[[Connection], T]) -> T:
        return self.ledger.write_now(query)

    def payments(self) -> list[Payment]:
        return self.read(records.list_payments)

    def payment(self, text: str = "a nonce") -> Payment:
        (found,) = [payment for payment in self.payments() if payment.nonce == builders.nonce(text)]
        return found

    def session(self, session_id: str) -> Session:
        found = self.read(lambda connection: sessions.records.get(connection, session_id))
        assert found is not None
        return found

    def refunds(self, text: str = "a nonce") -> list[Refund]:
        payment_id = self.payment(text).id
        return self.read(lambda connection: records.refunds_of(connection, payment_id))

    def stop_session(self, session_id: str) -> None:
        now = ClockInstants(self.clock).now()
        self.read(
            lambda connection: sessions.records.transition(
                connection, session_id, SessionEvent.END, now, reason=EndReason.USER
            )
        )


@asynccontextmanager
async def open_shop(
    ledger: InlineLedger | None = None,
    facilitator: FakeFacilitator | None = None,
    *,
    settings: Settings | None = None,
    places: int = 1_000,
    places_for: Callable[[Wanted | None], int] | None = None,
    places_in: Callable[[Connection, NewSession], int] | None = None,
    refund_key: RefundKey | None = None,
    through: Facilitator | None = None,
    evidence: Evidence | None = None,
    hints: Hints | None = None,
) -> AsyncIterator[Shop]:
    """A running shop; limits on hotkeys and payers are wide unless `settings` says otherwise."""
    own = ledger is None
    ledger = ledger or open_inline()
    clock = TrioClock(builders.NOW)
    facilitator = facilitator or FakeFacilitator(clock)
    settings = settings or wide()
    registry = Registry()
    shop = Shop(ledger, facilitator, registry.ref(PaymentVerifier, PAYMENT_VERIFIER), clock, settings)
    ports = PaymentPorts(
        registry=registry,
        settings=settings,
        ledger=ledger,
        facilitator=through or facilitator,
        instants=ClockInstants(clock),
        ids=SeededIds(len(shop.payments())),
        places=places_for or (lambda wanted: places),
        places_in=places_in,
        metrics=shop.metrics,
        hints=hints or shop.hints,
        refund_key=refund_key,
        evidence=evidence,
    )
    events = EventStream()
    with events.listen(observer(shop.metrics)):
        async with open_system(payments_branch(ports), registry=registry, events=events) as system:
            shop.system = system
            yield shop
    if own:
        ledger.close()


def wide(**payments: object) -> Settings:
    """Settings without limits a test would meet by accident."""
    plain = Settings()
    return msgspec.structs.replace(
        plain,
        payments=msgspec.structs.replace(
            plain.payments, **({"holds_per_payer": 1_000, "holds_per_address": 1_000} | payments)
        ),
        sessions=msgspec.structs.replace(plain.sessions, live_per_hotkey=1_000, live_in_all=1_000),
    )
