"""Each policy of the replay guard accepts a request at most once, over restarts and jumps of the clock.

The models know nothing of stores, buckets or floors: they hold every request that was ever accepted.
"""

import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from engram.hotkeys import AuthError, SignedRequest
from engram.hotkeys.replay_guard import CLOCKS_AHEAD_MS, FirstUse, ReplayFloor, ReplayStore
from engram.hotkeys.scheme import check_window

NOW_MS, WINDOW_MS = 1_750_000_000_000, 60_000
BOUND = 20
PHONE, STRANGER = b"p" * 32, b"s" * 32


class OneListener:
    """A store as a verifier uses it, which refuses what was stamped before its start."""

    def __init__(self, started_ms: int, *, bound: int = 20_000, per_sender: int = 1_000) -> None:
        self.not_before_ms = started_ms + CLOCKS_AHEAD_MS
        self.store = ReplayStore(bound=bound, per_sender=per_sender)

    def accept(self, public_key: bytes, message: bytes, stamp_ms: int, *, now_ms: int) -> None:
        check_window(stamp_ms, now_ms, past_ms=WINDOW_MS, future_ms=WINDOW_MS, not_before_ms=self.not_before_ms)
        self.store.require_new(public_key + message, expires_ms=stamp_ms + WINDOW_MS, now_ms=now_ms)


def code(guard: OneListener, stamp_ms: int, *, message: bytes = b"m" * 32, now_ms: int = NOW_MS) -> str:
    try:
        guard.accept(PHONE, message, stamp_ms, now_ms=now_ms)
    except AuthError as refused:
        return refused.code
    return "accepted"


def test_a_full_guard_refuses_for_now_and_forgets_nothing() -> None:
    guard = OneListener(0, bound=2)
    messages = [bytes([number]) * 32 for number in range(3)]
    assert [code(guard, NOW_MS, message=each) for each in messages] == ["accepted", "accepted", "busy"]
    assert code(guard, NOW_MS, message=messages[0]) == "replay"
    assert code(guard, NOW_MS + 62_000, message=messages[2], now_ms=NOW_MS + 62_000) == "accepted"


def test_one_hotkey_cannot_use_up_the_room_of_all() -> None:
    guard = OneListener(0, per_sender=1)
    assert [code(guard, NOW_MS, message=bytes([number]) * 32) for number in range(2)] == ["accepted", "busy"]
    guard.accept(STRANGER, b"m" * 32, NOW_MS, now_ms=NOW_MS)


def test_a_request_is_remembered_as_long_as_its_stamp_passes() -> None:
    guard = OneListener(0)
    assert code(guard, NOW_MS + 60_000) == "accepted"
    assert code(guard, NOW_MS + 60_000, now_ms=NOW_MS + 120_000) == "replay"


def test_a_clock_that_is_set_back_lets_nothing_in_again() -> None:
    guard = OneListener(0)
    assert code(guard, NOW_MS) == "accepted"
    assert code(guard, NOW_MS + 100_000, message=b"n" * 32, now_ms=NOW_MS + 100_000) == "accepted"
    assert code(guard, NOW_MS) == "stale"


def test_what_the_process_before_may_have_accepted_is_refused() -> None:
    guard = OneListener(NOW_MS)
    answers = [code(guard, NOW_MS + offset_ms) for offset_ms in (-1, 0, CLOCKS_AHEAD_MS - 1, CLOCKS_AHEAD_MS)]
    assert answers == ["before_start"] * 3 + ["accepted"]


def signed_bytes(request: tuple[bytes, int]) -> bytes:
    return hashlib.sha256(repr(request).encode()).digest()


class Restarts(RuleBasedStateMachine):
    """Requests come, are repeated and come late, while the clock jumps both ways and the process restarts.

    A restart takes a millisecond, and waits until the clock is past where it has been: the theory of operation names
    that limit.
    """

    ahead_ms = WINDOW_MS
    """How far ahead of our clock requests may be stamped."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = self.latest_ms = NOW_MS
        self.sent: list[tuple[bytes, int]] = []
        self.accepted: set[tuple[bytes, int]] = set()
        self.restart()
        self.now_ms = self.latest_ms = NOW_MS + 10 * WINDOW_MS

    def restart(self) -> None:
        self.start()
        self.remembered, self.was_set_back = 0, False
        latest_ms = max((stamp_ms for _, stamp_ms in self.accepted), default=0)
        self.surely_after_ms = max(self.now_ms, latest_ms) + CLOCKS_AHEAD_MS

    def start(self) -> None:
        raise NotImplementedError

    def accepts(self, request: tuple[bytes, int]) -> bool:
        raise NotImplementedError

    @rule(ms=st.integers(-90_000, 150_000))
    def the_clock_jumps(self, ms: int) -> None:
        self.now_ms += ms
        self.latest_ms = max(self.latest_ms, self.now_ms)
        self.was_set_back |= ms < 0

    @rule(ms=st.integers(WINDOW_MS, 3 * WINDOW_MS))
    def the_clock_jumps_there_and_back_and_a_request_comes_between(self, ms: int) -> None:
        self.the_clock_jumps(ms)
        self.a_request_comes(b"between", 0)
        self.the_clock_jumps(-ms)

    @precondition(lambda self: self.sent)
    @rule(choice=st.integers(0, 1_000), offset_ms=st.integers(-WINDOW_MS, WINDOW_MS))
    def the_clock_jumps_into_the_window_of_a_request(self, choice: int, offset_ms: int) -> None:
        self.the_clock_jumps(self.sent[choice % len(self.sent)][1] + offset_ms - self.now_ms)

    @precondition(lambda self: self.accepted)
    @rule()
    def the_process_restarts(self) -> None:
        self.now_ms = self.latest_ms = self.latest_ms + 1
        self.restart()

    @rule(message=st.binary(min_size=2, max_size=2), offset_ms=st.integers(-3_000, WINDOW_MS + 1))
    def a_request_comes(self, message: bytes, offset_ms: int) -> None:
        request = (message, self.now_ms + min(offset_ms, self.ahead_ms))
        self.sent.append(request)
        self.ask(request)

    @precondition(lambda self: self.sent)
    @rule(choice=st.integers(0, 1_000))
    def one_is_repeated(self, choice: int) -> None:
        self.ask(self.sent[choice % len(self.sent)])

    def ask(self, request: tuple[bytes, int]) -> None:
        accepted, passes = self.accepts(request), abs(request[1] - self.now_ms) <= WINDOW_MS
        if request in self.accepted or not passes:
            assert not accepted
        elif not self.was_set_back and self.remembered < BOUND and request[1] >= self.surely_after_ms:
            assert accepted
        if accepted:
            self.accepted.add(request)
            self.remembered += 1


class Listeners(Restarts):
    """Senders' clocks run ahead by less than is allowed for."""

    ahead_ms = CLOCKS_AHEAD_MS - 1

    def start(self) -> None:
        self.guard = OneListener(self.now_ms, bound=BOUND, per_sender=BOUND)

    def accepts(self, request: tuple[bytes, int]) -> bool:
        return code(self.guard, request[1], message=signed_bytes(request), now_ms=self.now_ms) == "accepted"


