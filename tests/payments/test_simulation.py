"""Many buyers, faults everywhere, deaths at any step: at the end, what was paid was sold or sent back."""

import hashlib
import random
from collections import Counter
from typing import Any

import pytest
import trio

from actors import ActorDown, ActorsError
from actors.testing import run_deterministic
from engram.clock import TrioClock
from engram.ledger import InlineLedger, LedgerUnavailable, open_inline
from engram.payments import records, rules
from engram.payments.model import PaymentKind, PaymentState
from engram.payments.protocol import Extension, Purchase
from engram.payments.purchase_answer import Bought, NoRoom, Refused
from engram.payments.refund_key import RefundKey
from engram.sessions import SessionState
from tests.crashes import may_crash
from tests.fakes.facilitator import FakeFacilitator, Fault
from tests.payments import builders
from tests.payments.shop import Shop, open_shop, wide
from tests.sampling import sample

SETTLE_FAULTS: list[Fault] = [
    "not_sent", "lost_before", "lost_after", "pending_after", "no_proof_after", "slow", "crash",
]  # fmt: skip
VERIFY_FAULTS: list[Fault] = ["not_sent", "lost_after", "slow", "crash"]
KEY = RefundKey(hashlib.sha256(b"refund key").digest())
FLOAT = 1_000_000_000
LIVES = 4
BUYERS = 12


class World:
    """What outlives the process: the ledger and the facilitator; and when the process dies next."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.ledger: InlineLedger = open_inline()
        self.facilitator = FakeFacilitator(TrioClock(builders.NOW), balance=900_000)
        self.facilitator.moved[KEY.address] = -FLOAT
        self.facilitator.passing = lambda point: self.step()
        self.ledger.before_commit = self.step
        self.ledger.after_commit = self.step
        self.scope = trio.CancelScope()
        self.steps_left = 0

    def begin_life(self) -> trio.CancelScope:
        self.scope = trio.CancelScope()
        self.steps_left = self.rng.randint(5, 120)
        for faults, kinds in (
            (self.facilitator.settle_faults, SETTLE_FAULTS),
            (self.facilitator.verify_faults, VERIFY_FAULTS),
        ):
            faults.clear()
            faults.extend(self.rng.choice(kinds) for _ in range(self.rng.randint(0, 10)))
        return self.scope

    def step(self) -> None:
        self.steps_left -= 1
        if self.steps_left == 0:
            self.scope.cancel()
        if self.steps_left <= 0:
            raise LedgerUnavailable("the process is dead")

    def immortal(self) -> None:
        self.ledger.before_commit = self.ledger.after_commit = None
        self.facilitator.passing = lambda point: None
        self.facilitator.settle_faults.clear()
        self.facilitator.verify_faults.clear()


async def visit(world: World, shop: Shop, pool: list[Purchase]) -> None:
    """One buyer: buys something now and then, and sometimes stops what it bought."""
    rng = world.rng
    for _ in range(3):
        await trio.sleep(rng.uniform(0, 10))
        if not pool or rng.random() < 0.5:
            text = f"payment {len(pool)}"
            wanted: dict[str, Any] = {}
            if pool and rng.random() < 0.4 and (sold := [p for p in shop.payments() if p.kind is PaymentKind.SESSION]):
                chosen = rng.choice(sold)
                wanted = {"wanted": Extension(chosen.session_id, 600.0), "controller": chosen.controller}
            pool.append(shop.purchase(text, **{"controller": rng.choice([builders.ALICE, builders.BOB]), **wanted}))
        purchase = rng.choice(pool)
        try:
            answer = await shop.buy(purchase)
        except ActorsError:
            continue
        key = (purchase.payload.authorization.payer, purchase.payload.authorization.nonce)
        if isinstance(answer, Refused):
            assert key not in world.facilitator.settled
        if isinstance(answer, Bought):
            assert key in world.facilitator.settled
            if rng.random() < 0.2:
                shop.stop_session(answer.payment.session_id)
        if isinstance(answer, NoRoom) and rng.random() < 0.2:
            await trio.sleep(5)


async def simulate(seed: int) -> Counter[str]:
    world = World(seed)
    pool: list[Purchase] = []
    for _ in range(LIVES):
        settings = wide(concurrency=world.rng.choice([1, 4, 64]))
        places = world.rng.choice([3, 1_000])
        with world.begin_life():
            try:
                async with (
                    open_shop(
                        world.ledger, world.facilitator, settings=settings, places=places, refund_key=KEY
                    ) as shop,
                    trio.open_nursery() as buyers,
                ):
                    for _ in range(BUYERS):
                        buyers.start_soon(visit, world, shop, pool)
                    buyers.start_soon(trio.sleep, world.rng.uniform(0, 60))
            except* (LedgerUnavailable, ActorDown):
                pass
    world.immortal()
    async with open_shop(world.ledger, world.facilitator, refund_key=KEY) as shop:
        with trio.fail_after(2_000):
            while any(p.next_attempt_at is not None for p in shop.payments()):  # noqa: ASYNC110 - virtual time
                await trio.sleep(1)
        judge(world, shop)
        return Counter(str(payment.state) for payment in shop.payments())


def judge(world: World, shop: Shop) -> None:
    payments = shop.payments()
    sold = [payment for payment in payments if payment.kind is PaymentKind.SESSION]
    assert len({payment.session_id for payment in sold}) == len(sold)
    extensions: Counter[str] = Counter()
    for payment in payments:
        paid = (payment.payer, payment.nonce) in world.facilitator.settled
        refunds = shop.read(lambda connection, p=payment: records.refunds_of(connection, p.id))  # type: ignore[misc]
        session = shop.session(payment.session_id)
        if payment.quarantined_at is not None:
            continue
        assert paid == (payment.state in rules.PAID), payment
        given_back = payment.state is PaymentState.REFUNDED
        assert payment.state not in rules.OWED, "it has a key and all the time it wants"
        assert sum(refund.amount for refund in refunds) == (payment.amount if given_back else 0)
        sent = [world.facilitator.settled[KEY.address, refund.nonce] for refund in refunds]
        assert [(one.pay_to, one.value) for one in sent] == [(payment.payer, r.amount) for r in refunds]
        match payment.kind, payment.state:
            case PaymentKind.SESSION, PaymentState.SETTLED:
                assert session.state in (SessionState.PROVISIONING, SessionState.STOPPING)
            case PaymentKind.SESSION, _:
                assert session.state in (SessionState.FAILED, SessionState.STOPPING)
            case PaymentKind.EXTENSION, PaymentState.SETTLED:
                extensions[payment.session_id] += 1
            case PaymentKind.EXTENSION, _:
                pass
            case PaymentKind.CREDIT, _:
                raise AssertionError("this shop sells no credits")
    stuck = {payment.session_id for payment in payments if payment.quarantined_at is not None}
    for payment in sold:
        session = shop.session(payment.session_id)
        if session.id not in stuck:
            assert session.pending_extensions == 0
            assert session.paid_s == 3600.0 + 600.0 * extensions[session.id]
    assert world.facilitator.transfers == len(world.facilitator.settled)
    assert sum(world.facilitator.moved.values()) + FLOAT == sum(a.value for a in world.facilitator.settled.values())


@may_crash(ZeroDivisionError, LedgerUnavailable)
@pytest.mark.parametrize("seed", sample("payments simulation", range(300), 12))
def test_what_was_paid_is_what_was_sold_or_is_owed_back(seed: int) -> None:
    run_deterministic(simulate, seed, seed=seed)
