"""What is owed back is sent back, exactly once, to the payer only, whatever happens on the way."""

import hashlib
import math
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from engram import sessions
from engram.clock import TrioClock
from engram.ledger import open_inline
from engram.payments import records, refund_key, refund_rules, refunds, rules, x402
from engram.payments.errors import UnusableRefundKey
from engram.payments.model import PaymentState, Refund, RefundState
from engram.payments.networks import PLAY
from engram.payments.outcomes import NotSent, Pending, Rejected, Settled, Settlement, Unknown
from engram.payments.refund_key import RefundKey
from engram.payments.refund_rules import Ended, Next, RefundTerms
from engram.payments.rules import EXPIRED
from engram.sessions import ClockInstants, EndReason, SessionEvent, history
from tests.crashes import may_crash
from tests.fakes.facilitator import FakeFacilitator, Fault
from tests.payments import builders
from tests.payments.shop import Shop, open_shop, wide

KEY = RefundKey(hashlib.sha256(b"refund key").digest())
OTHER = RefundKey(hashlib.sha256(b"another refund key").digest())
TERMS = RefundTerms(early_stop_share=0.0, outage_free_s=60.0, min_part=10_000)


def given_back(shop: Shop) -> list[tuple[bytes, int]]:
    """Who was sent what by the refund key."""
    return [(one.pay_to, one.value) for (payer, _), one in shop.facilitator.settled.items() if payer == KEY.address]


def end(shop: Shop, session_id: str, terms: RefundTerms = TERMS, reason: EndReason = EndReason.USER) -> list[Refund]:
    now = ClockInstants(shop.clock).now()

    def finish(connection: Connection) -> list[Refund]:
        sessions.records.transition(connection, session_id, SessionEvent.END, now, reason=reason)
        assert sessions.records.transition(connection, session_id, SessionEvent.DESTROYED, now)
        return refunds.settle_up(connection, session_id, terms, now)

    return shop.read(finish)


def activate(shop: Shop, session_id: str) -> None:
    now = ClockInstants(shop.clock).now()
    assert shop.read(lambda c: sessions.records.transition(c, session_id, SessionEvent.NODE_READY, now))


async def test_a_stop_before_active_gives_everything_back_to_the_payer(autojump_clock: object) -> None:
    async with open_shop(refund_key=KEY) as shop:
        await shop.buy(shop.purchase())
        end(shop, shop.payment().session_id)
        await shop.until(lambda: shop.payment().state is PaymentState.REFUNDED)
        assert given_back(shop) == [(builders.PAYER, 100_000)]
        (refund,) = shop.refunds()
        assert refund.state is RefundState.REFUNDED
        assert refund.transaction_hash
        assert refund.sender == KEY.address


async def test_a_session_stopped_while_its_payment_settles_is_paid_back(autojump_clock: object) -> None:
    async with open_shop(refund_key=KEY) as shop:
        shop.facilitator.passing = lambda point: (
            shop.stop_session(shop.payment().session_id)
            if point == "settle:after" and len(shop.facilitator.settled) == 1
            else None
        )
        await shop.buy(shop.purchase())
        await shop.until(lambda: shop.payment().state is PaymentState.REFUNDED)
        assert given_back(shop) == [(builders.PAYER, 100_000)]


@may_crash(ZeroDivisionError)
@pytest.mark.parametrize("fault", ["not_sent", "lost_before", "lost_after", "pending_after", "no_proof_after", "crash"])
async def test_whatever_the_facilitator_does_the_money_goes_back_once(autojump_clock: object, fault: Fault) -> None:
    async with open_shop(refund_key=KEY) as shop:
        await shop.buy(shop.purchase())
        shop.facilitator.settle_faults.extend([fault] * 3)
        end(shop, shop.payment().session_id)
        await shop.until(lambda: shop.payment().state is PaymentState.REFUNDED)
        assert given_back(shop) == [(builders.PAYER, 100_000)]
        assert shop.facilitator.transfers == 2


async def test_a_refund_that_expired_unused_is_signed_again_with_the_same_nonce(autojump_clock: object) -> None:
    async with open_shop(refund_key=KEY) as shop:
        await shop.buy(shop.purchase())
        shop.facilitator.settle_faults.extend(["lost_before"] * 25)  # more than it is good for
        end(shop, shop.payment().session_id)
        await shop.until(lambda: shop.refunds()[0].state is RefundState.REFUNDING)
        before = shop.refunds()[0]
        await shop.until(lambda: shop.payment().state is PaymentState.REFUNDED, 3_600)
        after = shop.refunds()[0]
        assert (after.nonce, after.amount, after.address) == (before.nonce, before.amount, before.address)
        assert after.valid_before is not None
        assert before.valid_before is not None
        assert after.valid_before > before.valid_before
        assert given_back(shop) == [(builders.PAYER, 100_000)]


