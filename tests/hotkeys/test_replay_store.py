"""A replay store never takes one request twice, never drops one early, and says when it is full."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engram.hotkeys import Noted, ReplayStore

PAST_MS, FUTURE_MS, NOW = 8_000, 2_000, 1_750_000_000_000


def key(number: int, sender: int = 0) -> bytes:
    return sender.to_bytes(32, "big") + number.to_bytes(32, "big")


def note(store: ReplayStore, number: int, stamp_ms: int, now_ms: int, sender: int = 0) -> Noted:
    return store.note(key(number, sender), expires_ms=stamp_ms + PAST_MS, now_ms=now_ms)


def test_a_request_is_new_once() -> None:
    store = ReplayStore()
    assert note(store, 1, NOW, NOW) is Noted.NEW
    assert note(store, 1, NOW, NOW) is Noted.SEEN
    assert note(store, 1, NOW, NOW, sender=1) is Noted.NEW
    assert len(store) == 2


def test_it_is_kept_to_the_last_moment_at_which_it_passes() -> None:
    store = ReplayStore()
    note(store, 1, NOW + 999, NOW)
    assert note(store, 1, NOW + 999, NOW + 999 + PAST_MS) is Noted.SEEN
    note(store, 2, NOW + 30_000, NOW + 30_000)
    assert len(store) == 1


def test_a_full_store_says_so_and_forgets_nothing_for_it() -> None:
    store = ReplayStore(bound=3, per_sender=3)
    assert [note(store, number, NOW, NOW, sender=number) for number in range(4)] == [Noted.NEW] * 3 + [Noted.FULL]
    assert note(store, 0, NOW, NOW, sender=0) is Noted.SEEN
    assert note(store, 9, NOW + 20_000, NOW + 20_000) is Noted.NEW
    assert len(store) == 1


def test_one_sender_cannot_use_up_the_room_of_others() -> None:
    store = ReplayStore(bound=10, per_sender=2)
    assert [note(store, number, NOW, NOW) for number in range(3)] == [Noted.NEW, Noted.NEW, Noted.FULL]
    assert note(store, 5, NOW, NOW, sender=1) is Noted.NEW
    assert [note(store, 5, NOW + 20_000, NOW + 20_000, sender) for sender in (0, 1)] == [Noted.NEW] * 2


def test_a_clock_that_is_set_back_lets_nothing_in_again() -> None:
    store = ReplayStore()
    note(store, 1, NOW, NOW)
    note(store, 2, NOW + 60_000, NOW + 60_000)
    assert note(store, 1, NOW, NOW + 1) is Noted.FORGOTTEN
    assert note(store, 3, NOW + 5_000, NOW + 5_000) is Noted.NEW


def test_a_wrong_clock_that_took_nothing_refuses_nothing_after_it_is_right_again() -> None:
    store = ReplayStore()
    note(store, 1, NOW, NOW)
    assert note(store, 1, NOW, NOW + 3_600_000_000) is Noted.FORGOTTEN
    assert note(store, 2, NOW + 5_000, NOW + 5_000) is Noted.NEW


def test_a_call_drops_a_bounded_number() -> None:
    store = ReplayStore()
    for number in range(1_000):
        note(store, number, NOW, NOW)
    note(store, 5_000, NOW + 20_000, NOW + 20_000)
    assert len(store) == 1_000 - 64 + 1
    for number in range(20):
        note(store, 6_000 + number, NOW + 20_000, NOW + 20_000)
    assert len(store) == 21


class Requests(RuleBasedStateMachine):
    """Against a guard with unbounded memory, on a clock that also jumps back."""

    def __init__(self) -> None:
        super().__init__()
        self.store = ReplayStore(bound=12, per_sender=7, bucket_ms=500)
        self.now_ms = NOW
        self.taken: dict[bytes, int] = {}

    @rule(ms=st.integers(0, 15_000))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @rule(ms=st.integers(0, 15_000))
    def the_clock_is_set_back(self, ms: int) -> None:
        self.now_ms -= ms

    @rule(number=st.integers(0, 30), sender=st.integers(0, 2), offset_ms=st.integers(-PAST_MS, FUTURE_MS))
    def a_request_comes(self, number: int, sender: int, offset_ms: int) -> None:
        self._ask(key(number, sender), self.now_ms + offset_ms)

    @rule(choice=st.integers(0, 1_000))
    def one_is_repeated(self, choice: int) -> None:
        if self.taken:
            repeated = sorted(self.taken)[choice % len(self.taken)]
            if -PAST_MS <= self.taken[repeated] - self.now_ms <= FUTURE_MS:
                assert self._ask(repeated, self.taken[repeated]) is not Noted.NEW

    def _ask(self, asked: bytes, stamp_ms: int) -> Noted:
        noted = self.store.note(asked, expires_ms=stamp_ms + PAST_MS, now_ms=self.now_ms)
        last = self.taken.get(asked)
        if noted is Noted.NEW:
            assert last is None or stamp_ms > last
            self.taken[asked] = stamp_ms
        if noted is Noted.FULL:
            assert len(self.store) >= 7
        return noted

    @invariant()
    def it_is_bounded(self) -> None:
        assert len(self.store) <= 12


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=settings().max_examples // 3, stateful_step_count=40)


@pytest.mark.parametrize("bucket_ms", [1, 1_000, 60_000])
def test_the_grain_of_the_buckets_changes_no_answer(bucket_ms: int) -> None:
    store = ReplayStore(bucket_ms=bucket_ms)
    assert [note(store, 1, NOW + offset, NOW + offset) for offset in (0, 0, 7_999)] == [
        Noted.NEW,
        Noted.SEEN,
        Noted.SEEN,
    ]
