"""Payments in the ledger: one authorization is one payment, and every arrow is made once."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from engram import sessions
from engram.ledger import InlineLedger, open_inline
from engram.payments import records, reservations, retention
from engram.payments.model import HoldLimits, Payment, PaymentKind, PaymentState, RefundState
from engram.payments.purchase_answer import Conflict, NoRoom, Replayed
from engram.payments.refund_rules import RefundTerms
from engram.payments.refunds import settle_up
from engram.payments.reservations import Known, Reserved
from engram.payments.rules import PaymentEvent
from engram.payments.tables import answered_requests
from engram.sessions import EndReason, Session, SessionEvent, SessionState, history
from tests.payments import builders
from tests.payments.builders import BOB, NOW, ROOMY, instant, reservation

T = TypeVar("T")
HASH = "0x" + "ab" * 32


class Books:
    """A ledger in memory with the calls of this area bound to it."""

    def __init__(self, ledger: InlineLedger) -> None:
        self.ledger = ledger

    def run(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return self.ledger.write_now(lambda connection: work(connection, *args, **kwargs))

    def reserve(self, *args: Any, **kwargs: Any) -> reservations.ReservationAnswer:
        return self.run(reservations.reserve, reservation(*args, **kwargs))

    def happen(self, payment_id: str, *events: PaymentEvent, **kwargs: Any) -> Payment | None:
        last = None
        for event in events:
            last = self.run(records.advance, payment_id, event, instant(1.0), **kwargs)
            assert last is None or last == self.payment(payment_id), "what is returned is what was written"
        return last

    def payment(self, payment_id: str = "payment of a nonce") -> Payment:
        found = self.run(records.get, payment_id)
        assert found is not None
        return found

    def session(self, session_id: str = "session of a nonce") -> Session:
        found = self.run(sessions.records.get, session_id)
        assert found is not None
        return found

    def settled(self, text: str = "a nonce") -> Payment:
        self.reserve(text)
        paid = self.happen(f"payment of {text}", PaymentEvent.VERIFIED, PaymentEvent.SETTLED, transaction=HASH)
        assert paid is not None
        return paid

    def stop(self, session_id: str = "session of a nonce") -> None:
        self.run(sessions.records.transition, session_id, SessionEvent.END, instant(), reason=EndReason.USER)


@pytest.fixture
def books() -> Iterator[Books]:
    ledger = open_inline()
    yield Books(ledger)
    ledger.close()


# Reserving.


def test_a_reservation_is_a_payment_a_session_and_a_replay_key(books: Books) -> None:
    answer = books.reserve()
    assert answer == Reserved(builders.payment())
    assert books.payment() == builders.payment()
    assert books.session().state is SessionState.PAYMENT_PENDING
    keys = books.run(lambda connection: connection.execute(select(answered_requests)).all())
    assert [key.payment_id for key in keys] == ["payment of a nonce"]


def test_the_same_request_again_finds_its_payment(books: Books) -> None:
    books.reserve()
    assert books.reserve(id="another", session_id="another") == Known(builders.payment())
    assert books.run(sessions.records.get, "another") is None


@pytest.mark.parametrize("changes", [{"controller": BOB}, {"request_hash": builders.nonce("another request")}])
def test_a_known_payment_with_another_request_is_a_conflict_whatever_its_amount(
    books: Books, changes: dict[str, Any]
) -> None:
    books.reserve()
    for amount in (1, 100_000, 10**9):
        assert isinstance(books.reserve(id="other", session_id="other", amount=amount, **changes), Conflict)


def test_a_signed_request_pays_once(books: Books) -> None:
    books.reserve("one", message="m")
    other_request = {"request_hash": builders.nonce("another request")}
    assert isinstance(books.reserve("two", message="m", **other_request), Replayed)
    assert books.reserve("three", message="m") == Known(books.payment("payment of one"))


def test_a_signature_is_not_used_up_by_a_payment_that_was_refused(books: Books) -> None:
    books.reserve("one", message="m")
    books.happen("payment of one", PaymentEvent.REFUSED, reason="insufficient_funds")
    assert isinstance(books.reserve("two", message="m", request_hash=b"x" * 32), Reserved)
    assert isinstance(books.reserve("three", message="m"), Replayed)


@pytest.mark.parametrize("same", [{"message": "m"}, {"identifier": "a word of 16 characters"}])
def test_a_refused_payment_does_not_come_back_beside_the_one_that_took_its_place(
    books: Books, same: dict[str, Any]
) -> None:
    books.reserve("one", **same)
    books.happen("payment of one", PaymentEvent.REFUSED, reason="facilitator_unavailable")
    assert isinstance(books.reserve("two", **same), Reserved)
    books.happen("payment of two", PaymentEvent.VERIFIED, PaymentEvent.SETTLED, transaction=HASH)
    again = books.reserve("one", **same)
    assert again == Known(books.payment("payment of two")) if "message" in same else isinstance(again, Conflict)
    assert books.payment("payment of one").state is PaymentState.REJECTED


def test_nothing_is_remembered_where_signatures_are_off(books: Books) -> None:
    for text in ("one", "two"):
        asked = msgspec.structs.replace(reservation(text), message_hash=None)
        assert isinstance(books.run(reservations.reserve, asked), Reserved)
    assert books.run(lambda connection: connection.execute(select(answered_requests)).all()) == []


def test_a_refused_payment_may_be_tried_again_by_the_same_request_for_the_same_session(books: Books) -> None:
    books.reserve()
    books.happen("payment of a nonce", PaymentEvent.REFUSED, reason="insufficient_funds")
    assert books.session().state is SessionState.FAILED
    again = books.reserve(id="unused", session_id="unused")
    assert isinstance(again, Reserved)
    assert (again.payment.id, again.payment.session_id) == ("payment of a nonce", "session of a nonce")
    assert books.payment() == again.payment
    assert again.payment.reason is None
    assert (books.session().state, books.session().end_reason) == (SessionState.PAYMENT_PENDING, None)
    events = [event.event for event in books.run(history.events_since, "session of a nonce")]
    assert events == ["payment_pending", "failed", "payment_pending"]


def test_a_session_that_was_stopped_never_comes_back_by_its_payment(books: Books) -> None:
    books.reserve()
    books.stop()
    books.happen("payment of a nonce", PaymentEvent.VERIFIED)
    again = books.reserve(id="unused", session_id="unused")
    assert isinstance(again, Known)
    assert again.payment.reason == "session_stopped"
    assert books.session().state is SessionState.STOPPING


def test_an_extension_that_was_refused_may_be_tried_again(books: Books) -> None:
    books.settled()
    books.run(reservations.reserve, extension())
    books.happen("payment of more", PaymentEvent.REFUSED, reason="facilitator_unavailable")
    assert isinstance(books.run(reservations.reserve, extension()), Reserved)
    assert books.session().pending_extensions == 1


def test_another_request_never_gets_a_refused_payment(books: Books) -> None:
    books.reserve()
    books.happen("payment of a nonce", PaymentEvent.REFUSED, reason="insufficient_funds")
    assert isinstance(books.reserve(controller=BOB, id="x", session_id="x"), Conflict)


@pytest.mark.parametrize(
    ("limits", "changes", "code"),
    [
        (HoldLimits(places=2, live_per_hotkey=9, holds_per_payer=9, holds_per_address=9), {}, "no_capacity"),
        (HoldLimits(places=9, live_per_hotkey=2, holds_per_payer=9, holds_per_address=9), {}, "session_limit"),
        (HoldLimits(places=9, live_per_hotkey=9, holds_per_payer=2, holds_per_address=9), {}, "too_many_open_payments"),
        (
            HoldLimits(places=9, live_per_hotkey=9, holds_per_payer=2, holds_per_address=9),
            {"payer": b"p" * 20},
            "too_many_open_payments",
        ),
        (
            HoldLimits(places=9, live_per_hotkey=9, holds_per_payer=2, holds_per_address=2),
            {"payer": b"p" * 20, "controller": BOB, "client_address": "192.0.2.1"},
            "too_many_open_payments",
        ),
    ],
)
def test_holds_and_places_are_counted_before_money_moves(
    books: Books, limits: HoldLimits, changes: dict[str, Any], code: str
) -> None:
    for text in ("one", "two"):
        assert isinstance(books.reserve(text, limits=limits, client_address="192.0.2.1"), Reserved)
    refused = books.reserve("three", limits=limits, **changes)
    assert isinstance(refused, NoRoom)
    assert refused.code == code
    assert books.run(records.get, "payment of three") is None
    assert books.run(sessions.records.get, "session of three") is None


def test_an_exempt_address_counts_towards_no_limit(books: Books) -> None:
    limits = HoldLimits(places=9, live_per_hotkey=9, holds_per_payer=9, holds_per_address=1)
    for text in ("one", "two"):
        assert isinstance(books.reserve(text, limits=limits), Reserved)


def test_a_settled_payment_holds_its_place_by_its_session_only(books: Books) -> None:
    limits = msgspec.structs.replace(ROOMY, holds_per_payer=1)
    books.settled("one")
    assert isinstance(books.reserve("two", limits=limits), Reserved)


# Arrows.


def test_settling_hands_over_the_session_in_the_same_transaction(books: Books) -> None:
    paid = books.settled()
    assert (paid.state, paid.transaction_hash, paid.settled_at) == (PaymentState.SETTLED, HASH, NOW + 1)
    assert paid.next_attempt_at is None
    assert books.payment() == paid
    assert books.session().state is SessionState.PROVISIONING


def test_a_refused_payment_fails_its_session_with_the_reason(books: Books) -> None:
    books.reserve()
    books.happen("payment of a nonce", PaymentEvent.VERIFIED)
    refused = books.happen("payment of a nonce", PaymentEvent.REFUSED, reason="insufficient_funds")
    assert refused is not None
    assert (refused.state, refused.reason) == (PaymentState.REJECTED, "insufficient_funds")
    assert (books.session().state, books.session().end_reason) == (SessionState.FAILED, EndReason.PAYMENT)
    assert books.session().error == "payment rejected: insufficient_funds"


def test_a_session_stopped_before_settling_takes_no_money(books: Books) -> None:
    books.reserve()
    books.stop()
    refused = books.happen("payment of a nonce", PaymentEvent.VERIFIED)
    assert refused is not None
    assert (refused.state, refused.reason) == (PaymentState.REJECTED, "session_stopped")
    assert books.session().state is SessionState.STOPPING


def test_a_session_stopped_while_its_payment_settles_is_owed_back(books: Books) -> None:
    books.reserve()
    books.happen("payment of a nonce", PaymentEvent.VERIFIED)
    books.stop()
    owed = books.happen("payment of a nonce", PaymentEvent.SETTLED, transaction=HASH)
    assert owed is not None
    assert (owed.state, owed.transaction_hash, owed.reason) == (PaymentState.REFUND_DUE, HASH, "session_stopped")
    assert books.session().state is SessionState.STOPPING
    (refund,) = books.run(records.refunds_of, owed.id)
    assert (refund.address, refund.amount, refund.number) == (builders.PAYER, 100_000, 1)


def test_an_unknown_outcome_waits_longer_each_time_and_keeps_its_place(books: Books) -> None:
    books.reserve()
    books.happen("payment of a nonce", PaymentEvent.VERIFIED)
    waits = []
    for _ in range(4):
        unknown = books.happen("payment of a nonce", PaymentEvent.UNCLEAR, reason="http_504")
        assert unknown is not None
        assert unknown.next_attempt_at is not None
        waits.append(unknown.next_attempt_at - NOW - 1)
    assert waits == sorted(set(waits))
    assert books.session().state is SessionState.PAYMENT_PENDING


@given(st.lists(st.sampled_from(PaymentEvent), max_size=12), st.booleans(), st.booleans())
def test_what_an_event_makes_of_a_payment_is_what_its_row_says(
    events: list[PaymentEvent], stopped: bool, crashed: bool
) -> None:
    ledger = open_inline()
    books = Books(ledger)
    reserved = books.reserve()
    assert isinstance(reserved, Reserved)
    for number, event in enumerate(events):
        if stopped and number == 3:
            books.stop()
        if crashed:
            books.run(records.count_crash, reserved.payment.id, NOW + number)
        before = books.payment()
        after = books.happen(before.id, event, reason="why", transaction=HASH, watch_at=NOW + 60 + number)
        assert books.payment() == (after or before)
    ledger.close()


def test_an_arrow_that_does_not_apply_changes_nothing(books: Books) -> None:
    before = books.settled()
    assert books.happen(before.id, PaymentEvent.VERIFIED) is None
    assert books.happen(before.id, PaymentEvent.SETTLED, transaction="0x" + "cd" * 32) is None
    assert books.payment() == before
    assert books.happen("nobody", PaymentEvent.VERIFIED) is None


def test_a_reorganised_payment_delivers_once(books: Books) -> None:
    paid = books.settled()
    books.happen(paid.id, PaymentEvent.REORGANISED, PaymentEvent.SETTLED, transaction="0x" + "cd" * 32)
    assert books.payment().state is PaymentState.SETTLED
    assert books.session().state is SessionState.PROVISIONING
    books.happen(paid.id, PaymentEvent.REORGANISED, PaymentEvent.VOIDED)
    assert books.session().state is SessionState.STOPPING
    assert books.session().end_reason is EndReason.PAYMENT


@pytest.mark.parametrize(("event", "owed"), [(PaymentEvent.SETTLED, [100_000]), (PaymentEvent.VOIDED, [])])
def test_what_ends_while_its_payment_is_reorganised_is_owed_back_once_that_is_settled_again(
    books: Books, event: PaymentEvent, owed: list[int]
) -> None:
    paid = books.settled()
    books.happen(paid.id, PaymentEvent.REORGANISED)
    books.run(sessions.records.transition, paid.session_id, SessionEvent.PROVISION_FAILED, instant())
    books.run(settle_up, paid.session_id, RefundTerms(0.0, 60.0, 0), instant())
    assert books.payment().state is PaymentState.UNKNOWN
    after = books.happen(paid.id, event)
    assert after is not None
    assert after.state is (PaymentState.REFUND_DUE if owed else PaymentState.VOID)
    assert [refund.amount for refund in books.run(records.open_refunds)] == owed
    assert [due.id for due in books.run(records.due, NOW + 1, 10)] == [paid.id] * len(owed)


def test_money_that_arrives_after_all_is_owed_back(books: Books) -> None:
    books.reserve()
    books.happen("payment of a nonce", PaymentEvent.REFUSED, PaymentEvent.ARRIVED, transaction=HASH)
    (refund,) = books.run(records.open_refunds)
    assert (refund.amount, books.payment().state) == (100_000, PaymentState.REFUND_DUE)


# Extensions.


def extension(text: str = "more", **changes: Any) -> reservations.Reservation:
    asked = builders.payment(
        text, kind=PaymentKind.EXTENSION, session_id="session of a nonce", seconds=1800.0, **changes
    )
    return reservations.Reservation(asked, None, builders.nonce(text), ROOMY, instant())


def test_an_extension_pauses_expiry_and_adds_its_seconds_once(books: Books) -> None:
    books.settled()
    assert isinstance(books.run(reservations.reserve, extension()), Reserved)
    assert books.session().pending_extensions == 1
    books.happen("payment of more", PaymentEvent.VERIFIED, PaymentEvent.SETTLED, PaymentEvent.SETTLED, transaction=HASH)
    extended = books.session()
    assert (extended.paid_s, extended.pending_extensions) == (5400.0, 0)
    assert extended.amount_usd_micros == 200_000


def test_an_extension_that_is_refused_lets_expiry_go_on(books: Books) -> None:
    books.settled()
    books.run(reservations.reserve, extension())
    books.happen("payment of more", PaymentEvent.REFUSED, reason="insufficient_funds")
    assert (books.session().paid_s, books.session().pending_extensions) == (3600.0, 0)


def test_an_extension_of_a_session_that_ended_meanwhile_is_owed_back(books: Books) -> None:
    books.settled()
    books.run(reservations.reserve, extension())
    books.happen("payment of more", PaymentEvent.VERIFIED)
    books.stop()
    books.happen("payment of more", PaymentEvent.SETTLED, transaction=HASH)
    assert books.payment("payment of more").state is PaymentState.REFUND_DUE
    assert (books.session().paid_s, books.session().pending_extensions) == (3600.0, 0)


def test_an_extension_whose_payment_vanishes_is_taken_back(books: Books) -> None:
    books.settled()
    books.run(reservations.reserve, extension())
    books.happen(
        "payment of more", PaymentEvent.VERIFIED, PaymentEvent.SETTLED, PaymentEvent.REORGANISED, PaymentEvent.VOIDED
    )
    assert books.session().paid_s == 3600.0


@pytest.mark.parametrize("whose", ["nobody's", "another's", "ended"])
def test_only_a_live_session_of_ones_own_is_extended(books: Books, whose: str) -> None:
    books.settled()
    asked = extension()
    if whose == "nobody's":
        asked = msgspec.structs.replace(asked, payment=msgspec.structs.replace(asked.payment, session_id="none"))
    elif whose == "another's":
        asked = msgspec.structs.replace(asked, payment=msgspec.structs.replace(asked.payment, controller=BOB))
    else:
        books.stop()
    refused = books.run(reservations.reserve, asked)
    assert isinstance(refused, NoRoom)
    assert refused.code == "session_over"
    assert books.session().pending_extensions == 0


def test_a_session_that_is_not_paid_yet_is_not_extended(books: Books) -> None:
    books.reserve()
    refused = books.run(reservations.reserve, extension())
    assert isinstance(refused, NoRoom)
    assert refused.code == "session_not_paid"


# Refunds.


def test_refunds_in_parts_stop_at_what_was_paid(books: Books) -> None:
    paid = books.settled()
    parts = [books.run(records.mark_refund_due, paid.id, "lost", instant(), part) for part in (60_000, 60_000, 1)]
    assert [part.amount if part else None for part in parts] == [60_000, 40_000, None]
    assert books.payment().state is PaymentState.REFUND_DUE


def test_refunds_are_counted_and_summed_by_state(books: Books) -> None:
    assert books.run(records.refunds_by_state) == {}
    paid = books.settled()
    for amount in (60_000, 10_000):
        books.run(records.mark_refund_due, paid.id, "lost", instant(), amount)
    assert books.run(records.refunds_by_state) == {RefundState.DUE: (2, 70_000)}


def test_only_what_was_paid_is_owed_back(books: Books) -> None:
    books.reserve()
    assert books.run(records.mark_refund_due, "payment of a nonce", "lost", instant()) is None
    assert books.run(records.mark_refund_due, "nobody", "lost", instant()) is None


# Open facts and quarantine.


def test_open_payments_are_due_and_others_are_not(books: Books) -> None:
    books.settled("paid")
    books.reserve("open")
    assert [payment.id for payment in books.run(records.due, NOW, 10)] == ["payment of open"]
    assert books.run(records.due, NOW - 1, 10) == []
    books.happen("payment of open", PaymentEvent.VERIFIED, PaymentEvent.UNCLEAR)
    assert books.run(records.due, NOW + 1, 10) == []
    assert len(books.run(records.due, NOW + 100, 10)) == 1


def test_the_fifth_crash_puts_a_payment_aside_until_the_operator_releases_it(books: Books) -> None:
    books.reserve()
    for crash in range(1, 6):
        assert len(books.run(records.due, NOW + 100, 10)) == 1
        counted = books.run(records.count_crash, "payment of a nonce", NOW)
        assert counted is not None
        assert (counted.crashes, counted.quarantined_at is not None) == (crash, crash == 5)
    assert books.run(records.due, NOW + 1e9, 10) == []
    released = books.run(records.release_quarantine, "payment of a nonce", NOW)
    assert released is not None
    assert (released.crashes, released.quarantined_at) == (0, None)
    assert len(books.run(records.due, NOW, 10)) == 1
    for missing in (records.count_crash, records.release_quarantine):
        assert books.run(missing, "nobody", NOW) is None


def test_a_payment_that_was_watched_is_watched_again_once_it_is_released(books: Books) -> None:
    books.settled()
    books.run(records.look_again, books.payment(), NOW)
    for _ in range(5):
        books.run(records.count_crash, "payment of a nonce", NOW)
    assert books.run(records.due, NOW + 1e9, 10) == []
    books.run(records.release_quarantine, "payment of a nonce", NOW)
    assert len(books.run(records.due, NOW, 10)) == 1


def test_what_the_chain_is_still_to_be_asked_about_is_not_forgotten_with_what_moved_no_money(books: Books) -> None:
    books.reserve()
    books.happen("payment of a nonce", PaymentEvent.REFUSED, reason="x", watch_at=NOW)
    day_later = NOW + 100_000
    assert books.run(retention.forget_unpaid, day_later) == 0
    assert books.run(retention.forget_unpaid, day_later + retention.WATCHED_KEPT_S) == 1


def test_payments_are_listed_newest_first_and_counted(books: Books) -> None:
    books.settled("one")
    books.reserve("two", created_at=NOW + 5)
    listed = books.run(records.list_payments)
    assert [payment.id for payment in listed] == ["payment of two", "payment of one"]
    assert [p.id for p in books.run(records.list_payments, state=PaymentState.SETTLED)] == ["payment of one"]
    assert [p.id for p in books.run(records.list_payments, before=NOW + 5)] == ["payment of one"]
    assert books.run(records.count_by_state) == {PaymentState.SETTLED: 1, PaymentState.RESERVED: 1}
    assert [p.id for p in books.run(records.of_session, "session of one")] == ["payment of one"]


def test_old_replay_keys_are_forgotten(books: Books) -> None:
    books.reserve()
    assert books.run(records.forget_answered_requests, NOW) == 0
    assert books.run(records.forget_answered_requests, NOW + 1) == 1


def test_a_reservation_that_fails_half_way_leaves_nothing(books: Books) -> None:
    def fails(connection: Connection) -> None:
        reservations.reserve(connection, reservation())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        books.ledger.write_now(fails)
    assert books.run(records.get, "payment of a nonce") is None
    assert books.run(sessions.records.get, "session of a nonce") is None