async def test_the_identical_authorization_is_sent_until_it_has_expired(autojump_clock: object) -> None:
    async with open_shop(refund_key=KEY) as shop:
        await shop.buy(shop.purchase())
        shop.facilitator.settle_faults.extend(["lost_before"] * 5)
        end(shop, shop.payment().session_id)
        seen = set()

        def refunded() -> bool:
            seen.add(shop.refunds()[0].payload)
            return shop.payment().state is PaymentState.REFUNDED

        await shop.until(refunded)
        assert len(seen - {None}) == 1


async def test_without_a_key_refunds_wait_for_the_operator_and_are_sent_once_there_is_one(
    autojump_clock: object,
) -> None:
    ledger = open_inline()
    facilitator = FakeFacilitator(TrioClock(builders.NOW))
    async with open_shop(ledger, facilitator) as shop:
        await shop.buy(shop.purchase())
        end(shop, shop.payment().session_id)
        await shop.until(lambda: shop.refunds()[0].answer == refunds.NO_KEY)
        assert shop.read(records.open_refunds) == shop.refunds()
        assert shop.payment().state is PaymentState.REFUND_DUE
        assert given_back(shop) == []
    async with open_shop(ledger, facilitator, refund_key=KEY) as shop:
        await shop.until(lambda: shop.payment().state is PaymentState.REFUNDED)
        assert given_back(shop) == [(builders.PAYER, 100_000)]
    ledger.close()


async def test_what_the_operator_sent_by_hand_is_not_sent_again_by_a_key(autojump_clock: object) -> None:
    ledger = open_inline()
    facilitator = FakeFacilitator(TrioClock(builders.NOW))
    async with open_shop(ledger, facilitator) as shop:
        await shop.buy(shop.purchase())
        paid, now = shop.payment().id, ClockInstants(shop.clock).now()
        for amount in (30_000, 70_000):
            shop.read(lambda c, amount=amount: records.mark_refund_due(c, paid, "x", now, amount))  # type: ignore[misc]  # called now
        assert shop.read(lambda c: refunds.sent_by_hand(c, paid, 1, "0x" + "ab" * 32, now))
        assert not shop.read(lambda c: refunds.sent_by_hand(c, paid, 1, "0x" + "ab" * 32, now))
        assert shop.payment().state is PaymentState.REFUND_DUE
        await shop.until(lambda: shop.refunds()[1].answer == refunds.NO_KEY)
    async with open_shop(ledger, facilitator, refund_key=KEY) as shop:
        await shop.until(lambda: shop.payment().state is PaymentState.REFUNDED)
        assert given_back(shop) == [(builders.PAYER, 70_000)]
        assert not shop.read(lambda c: refunds.sent_by_hand(c, paid, 2, "0x" + "ab" * 32, now))
    ledger.close()


async def test_a_payment_is_given_back_by_one_key_only(autojump_clock: object) -> None:
    ledger = open_inline()
    facilitator = FakeFacilitator(TrioClock(builders.NOW))
    async with open_shop(ledger, facilitator, refund_key=KEY) as shop:
        await shop.buy(shop.purchase())
        paid = shop.payment().id
        now = ClockInstants(shop.clock).now()
        shop.read(lambda c: records.mark_refund_due(c, paid, "part", now, 40_000))
        await shop.until(lambda: shop.payment().state is PaymentState.REFUNDED)
        shop.read(lambda c: records.mark_refund_due(c, paid, "rest", now))
    async with open_shop(ledger, facilitator, refund_key=OTHER) as shop:
        await shop.until(lambda: shop.refunds()[1].answer == refunds.OTHER_KEY)
    async with open_shop(ledger, facilitator, refund_key=KEY) as shop:
        await shop.until(lambda: shop.payment().state is PaymentState.REFUNDED)
        assert given_back(shop) == [(builders.PAYER, 40_000), (builders.PAYER, 60_000)]
    ledger.close()


