"""Nobody gets time that is not paid for, and no price but the one that is shown."""

import trio
from trio.testing import MockClock

from engram.payments import records
from engram.payments.model import PaymentKind, PaymentState, RefundState
from engram.payments.protocol import Extension
from engram.payments.purchase_answer import StillPending
from engram.sessions import ClockInstants, EndReason, SessionEvent, paid_clock
from engram.sessions import records as session_records
from engram.sessions import rules as session_rules
from tests.payments.shop import Shop, open_shop


async def running_session(shop: Shop) -> str:
    await shop.buy(shop.purchase("first"))
    session_id = shop.payment("first").session_id
    now = ClockInstants(shop.clock).now()
    shop.read(lambda c: session_records.transition(c, session_id, SessionEvent.NODE_READY, now))
    return session_id


def expired(shop: Shop) -> list[str]:
    now = ClockInstants(shop.clock).now()
    return shop.read(lambda c: paid_clock.expired(c, now))


async def test_an_extension_whose_outcome_stays_open_buys_no_time(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        session_id = await running_session(shop)
        await trio.sleep(3_590)
        shop.facilitator.settle_faults.extend(["lost_before"] * 1_000)
        pending = await shop.buy(shop.purchase("more", wanted=Extension(session_id, 3_600.0)))
        assert isinstance(pending, StillPending)
        await trio.sleep(20 + session_rules.EXTENSION_PAUSE_S / 2)
        assert expired(shop) == []  # an honest buyer's payment has time to be decided
        await trio.sleep(session_rules.EXTENSION_PAUSE_S / 2)
        assert expired(shop) == [session_id]


async def test_an_extension_that_settles_after_the_session_ended_is_owed_back(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        session_id = await running_session(shop)
        shop.facilitator.settle_faults.extend(["lost_after", "lost_before", "lost_before"])
        await shop.buy(shop.purchase("more", wanted=Extension(session_id, 3_600.0)))
        now = ClockInstants(shop.clock).now()
        shop.read(lambda c: session_records.transition(c, session_id, SessionEvent.END, now, reason=EndReason.EXPIRED))
        await trio.sleep(60)
        payment = shop.payment("more")
        assert (payment.kind, payment.state) == (PaymentKind.EXTENSION, PaymentState.REFUND_DUE)
        (refund,) = shop.read(lambda c: records.refunds_of(c, payment.id))
        assert (refund.state, refund.amount, refund.address) == (RefundState.DUE, payment.amount, payment.payer)
        session = shop.session(session_id)
        assert (session.paid_s, session.pending_extensions) == (3_600.0, 0)


async def test_an_open_payment_is_worked_on_although_the_clock_was_set_back(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        shop.facilitator.settle_faults.extend(["lost_before"] * 1_000)
        await shop.buy(shop.purchase("first"))
        assert shop.payment("first").state is PaymentState.UNKNOWN
        yesterday = shop.clock.now() - 86_400
        assert [payment.id for payment in shop.read(lambda c: records.due(c, yesterday, 10))] == [
            shop.payment("first").id
        ]


async def test_a_buyer_who_waits_is_told_how_the_payment_stands_now(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        shop.facilitator.settle_faults.extend(["lost_before"] * 1_000)
        answer = await shop.buy(shop.purchase("first"))
        assert isinstance(answer, StillPending)
        assert answer.payment.state is PaymentState.UNKNOWN
