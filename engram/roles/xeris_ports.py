"""What the children of a receiver are given where submissions are paid for: the payments area, whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from actors import ChildSpec, Job, SupervisorSpec
from config.model import Settings
from engram.hints import Hints
from engram.http.listener import Listener
from engram.payments import NoRoom, networks, prepaid
from engram.payments.actor import PAYMENT_VERIFIER, PURCHASES, PaymentVerifier
from engram.payments.breaker import Breaker, GuardedFacilitator
from engram.payments.evidence import Evidence
from engram.payments.evm_rpc import EvmRpc, json_rpc
from engram.payments.facilitator import HttpFacilitator
from engram.payments.ports import PaymentPorts
from engram.payments.purchasing import Purchasing, Quotes
from engram.payments.refund_key import RefundKey
from engram.payments.refund_settings import open_refund_key, with_play_recipient
from engram.payments.supported import FacilitatorStatus
from engram.payments.supported_poller import SupportedPoller
from engram.roles.facilitator import facilitator
from engram.roles.shared import Shared
from engram.sessions import SystemInstants
from engram.xeris.credit_handlers import Credits
from engram.xeris.selling import Selling

MICROS: Final = 1_000_000


def open_payments(settings: Settings, folder: Path) -> tuple[Settings, Callable[[Shared, Listener], "PaidSubmissions"]]:
    """Open the refund key; return the settings with the recipient of play money, and what makes the subtree.

    Raises UnusableRefundKey, OSError.
    """
    key = open_refund_key(settings, folder)
    return with_play_recipient(settings, key), lambda p, listener: PaidSubmissions(p, listener, key)


@final
class PaidSubmissions:
    """The subtree that takes payments, and the shop of the surface."""

    def __init__(self, p: Shared, listener: Listener, refund_key: RefundKey | None) -> None:
        """Raise UnknownNetwork, MalformedAddress, ValueError for a malformed setting."""
        settings, at = p.settings, p.settings.xeris
        self._p = p
        status = FacilitatorStatus(
            Breaker(p.clock, settings.payments.breaker_failures, settings.payments.breaker_open_s)
        )
        url = self._facilitator_url()
        pays = settings.payments
        sender = HttpFacilitator(
            p.http, url, verify_timeout_s=pays.verify_timeout_s, settle_timeout_s=pays.settle_timeout_s
        )
        self._ports = PaymentPorts(
            registry=p.registry,
            settings=settings,
            ledger=p.ledger,
            facilitator=GuardedFacilitator(sender, status.breaker),
            instants=SystemInstants(),
            ids=p.ids,
            metrics=p.metrics,
            hints=Hints(),
            places=lambda wanted: 0,
            refund_key=refund_key,
            evidence=self._evidence(),
        )
        self._supported = SupportedPoller(p.http, url, networks.find(pays.network), status, pays.supported_interval_s)

        async def refusal(_: int) -> NoRoom | None:
            return None

        verifier = p.registry.ref(PaymentVerifier, PAYMENT_VERIFIER)
        self.use = prepaid.use
        self.shop = Credits(
            Selling(
                p.ledger,
                Quotes(settings, lambda: at.public_url.rstrip("/") or listener.url),
                Purchasing(settings, p.ledger, verifier, lambda wanted: 0, refusal),
                units=at.submissions_a_payment,
                amount=round(at.submission_usd * MICROS * at.submissions_a_payment),
            )
        )

    def children(self) -> list[ChildSpec | SupervisorSpec]:
        """Return the children that take payments, the play-money facilitator where it is embedded."""
        p = self._p
        return [
            *([facilitator(p)] if p.settings.payments.facilitator_url == "embedded" else []),
            SupervisorSpec(
                "payments",
                [
                    SupervisorSpec(
                        "purchases",  # one child per payment
                        strategy="dynamic",
                        max_children=2 * p.settings.payments.concurrency,
                        name=PURCHASES,
                    ),
                    ChildSpec("payment_verifier", lambda: PaymentVerifier(self._ports), name=PAYMENT_VERIFIER),
                    ChildSpec("facilitator_supported", lambda: Job(self._supported.run)),
                ],
                strategy="rest_for_one",
            ),
        ]

    def _facilitator_url(self) -> Callable[[], str]:
        named, played = self._p.settings.payments.facilitator_url, self._p.settings.facilitator
        if named != "embedded":
            return lambda: named
        embedded = self._p.listener("facilitator", played.host, played.port)
        return lambda: embedded.url

    def _evidence(self) -> Evidence | None:
        settings = self._p.settings.payments
        if not settings.rpc_url:
            return None
        call = json_rpc(self._p.http, settings.rpc_url, settings.rpc_timeout_s)
        return EvmRpc(call, networks.find(settings.network), settings.confirmations)