async def test_a_part_owed_while_another_is_on_its_way_follows_it(autojump_clock: object) -> None:
    async with open_shop(refund_key=KEY) as shop:
        await shop.buy(shop.purchase())
        paid, now = shop.payment().id, ClockInstants(shop.clock).now()
        shop.facilitator.settle_faults.append("lost_before")
        shop.read(lambda c: records.mark_refund_due(c, paid, "part", now, 40_000))
        await shop.until(lambda: shop.payment().state is PaymentState.REFUNDING)
        shop.read(lambda c: records.mark_refund_due(c, paid, "rest", now))
        assert shop.payment().state is PaymentState.REFUNDING
        await shop.until(lambda: shop.payment().state is PaymentState.REFUNDED)
        assert sorted(given_back(shop)) == [(builders.PAYER, 40_000), (builders.PAYER, 60_000)]


async def test_no_more_than_the_daily_limit_is_sent_in_a_day(autojump_clock: object) -> None:
    async with open_shop(refund_key=KEY, settings=wide(refund_daily_usd=0.15)) as shop:
        for text in ("one", "two"):
            await shop.buy(shop.purchase(text))
            end(shop, shop.payment(text).session_id)
        await shop.until(
            lambda: (
                [payment.state for payment in shop.payments()].count(PaymentState.REFUNDED) == 1
                and any(shop.refunds(text)[0].answer == refunds.DAILY_LIMIT for text in ("one", "two"))
            )
        )
        assert given_back(shop) == [(builders.PAYER, 100_000)]
        waiting = next(one for text in ("one", "two") for one in shop.refunds(text) if one.answer)
        a_day_on = msgspec.structs.replace(ClockInstants(shop.clock).now(), wall=shop.clock.now() + 86_401)
        signed = KEY.sign(waiting, PLAY, a_day_on.wall, 600)
        written = shop.read(lambda c: refunds.sign(c, waiting, signed, a_day_on, 150_000))
        assert isinstance(written, refunds.Signed)


async def test_an_active_session_that_its_owner_stops_gives_back_what_the_terms_say(autojump_clock: object) -> None:
    async with open_shop(refund_key=KEY) as shop:
        await shop.buy(shop.purchase("nothing"))
        await shop.buy(shop.purchase("half"))
        for text in ("nothing", "half"):
            activate(shop, shop.payment(text).session_id)
        half = msgspec.structs.replace(TERMS, early_stop_share=0.5)
        assert end(shop, shop.payment("nothing").session_id) == []
        (refund,) = end(shop, shop.payment("half").session_id, half)
        assert refund.amount in (49_999, 50_000)


async def test_a_lost_node_gives_back_the_outage_and_the_time_that_was_left(autojump_clock: object) -> None:
    async with open_shop(refund_key=KEY) as shop:
        await shop.buy(shop.purchase())
        session_id = shop.payment().session_id
        activate(shop, session_id)

        def happen(event: SessionEvent, after_s: float) -> None:
            at = builders.instant(after_s)
            session = shop.session(session_id)
            assert session.counted is not None
            now = msgspec.structs.replace(session.counted, wall=at.wall)
            shop.read(lambda c: sessions.records.transition(c, session_id, event, now))

        happen(SessionEvent.DEGRADE, 100.0)
        happen(SessionEvent.RECOVER, 520.0)
        outage_s = shop.read(lambda c: history.outage_s(c, session_id))
        assert outage_s == pytest.approx(420.0, abs=1)
        (refund,) = end(shop, session_id, reason=EndReason.NODE_LOST)
        assert 99_000 < refund.amount <= 100_000


# The rules.

ended = st.builds(
    Ended,
    reason=st.sampled_from([*EndReason, None]),
    was_active=st.booleans(),
    paid_s=st.floats(1_800, 1e7),
    used_s=st.floats(0, 1e7),
    outage_s=st.floats(0, 1e7),
)
terms = st.builds(
    RefundTerms, early_stop_share=st.floats(0, 1), outage_free_s=st.floats(0, 600), min_part=st.integers(0, 50_000)
)


@given(ended=ended, terms=terms)
def test_never_more_is_owed_than_was_paid_and_all_when_nothing_was_delivered(ended: Ended, terms: RefundTerms) -> None:
    paid = [
        builders.payment(f"{i}", seconds=ended.paid_s / 4, amount=25_000 * (i + 1), created_at=float(i))
        for i in range(4)
    ]
    parts = refund_rules.parts(paid, refund_rules.owed_s(ended, terms), terms.min_part)
    assert all(0 < amount <= payment.amount for payment, amount in parts)
    if not ended.was_active:
        assert sum(amount for _, amount in parts) == 250_000


