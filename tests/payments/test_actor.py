"""The payment verifier in virtual time: one payment buys once, and what is not known is never told as failed."""

from typing import Any

import msgspec
import pytest
import trio
from sqlalchemy import Connection, func, select
from trio.testing import MockClock

from actors import ActorDown, Crashed
from actors.testing import recording
from engram.clock import ManualClock
from engram.hints import Hints
from engram.ledger import LedgerUnavailable, open_inline
from engram.payments import records, reservations
from engram.payments.facilitator import Facilitator
from engram.payments.model import PaymentState
from engram.payments.networks import BASE
from engram.payments.protocol import Extension, NewSession, Purchase
from engram.payments.purchase_answer import Bought, CannotNow, Conflict, NoRoom, Refused, Replayed, StillPending
from engram.payments.rules import PaymentEvent
from engram.payments.tables import answered_requests
from engram.provisioning.actor import PROVISIONER, Provisioner
from engram.provisioning.protocol import SessionChanged
from engram.sessions import SessionState, TierName, counts
from tests.crashes import may_crash
from tests.fakes.facilitator import FakeFacilitator, Fault
from tests.payments import builders
from tests.payments.shop import Shop, open_shop, wide


async def settle_down(shop: Shop, text: str = "a nonce", *, until: PaymentState, within_s: float = 900.0) -> None:
    """Let virtual time pass until the payment is in that state."""
    with trio.fail_after(within_s):
        while shop.payment(text).state is not until:  # noqa: ASYNC110 - virtual time: this is what makes it pass
            await trio.sleep(0.5)


