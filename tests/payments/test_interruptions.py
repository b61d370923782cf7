"""The process dies at any commit and around any call of the facilitator: money moves once, the session is one."""

import pytest
import trio
from trio.testing import MockClock

from engram.clock import TrioClock
from engram.ledger import InlineLedger, LedgerUnavailable, open_inline
from engram.payments.model import PaymentState
from engram.payments.protocol import Extension
from engram.payments.purchase_answer import Bought, StillPending
from engram.sessions import SessionState
from tests.fakes.facilitator import FakeFacilitator
from tests.payments import builders
from tests.payments.shop import Shop, open_shop

POINTS = [
    *(f"{side}:{number}" for number in (1, 2, 3) for side in ("begin", "commit")),
    "verify",
    "settle:before",
    "settle:after",
]


class Death:
    """Stops everything at one point: nothing is written and nobody is asked afterwards."""

    def __init__(self, at: str, ledger: InlineLedger, facilitator: FakeFacilitator, scope: trio.CancelScope) -> None:
        self._at = at
        self._commits = 0
        self._scope = scope
        self.came = False
        ledger.before_commit = self._before
        ledger.after_commit = self._after
        facilitator.passing = self._pass

    def _pass(self, point: str) -> None:
        if point == self._at:
            self.came = True
            self._scope.cancel()

    def _before(self) -> None:
        self._pass(f"begin:{self._commits + 1}")
        if self.came:
            raise LedgerUnavailable("the process is dead")

    def _after(self) -> None:
        self._commits += 1
        self._pass(f"commit:{self._commits}")


def revive(ledger: InlineLedger, facilitator: FakeFacilitator) -> None:
    ledger.before_commit = ledger.after_commit = None
    facilitator.passing = lambda point: None


async def settled_after_restart(shop: Shop) -> None:
    """Wait until no payment is open."""
    with trio.fail_after(60):
        while any(p.next_attempt_at is not None for p in shop.payments()):  # noqa: ASYNC110 - virtual time
            await trio.sleep(0.5)


@pytest.mark.parametrize("client_retries", [True, False])
@pytest.mark.parametrize("point", POINTS)
async def test_a_purchase_interrupted_anywhere_is_paid_once_and_serves_one_session(
    autojump_clock: MockClock, point: str, client_retries: bool
) -> None:
    ledger = open_inline()
    facilitator = FakeFacilitator(TrioClock(builders.NOW))
    with trio.CancelScope() as scope:
        async with open_shop(ledger, facilitator) as shop:
            purchase = shop.purchase()
            await trio.sleep(0.1)  # the first reading, which writes
            death = Death(point, ledger, facilitator, scope)
            await shop.buy(purchase)
    assert death.came
    revive(ledger, facilitator)
    async with open_shop(ledger, facilitator) as shop:
        if client_retries:
            with trio.fail_after(30):
                while not isinstance(answer := await shop.buy(purchase), Bought):
                    assert isinstance(answer, StillPending)
                    await trio.sleep(answer.retry_after_s)
        await settled_after_restart(shop)
        sold = [shop.session(payment.session_id) for payment in shop.payments()]
        assert len(sold) <= 1
        assert facilitator.transfers == len(sold)
        assert facilitator.settlements <= 2
        assert client_retries <= len(sold)
        for payment in shop.payments():
            assert payment.state is PaymentState.SETTLED
        for session in sold:
            assert session.state is SessionState.PROVISIONING
    ledger.close()


@pytest.mark.parametrize("point", POINTS)
async def test_an_extension_interrupted_anywhere_adds_its_seconds_once(autojump_clock: MockClock, point: str) -> None:
    ledger = open_inline()
    facilitator = FakeFacilitator(TrioClock(builders.NOW))
    with trio.CancelScope() as scope:
        async with open_shop(ledger, facilitator) as shop:
            bought = await shop.buy(shop.purchase("first"))
            assert isinstance(bought, Bought)
            session_id = bought.payment.session_id
            more = shop.purchase("more", wanted=Extension(session_id, 1800.0))
            death = Death(point, ledger, facilitator, scope)
            await shop.buy(more)
    assert death.came
    revive(ledger, facilitator)
    async with open_shop(ledger, facilitator) as shop:
        assert isinstance(await shop.buy(more), Bought)
        await settled_after_restart(shop)
        extended = shop.session(session_id)
        assert (extended.paid_s, extended.pending_extensions) == (5400.0, 0)
        assert facilitator.transfers == 2
    ledger.close()