def test_the_time_bought_last_goes_back_first() -> None:
    first, second = builders.payment("first"), builders.payment("second", created_at=builders.NOW + 1)
    assert refund_rules.parts([first, second], 5_400.0, 0) == [(second, 100_000), (first, 50_000)]
    assert refund_rules.parts([first, second], 60.0, 2_000) == []


@pytest.mark.parametrize(
    ("reason", "owed"),
    [
        (EndReason.USER, 40.0 + 0.25 * 2_000),
        (EndReason.OPERATOR, 40.0 + 2_000),
        (EndReason.NODE_LOST, 40.0 + 2_000),
        (EndReason.EXPIRED, 40.0),
    ],
)
def test_what_goes_back_depends_on_who_ended_it(reason: EndReason, owed: float) -> None:
    quarter = RefundTerms(early_stop_share=0.25, outage_free_s=60.0, min_part=0)
    assert refund_rules.owed_s(Ended(reason, True, 3_600.0, 1_600.0, 100.0), quarter) == owed
    assert refund_rules.owed_s(Ended(reason, False, 3_600.0, 0.0, 0.0), quarter) == math.inf


@pytest.mark.parametrize("play", [True, False])
@pytest.mark.parametrize(
    ("settlement", "late_s", "wanted"),
    [
        (Settled("0x" + "1" * 64), 0.0, Next.CONFIRM),
        (Rejected(EXPIRED), -1.0, Next.WAIT),
        (Rejected(EXPIRED), 700.0, Next.RESIGN),
        (Rejected("insufficient_funds"), 700.0, Next.WAIT),
        (NotSent("x"), 700.0, Next.WAIT),
        (Pending(None), 700.0, Next.WAIT),
        (Unknown("http_500"), 700.0, Next.WAIT),
    ],
)
def test_a_refund_is_signed_again_only_when_it_has_expired_unused(
    play: bool, settlement: Settlement, late_s: float, wanted: Next
) -> None:
    assert refund_rules.after_answer(settlement, play=play, valid_before=1_000, now=1_000 + late_s) is wanted
    assert refund_rules.word(settlement)


def test_play_books_say_expired_at_once_a_chains_facilitator_after_a_margin() -> None:
    expired = Rejected(EXPIRED)
    assert refund_rules.after_answer(expired, play=True, valid_before=1_000, now=1_001) is Next.RESIGN
    assert refund_rules.after_answer(expired, play=False, valid_before=1_000, now=1_001) is Next.WAIT


# The key.


def test_a_refund_is_signed_by_the_key_for_the_payer(tmp_path: Path) -> None:
    key = refund_key.read_or_generate(tmp_path / "refund-key")
    assert refund_key.read_or_generate(tmp_path / "refund-key").address == key.address
    assert (tmp_path / "refund-key").stat().st_mode & 0o777 == 0o600
    paid = builders.payment()
    owed = Refund(paid.id, 1, RefundState.DUE, paid.payer, 7, builders.nonce("refund"), "why", None, 0.0, 0.0)
    signed = key.sign(owed, PLAY, builders.NOW, 600)
    payload = x402.parse_payload(x402.strict_json(signed.payload))
    wanted = x402.parse_requirements(x402.strict_json(signed.requirements))  # type: ignore[arg-type]  # ours
    assert wanted is not None
    assert payload.authorization.payer == key.address
    assert rules.refusal(payload, wanted, builders.NOW, 20) is None
    assert (payload.authorization.pay_to, payload.authorization.nonce) == (paid.payer, owed.nonce)


@pytest.mark.parametrize("text", ["", "zz" * 32, "00" * 32, "11" * 31])
def test_a_file_that_holds_no_key_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "refund-key"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(UnusableRefundKey) as refused:
        refund_key.read(path)
    assert not text or text not in str(refused.value)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "refund-key"
    path.write_text("11" * 32)
    os.chmod(path, 0o644)
    with pytest.raises(UnusableRefundKey, match="chmod 600"):
        refund_key.read(path)
    with pytest.raises(UnusableRefundKey, match="cannot be read"):
        refund_key.read(tmp_path / "nowhere")


def test_nothing_that_is_signed_is_shown() -> None:
    paid = builders.payment()
    owed = Refund(paid.id, 1, RefundState.DUE, paid.payer, 7, builders.nonce("refund"), "why", None, 0.0, 0.0)
    shown = repr(KEY.sign(owed, PLAY, builders.NOW, 600)) + repr(KEY) + repr(owed)
    assert "signature" not in shown
    assert hashlib.sha256(b"refund key").hexdigest() not in shown
