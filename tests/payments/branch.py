"""The payments branch of the gateway's tree, over whatever ports a test gives it."""

from actors import ChildSpec, SupervisorSpec
from engram.payments.actor import PAYMENT_VERIFIER, PURCHASES, PaymentVerifier
from engram.payments.ports import PaymentPorts


def payments_branch(ports: PaymentPorts) -> SupervisorSpec:
    return SupervisorSpec(
        "payments",
        [
            SupervisorSpec(
                PURCHASES, strategy="dynamic", max_children=2 * ports.settings.payments.concurrency, name=PURCHASES
            ),
            ChildSpec(PAYMENT_VERIFIER, lambda: PaymentVerifier(ports), name=PAYMENT_VERIFIER),
        ],
        strategy="rest_for_one",
    )