async def test_a_payment_buys_a_session(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        answer = await shop.buy(shop.purchase())
        assert isinstance(answer, Bought)
        assert answer.payment.state is PaymentState.SETTLED
        session = shop.session(answer.payment.session_id)
        assert (session.state, session.paid_s, session.network) == (SessionState.PROVISIONING, 3600.0, "engram-play")
        assert shop.hints.changed == [session.id]
        assert shop.facilitator.transfers == 1


async def test_a_hint_that_is_lost_is_counted_and_costs_the_payment_nothing(autojump_clock: MockClock) -> None:
    class ToNobody(Hints):
        def session_changed(self, session_id: str) -> None:
            assert shop.system is not None
            assert not shop.system.registry.ref(Provisioner, PROVISIONER).hint(SessionChanged(session_id))

    async with open_shop(hints=ToNobody()) as shop:
        answer = await shop.buy(shop.purchase())
        assert isinstance(answer, Bought)
        assert shop.payment().state is PaymentState.SETTLED
        assert shop.metrics.registry.get_sample_value("engram_hints_lost_total", {"to": "provisioner"}) == 1


async def test_fifty_racing_posts_of_one_payment_buy_one_session(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        answers: list[object] = []

        async def post() -> None:
            answers.append(await shop.buy(shop.purchase()))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(post)
        assert len({answer.payment.session_id for answer in answers if isinstance(answer, Bought)}) == 1
        assert len(answers) == 50
        assert (shop.facilitator.transfers, shop.facilitator.settlements, len(shop.payments())) == (1, 1, 1)


async def test_a_payment_that_another_gateway_of_the_ledger_decides_is_answered_soon(autojump_clock: MockClock) -> None:
    ledger = open_inline()
    reservation = builders.reservation()

    def advance(event: PaymentEvent) -> None:
        advanced = ledger.write_now(
            lambda connection: records.advance(connection, reservation.payment.id, event, builders.instant())
        )
        assert advanced is not None

    ledger.write_now(lambda connection: reservations.reserve(connection, reservation))
    advance(PaymentEvent.VERIFIED)
    advance(PaymentEvent.UNCLEAR)
    unknown = ledger.read_now(lambda connection: records.get(connection, reservation.payment.id))
    assert unknown is not None
    ledger.write_now(lambda connection: records.look_again(connection, unknown, None))  # not for this process to do
    async with open_shop(ledger) as shop:
        answers: list[object] = []

        async def buy() -> None:
            purchase = shop.purchase()
            answers.append(await shop.buy(with_order(purchase, request_hash=reservation.payment.request_hash)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(buy)
            await trio.sleep(3.0)
            assert answers == []
            advance(PaymentEvent.SETTLED)
            decided = trio.current_time()
        assert isinstance(answers[0], Bought)
        assert trio.current_time() - decided <= 1.0
        assert shop.facilitator.settlements == 0, "this process did nothing for it"
    ledger.close()


async def test_racing_requests_of_others_with_one_payment_are_conflicts(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        answers: list[object] = []

        async def post(n: int) -> None:
            answers.append(await shop.buy(shop.purchase(request=str(n), message=str(n))))

        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(post, n)
        assert sum(isinstance(answer, Bought) for answer in answers) == 1
        assert sum(isinstance(answer, Conflict) for answer in answers) == 19
        assert shop.facilitator.transfers == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"controller": builders.BOB},
        {"request": "dearer", "wanted": NewSession(TierName.PRO, 3600.0)},
        {"request": "longer", "wanted": NewSession(TierName.LITE, 7200.0)},
        {"request": "dearer", "quote": builders.quote(999_999)},
    ],
)
async def test_a_used_payment_buys_nothing_else_and_discloses_nothing(
    autojump_clock: MockClock, changes: dict[str, Any]
) -> None:
    async with open_shop() as shop:
        first = shop.purchase()
        await shop.buy(first)
        other = shop.purchase(**({"request": "a nonce", "message": "another"} | changes))
        replayed = msgspec.structs.replace(other, payload=first.payload, key=first.key)
        answer = await shop.buy(replayed)
        assert isinstance(answer, Conflict)
        assert first.order.request_hash.hex() not in answer.message


async def test_the_same_request_gets_its_session_again_also_when_its_payment_has_expired(
    autojump_clock: MockClock,
) -> None:
    async with open_shop() as shop:
        purchase = shop.purchase()
        first = await shop.buy(purchase)
        await trio.sleep(1000)
        again = await shop.buy(purchase)
        assert isinstance(first, Bought)
        assert isinstance(again, Bought)
        assert again.payment.session_id == first.payment.session_id


async def test_a_signed_request_is_not_replayed_with_another_payment_for_another_thing(
    autojump_clock: MockClock,
) -> None:
    async with open_shop() as shop:
        first = await shop.buy(shop.purchase("one", message="m", request="r"))
        assert isinstance(first, Bought)
        assert isinstance(await shop.buy(shop.purchase("two", message="m", request="s")), Replayed)
        same = await shop.buy(shop.purchase("three", message="m", request="r"))
        assert isinstance(same, Bought)
        assert same.payment.id == first.payment.id
        assert shop.facilitator.transfers == 1


def with_order(purchase: Purchase, **changes: Any) -> Purchase:
    return msgspec.structs.replace(purchase, order=msgspec.structs.replace(purchase.order, **changes))


async def test_a_payment_on_other_terms_asks_nobody(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        cheap = shop.purchase(quote=builders.quote(1))
        answer = await shop.buy(with_order(cheap, quote=builders.quote(100_000)))
        assert isinstance(answer, Refused)
        assert answer.code == "invalid_payment_requirements"
        elsewhere = await shop.buy(with_order(cheap, quote=builders.quote(1, BASE)))
        assert isinstance(elsewhere, Refused)
        assert elsewhere.code == "network_mismatch"
        assert (shop.facilitator.verifications, shop.payments()) == (0, [])


async def test_a_buyer_without_funds_is_refused_and_may_try_again(autojump_clock: MockClock) -> None:
    async with open_shop(facilitator=None) as shop:
        shop.facilitator.moved[builders.PAYER] = 1_000_000_000
        purchase = shop.purchase()
        answer = await shop.buy(purchase)
        assert isinstance(answer, Refused)
        assert answer.code == "invalid_exact_evm_insufficient_balance"
        assert shop.session(shop.payment().session_id).state is SessionState.FAILED
        shop.facilitator.moved.clear()
        again = await shop.buy(purchase)
        assert isinstance(again, Bought)
        assert len(shop.payments()) == 1


AFTER: list[Fault] = ["lost_after", "pending_after", "no_proof_after", "lost_before"]


@pytest.mark.parametrize("fault", AFTER)
async def test_an_unclear_settlement_is_asked_again_until_it_is_known(autojump_clock: MockClock, fault: Fault) -> None:
    async with open_shop() as shop:
        shop.facilitator.settle_faults.append(fault)
        answer = await shop.buy(shop.purchase())
        assert isinstance(answer, Bought)
        assert (shop.facilitator.transfers, shop.facilitator.settlements) == (1, 2)
        assert shop.payment().transaction_hash is not None


@pytest.mark.parametrize("fault", AFTER)
async def test_an_outcome_that_stays_unknown_is_pending_and_never_refused(
    autojump_clock: MockClock, fault: Fault
) -> None:
    async with open_shop() as shop:
        shop.facilitator.settle_faults.extend([fault] * 5)
        began = trio.current_time()
        purchase = shop.purchase()
        answer = await shop.buy(purchase)
        assert isinstance(answer, StillPending)
        assert trio.current_time() - began <= 10
        assert answer.retry_after_s > 0
        again = await shop.buy(purchase)
        assert isinstance(again, StillPending | Bought)
        await settle_down(shop, until=PaymentState.SETTLED)
        final = await shop.buy(purchase)
        assert isinstance(final, Bought)
        assert final.payment.session_id == answer.payment.session_id
        assert shop.facilitator.transfers == 1


async def test_an_authorization_that_expires_unused_is_void_and_frees_its_place(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        shop.facilitator.settle_faults.extend(["lost_before"] * 7)
        purchase = shop.purchase()
        assert isinstance(await shop.buy(purchase), StillPending)
        await settle_down(shop, until=PaymentState.VOID)
        assert shop.session(shop.payment().session_id).state is SessionState.FAILED
        assert isinstance(await shop.buy(purchase), Refused)
        assert shop.facilitator.transfers == 0


@pytest.mark.parametrize("where", ["verify", "settle"])
async def test_a_facilitator_that_cannot_be_reached_takes_no_money_and_the_request_can_come_again(
    autojump_clock: MockClock, where: str
) -> None:
    async with open_shop() as shop:
        faults = shop.facilitator.verify_faults if where == "verify" else shop.facilitator.settle_faults
        faults.append("not_sent")
        purchase = shop.purchase()
        answer = await shop.buy(purchase)
        assert isinstance(answer, CannotNow)
        assert answer.retry_after_s > 0
        assert isinstance(await shop.buy(purchase), Bought)
        assert shop.facilitator.transfers == 1


async def test_a_refused_payment_that_has_expired_meanwhile_is_told_so(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        shop.facilitator.verify_faults.append("not_sent")
        purchase = shop.purchase()
        assert isinstance(await shop.buy(purchase), CannotNow)
        await trio.sleep(110)
        answer = await shop.buy(purchase)
        assert isinstance(answer, Refused)
        assert answer.code == "invalid_exact_evm_payload_authorization_valid_before"
        assert isinstance(await shop.buy(with_order(purchase, controller=builders.BOB)), Conflict)


async def test_a_stopped_session_stays_stopped_when_its_request_comes_again(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        shop.facilitator.verify_faults.append("slow")
        purchase = shop.purchase()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shop.buy, purchase)
            await trio.sleep(1)
            shop.stop_session(shop.payment().session_id)
        again = await shop.buy(purchase)
        assert isinstance(again, NoRoom)
        assert again.code == "session_over"
        assert shop.facilitator.transfers == 0


async def test_a_hanging_purchase_is_pending_in_time_and_slows_nobody(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        stuck = [f"stuck {n}" for n in range(30)]
        shop.facilitator.hanging_nonces |= {builders.nonce(text) for text in stuck}
        answers: dict[str, tuple[object, float]] = {}

        async def post(text: str) -> None:
            began = trio.current_time()
            answer = await shop.buy(shop.purchase(text, controller=builders.nonce(text)))
            answers[text] = (answer, trio.current_time() - began)

        async with trio.open_nursery() as nursery:
            for text in [*stuck, *(f"quick {n}" for n in range(30))]:
                nursery.start_soon(post, text)
        for text, (answer, took_s) in answers.items():
            if text in stuck:
                assert isinstance(answer, StillPending)
                assert 8.0 <= took_s <= 10.0
            else:
                assert isinstance(answer, Bought)
                assert took_s < 0.5


async def test_more_payments_than_children_wait_for_their_turn(autojump_clock: MockClock) -> None:
    async with open_shop(settings=wide(concurrency=2)) as shop:
        shop.facilitator.settle_faults.extend(["slow"] * 3)
        answers: list[object] = []

        async def post(n: int) -> None:
            answers.append(await shop.buy(shop.purchase(f"p{n}")))

        async with trio.open_nursery() as nursery:
            for n in range(6):
                nursery.start_soon(post, n)
        assert len(answers) == 6
        for n in range(6):
            await settle_down(shop, f"p{n}", until=PaymentState.SETTLED)
        assert shop.facilitator.transfers == 6


async def test_unknown_payments_leave_children_for_new_purchases(autojump_clock: MockClock) -> None:
    async with open_shop(settings=wide(concurrency=4)) as shop:
        for n in range(8):
            shop.facilitator.settle_faults.append("lost_before")
            with trio.move_on_after(0.5):
                await shop.buy(shop.purchase(f"old {n}"))
        shop.facilitator.hanging_nonces |= {builders.nonce(f"old {n}") for n in range(8)}
        await trio.sleep(30)
        began = trio.current_time()
        assert isinstance(await shop.buy(shop.purchase("new")), Bought)
        assert trio.current_time() - began < 1


async def test_work_goes_on_when_the_caller_goes_away(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        shop.facilitator.settle_faults.append("slow")
        with trio.move_on_after(1):
            await shop.buy(shop.purchase())
        assert shop.payment().state is PaymentState.SETTLING
        await settle_down(shop, until=PaymentState.SETTLED, within_s=6)


async def test_a_session_stopped_while_its_payment_settles_is_owed_back(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        shop.facilitator.settle_faults.append("slow")
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await shop.facilitator.settle_called.wait()
                shop.stop_session(shop.payment().session_id)

            nursery.start_soon(stop)
            answer = await shop.buy(shop.purchase())
        assert isinstance(answer, Bought)
        assert answer.payment.state is PaymentState.REFUND_DUE
        (refund,) = shop.read(records.open_refunds)
        assert (refund.address, refund.amount) == (builders.PAYER, 100_000)


async def test_a_session_stopped_before_its_payment_settles_costs_nothing(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        shop.facilitator.verify_faults.append("slow")
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await trio.sleep(1)
                shop.stop_session(shop.payment().session_id)

            nursery.start_soon(stop)
            answer = await shop.buy(shop.purchase())
        assert isinstance(answer, NoRoom)
        assert answer.code == "session_over"
        assert shop.facilitator.settlements == 0


async def test_places_are_held_before_money_moves(autojump_clock: MockClock) -> None:
    async with open_shop(places=5) as shop:
        answers: list[object] = []

        async def post(n: int) -> None:
            answers.append(await shop.buy(shop.purchase(f"p{n}", controller=builders.nonce(f"c{n}"))))

        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(post, n)
        assert sum(isinstance(answer, Bought) for answer in answers) == 5
        assert sum(isinstance(answer, NoRoom) and answer.code == "no_capacity" for answer in answers) == 15
        assert shop.facilitator.transfers == 5


async def test_a_session_that_no_backend_can_pay_for_is_refused_before_money_moves(autojump_clock: MockClock) -> None:
    def places_for(wanted: object) -> int:
        return 5 if isinstance(wanted, NewSession) and wanted.seconds <= 3600.0 else 0

    async with open_shop(places_for=places_for) as shop:
        dear = await shop.buy(shop.purchase("dear", wanted=NewSession(TierName.PRO, 7200.0)))
        assert isinstance(dear, NoRoom)
        assert dear.code == "no_capacity"
        assert shop.facilitator.settlements == 0
        assert isinstance(await shop.buy(shop.purchase()), Bought)


async def test_an_extension_adds_its_seconds_once(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        bought = await shop.buy(shop.purchase())
        assert isinstance(bought, Bought)
        session_id = bought.payment.session_id
        shop.facilitator.settle_faults.append("lost_after")
        more = shop.purchase("more", wanted=Extension(session_id, 1800.0))
        for _ in range(3):
            answer = await shop.buy(more)
            assert isinstance(answer, Bought)
            assert answer.payment.session_id == session_id
        extended = shop.session(session_id)
        assert (extended.paid_s, extended.pending_extensions) == (5400.0, 0)


@may_crash(ZeroDivisionError)
async def test_a_crash_of_one_payments_work_is_tried_again(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        shop.facilitator.settle_faults.append("crash")
        assert shop.system is not None
        with recording(shop.system.events) as recorder:
            answer = await shop.buy(shop.purchase())
            assert len(recorder.of(Crashed)) == 1
        assert isinstance(answer, Bought)
        assert shop.payment().crashes == 1


@may_crash(ZeroDivisionError)
async def test_a_payment_that_crashes_its_work_five_times_is_put_aside_and_hurts_nobody(
    autojump_clock: MockClock,
) -> None:
    async with open_shop() as shop:
        shop.facilitator.crashing_nonces.add(builders.nonce("bad"))
        assert isinstance(await shop.buy(shop.purchase("bad")), StillPending)
        await trio.sleep(120)
        assert (shop.payment("bad").crashes, shop.payment("bad").quarantined_at is None) == (5, False)
        calls = shop.facilitator.verifications
        await trio.sleep(600)
        assert shop.facilitator.verifications == calls
        assert isinstance(await shop.buy(shop.purchase("good")), Bought)
        began = trio.current_time()
        again = await shop.buy(shop.purchase("bad"))
        assert isinstance(again, StillPending)
        assert trio.current_time() - began < 1


# Booting is recovering.


@pytest.mark.parametrize("state", [PaymentState.RESERVED, PaymentState.SETTLING, PaymentState.UNKNOWN])
@pytest.mark.parametrize("already_settled", [True, False])
async def test_an_open_payment_found_at_boot_is_brought_to_its_end(
    autojump_clock: MockClock, state: PaymentState, already_settled: bool
) -> None:
    ledger = open_inline()
    reservation = builders.reservation()
    ledger.write_now(lambda connection: reservations.reserve(connection, reservation))
    events = {
        PaymentState.RESERVED: (),
        PaymentState.SETTLING: (PaymentEvent.VERIFIED,),
        PaymentState.UNKNOWN: (PaymentEvent.VERIFIED, PaymentEvent.UNCLEAR),
    }
    for event in events[state]:
        ledger.write_now(
            lambda connection, event=event: records.advance(  # type: ignore[misc]  # bound now, called now
                connection, "payment of a nonce", event, builders.instant()
            )
        )
    async with open_shop(ledger) as shop:
        if already_settled and state is not PaymentState.RESERVED:
            await shop.facilitator.settle(shop.payment())
        await settle_down(shop, until=PaymentState.SETTLED, within_s=20)
        assert shop.facilitator.transfers == 1
        assert shop.session("session of a nonce").state is SessionState.PROVISIONING
    ledger.close()


async def test_a_reservation_that_was_interrupted_long_ago_is_given_up_and_may_come_again(
    autojump_clock: MockClock,
) -> None:
    ledger = open_inline()
    old = builders.reservation(updated_at=builders.NOW - 61)
    ledger.write_now(lambda connection: reservations.reserve(connection, old))
    async with open_shop(ledger) as shop:
        await settle_down(shop, until=PaymentState.REJECTED, within_s=5)
        assert shop.payment().reason == "interrupted"
        assert shop.facilitator.verifications == 0
        again = shop.purchase()
        same = with_order(again, request_hash=old.payment.request_hash)
        assert isinstance(await shop.buy(same), Bought)
    ledger.close()


@may_crash(AttributeError)
async def test_the_verifier_may_crash_while_payments_are_worked_on(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        shop.facilitator.settle_faults.append("slow")
        purchase = shop.purchase()
        async with trio.open_nursery() as nursery:

            async def crash() -> None:
                await shop.facilitator.settle_called.wait()
                broken = with_order(shop.purchase("broken"), quote=None)
                shop.verifier.tell(broken)

            nursery.start_soon(crash)
            with pytest.raises(ActorDown):
                await shop.buy(purchase)
        answer = await shop.buy(purchase)
        assert isinstance(answer, Bought)
        assert (shop.facilitator.transfers, shop.facilitator.settlements) == (1, 1)
        assert isinstance(await shop.buy(shop.purchase("next")), Bought)


async def test_a_full_ledger_disk_is_told_as_unavailable(autojump_clock: MockClock) -> None:
    def full() -> None:
        raise LedgerUnavailable("the disk is full")

    async with open_shop() as shop:
        shop.ledger.before_commit = full
        answer = await shop.buy(shop.purchase())
        assert isinstance(answer, CannotNow)
        shop.ledger.before_commit = None
        assert isinstance(await shop.buy(shop.purchase()), Bought)


async def test_old_replay_keys_are_forgotten(autojump_clock: MockClock) -> None:
    ledger = open_inline()
    old = msgspec.structs.replace(builders.reservation(), now=builders.instant(-4000))
    ledger.write_now(lambda connection: reservations.reserve(connection, old))
    async with open_shop(ledger) as shop:
        await trio.sleep(5)
        keys = select(func.count()).select_from(answered_requests)
        assert shop.read(lambda connection: connection.execute(keys).scalar_one()) == 0
    ledger.close()


def test_the_double_is_a_facilitator() -> None:
    double: Facilitator = FakeFacilitator(ManualClock())
    assert double is not None


async def test_what_the_ledger_shows_as_sold_counts_in_the_transaction_that_sells(autojump_clock: MockClock) -> None:
    """The look at the backends before it knows nothing of what is sold at the same moment."""

    def places_in(connection: Connection, wanted: NewSession) -> int:
        assert wanted.seconds > 0
        return min(2, counts.held(connection) + 1)

    async with open_shop(places=1_000, places_in=places_in) as shop:
        answers: list[object] = []

        async def post(n: int) -> None:
            answers.append(await shop.buy(shop.purchase(f"p{n}", controller=builders.nonce(f"c{n}"))))

        async with trio.open_nursery() as nursery:
            for n in range(5):
                nursery.start_soon(post, n)
        assert sum(isinstance(answer, Bought) for answer in answers) == 2
        assert sum(isinstance(answer, NoRoom) and answer.code == "no_capacity" for answer in answers) == 3
