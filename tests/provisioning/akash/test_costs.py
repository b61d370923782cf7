"""What nodes cost, beside what their sessions brought: what is refunded is no income."""

import pytest

from engram import sessions
from engram.ledger.inline import InlineLedger, open_inline
from engram.payments import records as payment_records
from engram.payments import reservations
from engram.payments.rules import PaymentEvent
from engram.provisioning.akash import costs, records
from engram.provisioning.akash.model import DeploymentState
from engram.sessions import SessionEvent
from tests.payments.builders import instant, nonce, reservation
from tests.provisioning.akash.deployments import a_row

PRICE = 100_000


def sold(ledger: InlineLedger, name: str, *events: SessionEvent, cost_uact: int, refund: int | None = 0) -> None:
    """A session for a tenth of a dollar and its closed deployment; `refund` None: all of it."""
    wanted = reservation(name, controller=nonce(name), payer=nonce(name)[:20])
    ledger.write_now(lambda c: reservations.reserve(c, wanted))
    for event in (PaymentEvent.VERIFIED, PaymentEvent.SETTLED):
        ledger.write_now(
            lambda c, e=event: payment_records.advance(c, wanted.payment.id, e, instant(1.0), transaction="0x1")  # type: ignore[misc]
        )
    session_id = wanted.payment.session_id
    for happened in events:
        ledger.write_now(lambda c, e=happened: sessions.records.transition(c, session_id, e, instant(2.0)))  # type: ignore[misc]
    if refund != 0:
        ledger.write_now(
            lambda c: payment_records.mark_refund_due(c, wanted.payment.id, "not delivered", instant(3.0), refund)
        )
    row = a_row(
        DeploymentState.CLOSED,
        dseq=int.from_bytes(nonce(name)[:6], "big"),
        token=name,
        session_id=session_id,
        hash=nonce(name),
        closed_at=10.0,
        cost_uact=cost_uact,
    )
    ledger.write_now(lambda c: records.insert_deployment(c, row))


SERVED = (SessionEvent.NODE_READY, SessionEvent.END, SessionEvent.DESTROYED)


def margin(ledger: InlineLedger) -> float | None:
    return costs.margin(ledger.write_now(lambda c: costs.of_sessions(c, 20.0, 0.0)), 1.0)


def test_what_was_refunded_is_no_income() -> None:
    ledger = open_inline()
    sold(ledger, "served", *SERVED, cost_uact=PRICE // 2)
    assert margin(ledger) == pytest.approx(0.5)
    for number in range(9):
        sold(ledger, f"given up {number}", SessionEvent.PROVISION_FAILED, cost_uact=1_000, refund=None)
    assert margin(ledger) == pytest.approx(1.0 - (PRICE // 2 + 9_000) / PRICE)
    sold(ledger, "half", *SERVED, cost_uact=0, refund=PRICE // 2)
    assert margin(ledger) == pytest.approx(1.0 - (PRICE // 2 + 9_000) / (PRICE + PRICE // 2))
    shown = {one.session_id: one for one in ledger.write_now(lambda c: costs.of_sessions(c, 20.0, 0.0))}
    assert shown["session of half"].refunded_usd_micros == PRICE // 2
    assert shown["session of served"].refunded_usd_micros == 0
    ledger.close()


def test_a_session_that_is_not_over_has_no_margin_yet() -> None:
    """Its node was closed, and it gets another one, or a refund."""
    ledger = open_inline()
    sold(ledger, "between two nodes", SessionEvent.NODE_READY, SessionEvent.DEGRADE, cost_uact=5_000)
    assert margin(ledger) is None
    ledger.close()


def test_where_everything_was_refunded_there_is_no_share_of_it() -> None:
    ledger = open_inline()
    sold(ledger, "given up", SessionEvent.PROVISION_FAILED, cost_uact=5_000, refund=None)
    assert margin(ledger) is None
    ledger.close()
