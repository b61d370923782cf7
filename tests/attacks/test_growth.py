"""Attempts that cost nothing leave nothing behind for ever."""

import trio
from sqlalchemy import Table, func, select
from trio.testing import MockClock

from engram.clock import TrioClock
from engram.payments import retention
from engram.payments.actor import FORGET_EVERY_S
from engram.payments.model import PaymentState
from engram.payments.protocol import Extension
from engram.payments.purchase_answer import Bought, Refused
from engram.payments.tables import answered_requests, payments
from engram.sessions import ClockInstants, SessionEvent, history
from engram.sessions import records as session_records
from engram.sessions.tables import session_events, sessions
from tests.fakes.facilitator import FakeFacilitator
from tests.payments import builders
from tests.payments.shop import Shop, open_shop

DAY = 86_400.0


def rows(shop: Shop, *tables: Table) -> list[int]:
    counts = [select(func.count()).select_from(table) for table in tables]
    return shop.read(lambda c: [c.execute(count).scalar_one() for count in counts])


def poor(balance: int) -> FakeFacilitator:
    return FakeFacilitator(TrioClock(builders.NOW), balance)


async def test_unpaid_attempts_are_forgotten_and_what_was_paid_is_kept(autojump_clock: MockClock) -> None:
    async with open_shop(facilitator=poor(100_000)) as shop:
        assert isinstance(await shop.buy(shop.purchase("paid")), Bought)
        session_id = shop.payment("paid").session_id
        now = ClockInstants(shop.clock).now()
        shop.read(lambda c: session_records.transition(c, session_id, SessionEvent.NODE_READY, now))
        for number in range(20):
            assert isinstance(await shop.buy(shop.purchase(f"unpaid {number}")), Refused)
        more = Extension(session_id, 3_600.0)
        assert isinstance(await shop.buy(shop.purchase("unpaid extension", wanted=more)), Refused)
        assert rows(shop, payments, sessions) == [22, 21]
        autojump_clock.jump(DAY)
        await trio.sleep(2 * FORGET_EVERY_S)
        assert rows(shop, payments, sessions, answered_requests) == [1, 1, 0]
        assert shop.payment("paid").state is PaymentState.SETTLED
        assert shop.session(session_id).id == session_id
        (events,) = rows(shop, session_events)
        assert events == len(shop.read(lambda c: history.events_since(c, session_id)))


async def test_more_than_can_be_forgotten_at_once_is_forgotten_soon(autojump_clock: MockClock) -> None:
    async with open_shop(facilitator=poor(0)) as shop:
        for number in range(40):
            await shop.buy(shop.purchase(f"unpaid {number}"))
        before = shop.clock.now() + DAY
        dropped = [shop.read(lambda c: retention.forget_unpaid(c, before, 15)) for _ in range(4)]
        assert dropped == [15, 15, 10, 0]


async def test_what_is_still_open_is_not_forgotten(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        shop.facilitator.settle_faults.extend(["lost_before"] * 10)
        await shop.buy(shop.purchase("open"))
        before = shop.clock.now() + DAY
        assert shop.read(lambda c: retention.forget_unpaid(c, before)) == 0
