"""The payments branch of the supervision tree."""

from collections.abc import Callable
from typing import Final

from actors import ChildSpec, Job, Registry, SupervisorSpec
from config.model import Settings
from config.pricing import units_of
from engram.clock import Ids
from engram.ledger import Ledger
from engram.payments.actor import PaymentVerifier, Wiring
from engram.payments.evidence import Evidence
from engram.payments.facilitator import Facilitator
from engram.payments.payment_worker import OnSettled, PaymentWork
from engram.payments.refund_key import RefundKey
from engram.payments.refund_sender import Refunding
from engram.payments.supported_poller import SupportedPoller
from engram.sessions import Instants
from engram.telemetry.metrics import Metrics

PAYMENT_VERIFIER: Final = "payment_verifier"
PURCHASES: Final = "purchases"
SUPPORTED: Final = "facilitator_supported"


def supervision(
    *,
    registry: Registry,
    settings: Settings,
    ledger: Ledger,
    facilitator: Facilitator,
    instants: Instants,
    ids: Ids,
    places: Callable[[], int],
    on_settled: OnSettled,
    metrics: Metrics,
    refund_key: RefundKey | None = None,
    poller: SupportedPoller | None = None,
    evidence: Evidence | None = None,
) -> SupervisorSpec:
    """Returns `payments`: the purchases (one child a payment) and the verifier that starts them.

    `places` says how many sessions may hold a node; `on_settled(session_id)` is a hint that may be lost. Without a
    `refund_key` what is owed back waits for the operator; a `poller` reads what the
    facilitator supports; with `evidence` the chain is asked what became of payments.
    """
    refunding = Refunding(
        ledger=ledger,
        facilitator=facilitator,
        instants=instants,
        key=refund_key,
        daily_limit=units_of(settings.payments.refund_daily_usd),
        evidence=evidence,
    )
    work = PaymentWork(
        ledger=ledger,
        facilitator=facilitator,
        instants=instants,
        verifier=registry.ref(PaymentVerifier, PAYMENT_VERIFIER),
        on_settled=on_settled,
        metrics=metrics,
        refunding=refunding,
        evidence=evidence,
        reserve_ttl_s=settings.payments.reserve_ttl_s,
    )
    wiring = Wiring(
        settings=settings,
        ledger=ledger,
        instants=instants,
        ids=ids,
        purchases=registry.supervisor(PURCHASES),
        places=places,
        work=work,
    )
    purchases = SupervisorSpec(
        PURCHASES,
        strategy="dynamic",
        # The verifier keeps to the setting; children that are just ending may still be counted here.
        max_children=2 * settings.payments.concurrency,
        name=PURCHASES,
    )
    verifier = ChildSpec(PAYMENT_VERIFIER, start=lambda: PaymentVerifier(wiring), name=PAYMENT_VERIFIER)
    children: list[ChildSpec | SupervisorSpec] = [purchases, verifier]
    if poller is not None:
        polled = poller.run
        children.append(ChildSpec(SUPPORTED, start=lambda: Job(polled)))
    return SupervisorSpec("payments", children, strategy="rest_for_one")
