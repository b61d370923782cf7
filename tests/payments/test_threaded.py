"""The payments branch on the real ledger's thread and the local facilitator's socket."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from actors import ActorRef, ChildSpec, Registry, SupervisorSpec, open_system
from engram.clock import SystemClock, SystemIds
from engram.facilitator.ports import FacilitatorPorts, application
from engram.hints import Hints
from engram.http.client import HttpClient
from engram.http.listener import Listener
from engram.ledger import LedgerActor, LedgerClient
from engram.payments import records, rules
from engram.payments.actor import PAYMENT_VERIFIER, PaymentVerifier
from engram.payments.facilitator import HttpFacilitator
from engram.payments.ports import PaymentPorts
from engram.payments.protocol import NewSession, Order, Purchase, VerifierMessage
from engram.payments.purchase_answer import Bought, Conflict, NoRoom
from engram.sessions import SystemInstants, TierName
from engram.telemetry.metrics import Metrics
from tests.payments import builders
from tests.payments.branch import payments_branch
from tests.payments.shop import wide

Verifier = ActorRef[VerifierMessage]


@asynccontextmanager
async def open_branch(folder: Path, places: int = 1_000) -> AsyncIterator[tuple[Verifier, LedgerClient]]:
    registry, settings = Registry(), wide()
    listener = Listener("127.0.0.1", 0, settings.http, 1.0)
    ledger, http, metrics = LedgerClient(registry.ref(LedgerActor, "ledger"), folder), HttpClient(), Metrics()
    facilitator = application(
        FacilitatorPorts(settings=settings, ledger=ledger, clock=SystemClock(), ids=SystemIds(), metrics=metrics)
    )
    tree = SupervisorSpec(
        "root",
        (
            ChildSpec("ledger", lambda: LedgerActor(folder, lambda error: None), name="ledger"),
            ChildSpec("facilitator", lambda: listener.job(facilitator)),
            payments_branch(
                PaymentPorts(
                    registry=registry,
                    settings=settings,
                    ledger=ledger,
                    facilitator=HttpFacilitator(http, lambda: listener.url, verify_timeout_s=5, settle_timeout_s=5),
                    instants=SystemInstants(),
                    ids=SystemIds(),
                    metrics=metrics,
                    hints=Hints(),
                    places=lambda wanted: places,
                )
            ),
        ),
    )
    async with open_system(tree, registry=registry):
        yield registry.ref(PaymentVerifier, PAYMENT_VERIFIER), ledger
        await http.aclose()
    ledger.close()


def purchase(text: str, *, request: str | None = None, controller: str = "alice") -> Purchase:
    signed = builders.authorization(text, valid_before=int(time.time()) + 120)
    order = Order(
        quote=builders.quote(),
        wanted=NewSession(TierName.LITE, 3600.0),
        controller=builders.nonce(controller),
        request_hash=builders.nonce(request or text),
        message_hash=builders.nonce(f"message of {request or text}"),
        client_address="",
    )
    payload = builders.payload(signed)
    return Purchase(order, payload, rules.key_of(payload, order.quote.requirements))


async def test_fifty_racing_posts_with_one_payment_buy_one_session(tmp_path: Path) -> None:
    async with open_branch(tmp_path) as (verifier, ledger):
        answers: list[object] = []

        async def post(request: str) -> None:
            answers.append(await verifier.call(purchase("one payment", request=request), timeout=10))

        async with trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(post, "the request" if n % 5 else f"another request {n}")
        bought = {answer.payment.session_id for answer in answers if isinstance(answer, Bought)}
        conflicts = sum(isinstance(answer, Conflict) for answer in answers)
        assert len(bought) == 1
        assert conflicts in (10, 49)  # whichever request came first owns the payment
        assert len(await ledger.read(records.list_payments)) == 1


async def test_a_crowd_of_buyers_gets_exactly_the_places_there_are(tmp_path: Path) -> None:
    async with open_branch(tmp_path, places=20) as (verifier, ledger):
        answers: list[object] = []

        async def post(n: int) -> None:
            answers.append(await verifier.call(purchase(f"payment {n}", controller=f"phone {n}"), timeout=10))

        async with trio.open_nursery() as nursery:
            for n in range(60):
                nursery.start_soon(post, n)
        assert sum(isinstance(answer, Bought) for answer in answers) == 20
        assert sum(isinstance(answer, NoRoom) and answer.code == "no_capacity" for answer in answers) == 40
        paid = await ledger.read(records.list_payments)
        assert len(paid) == 20
        assert all(msgspec.json.decode(payment.payload)["x402Version"] == 2 for payment in paid)