class Floors(Restarts):
    """A node: whatever passes the window is covered by the floor on disk before it is accepted."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        super().__init__()

    def start(self) -> None:
        self.floor = ReplayFloor(Path(self.folder.name), now_ms=self.now_ms, longest_ms=WINDOW_MS)
        self.not_before_ms = max(self.now_ms, self.floor.ms)
        self.store = ReplayStore(bound=BOUND, per_sender=BOUND)

    def accepts(self, request: tuple[bytes, int]) -> bool:
        stamp_ms, key = request[1], PHONE + signed_bytes(request)
        try:
            check_window(
                stamp_ms, self.now_ms, past_ms=WINDOW_MS, future_ms=WINDOW_MS, not_before_ms=self.not_before_ms
            )
            if not self.floor.covers(stamp_ms, now_ms=self.now_ms):
                self.floor.raise_above(stamp_ms)
            self.store.require_new(key, expires_ms=stamp_ms + WINDOW_MS, now_ms=self.now_ms)
        except AuthError:
            return False
        return True

    def teardown(self) -> None:
        self.folder.cleanup()


class FirstUses(RuleBasedStateMachine):
    """Against a table of what each signature was first accepted for."""

    def __init__(self) -> None:
        super().__init__()
        self.guard = FirstUse(window_ms=WINDOW_MS, bound=12, per_sender=8)
        self.now_ms = NOW_MS
        self.first: dict[str, tuple[int, str, bytes]] = {}

    @rule(ms=st.integers(-90_000, 150_000))
    def the_clock_jumps(self, ms: int) -> None:
        self.now_ms += ms

    @rule(
        number=st.integers(0, 9),
        endpoint=st.sampled_from(["list", "DeleteSynapse"]),
        body=st.sampled_from([b"one", b"two"]),
        offset_ms=st.integers(-WINDOW_MS, WINDOW_MS),
    )
    def a_request_comes(self, number: int, endpoint: str, body: bytes, offset_ms: int) -> None:
        signature = f"{number:02x}"
        stamp_ms = self.first[signature][0] if signature in self.first else self.now_ms + offset_ms
        if abs(stamp_ms - self.now_ms) > WINDOW_MS:
            return
        answer = self.answer(signature, stamp_ms, endpoint, body)
        first = self.first.get(signature)
        if answer == "accepted":
            assert first in (None, (stamp_ms, endpoint, body))
            assert first is None or endpoint == "list"
            self.first[signature] = (stamp_ms, endpoint, body)
        elif first is None:
            assert answer in ("busy", "stale")
        elif first[1:] != (endpoint, body):
            assert answer in ("bound_elsewhere", "stale")
        else:
            assert answer == "stale" or (answer == "replay" and endpoint == "DeleteSynapse")

    def answer(self, signature: str, stamp_ms: int, endpoint: str, body: bytes) -> str:
        signed = SignedRequest(PHONE, stamp_ms, 1, b"m" * 32, 0)
        spelled = signature if stamp_ms % 2 else f"0x{signature.upper()}"
        try:
            self.guard.accept(signed, spelled, endpoint, body, now_ms=self.now_ms, repeatable=endpoint == "list")
        except AuthError as refused:
            return refused.code
        return "accepted"


TestListeners = Listeners.TestCase
TestFloors = Floors.TestCase
TestFirstUses = FirstUses.TestCase
for case in (TestListeners, TestFloors, TestFirstUses):
    case.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=30)


@pytest.mark.parametrize("content", [b"", b"torn\x00", b"-1", b"9" * 14])
def test_a_floor_that_cannot_be_true_refuses_one_window(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ReplayFloor.NAME).write_bytes(content)
    assert ReplayFloor(tmp_path, now_ms=NOW_MS, longest_ms=WINDOW_MS).ms == NOW_MS + WINDOW_MS
