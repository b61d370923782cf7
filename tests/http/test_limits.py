import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.clock import ManualClock
from engram.http.limits import BodyRoom, ClientAddress, Limiter, bucket_of


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    clock = ManualClock()
    limiter = Limiter(60, 3, clock.monotonic)
    assert [limiter.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, pytest.approx(1.0)]
    clock.advance(1.0)
    assert limiter.take("a") == 0.0
    assert limiter.take("a") == pytest.approx(1.0)
    assert limiter.take("b") == 0.0


@given(st.lists(st.floats(0, 5), max_size=60), st.integers(1, 10), st.integers(1, 600))
def test_never_more_than_burst_and_rate_whatever_the_arrivals(gaps: list[float], burst: int, per_minute: int) -> None:
    clock = ManualClock()
    limiter = Limiter(per_minute, burst, clock.monotonic)
    start, taken = clock.monotonic(), 0
    for gap in gaps:
        clock.advance(gap)
        taken += limiter.take("a") == 0.0
        assert taken <= burst + (clock.monotonic() - start) * per_minute / 60 + 1e-6


@given(st.integers(1, 10), st.integers(1, 600))
def test_waiting_as_long_as_told_is_enough(burst: int, per_minute: int) -> None:
    clock = ManualClock()
    limiter = Limiter(per_minute, burst, clock.monotonic)
    while not (wait_s := limiter.take("a")):
        pass
    clock.advance(wait_s)
    assert limiter.take("a") == 0.0


def test_a_costly_request_takes_more_and_a_refused_one_nothing() -> None:
    clock = ManualClock()
    limiter = Limiter(60, 5, clock.monotonic)
    assert limiter.take("a", cost=4) == 0.0
    assert limiter.take("a", cost=4) == pytest.approx(3.0)
    assert limiter.take("a") == 0.0


def test_a_rate_of_zero_switches_the_limit_off() -> None:
    limiter = Limiter(0, 1, ManualClock().monotonic)
    assert not any(limiter.take("a") for _ in range(1000))
    assert len(limiter) == 0


def test_the_table_is_bounded_and_forgets_who_was_unseen_longest() -> None:
    limiter = Limiter(1, 1, ManualClock().monotonic, table=2)
    limiter.take("a")
    limiter.take("b")
    limiter.take("c")
    assert len(limiter) == 2
    assert limiter.take("c") > 0
    assert limiter.take("a") == 0.0


@pytest.mark.parametrize(("per_minute", "burst", "table"), [(-1, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_limiter_that_means_nothing_is_refused(per_minute: float, burst: int, table: int) -> None:
    with pytest.raises(ValueError):
        Limiter(per_minute, burst, ManualClock().monotonic, table=table)


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        ([], "9.9.9.9", ["1.1.1.1"], "9.9.9.9"),
        (["10.0.0.0/8"], "9.9.9.9", ["1.1.1.1"], "9.9.9.9"),
        (["10.0.0.0/8"], "10.0.0.1", ["1.1.1.1"], "1.1.1.1"),
        (["10.0.0.0/8"], "10.0.0.1", ["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
        (["10.0.0.0/8"], "10.0.0.1", ["6.6.6.6", "1.1.1.1, 10.0.0.9"], "1.1.1.1"),
        (["10.0.0.0/8"], "10.0.0.1", [], "10.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1", ["nonsense"], "10.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1", ["6.6.6.6, nonsense, 10.2.2.2"], "10.2.2.2"),
        (["10.0.0.0/8"], "10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (["::1"], "::1", ["[2001:db8::1]"], "2001:db8::1"),
        (["10.0.0.0/8"], "", ["1.1.1.1"], ""),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", ["1.1.1.1"], "1.1.1.1"),
        (["10.0.0.0/8"], "10.0.0.1", ["1.1.1.1, ::ffff:10.0.0.9"], "1.1.1.1"),
        (["10.0.0.0/8"], "10.0.0.1", ["::ffff:1.1.1.1"], "1.1.1.1"),
        (["::ffff:10.0.0.0/104"], "10.0.0.1", ["1.1.1.1"], "1.1.1.1"),
    ],
)
def test_only_what_trusted_proxies_have_added_is_believed(
    trusted: list[str], peer: str, forwarded: list[str], client: str
) -> None:
    assert ClientAddress(trusted).of(peer, forwarded) == client


def test_a_trusted_proxy_that_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError):
        ClientAddress(["proxy.example"])


@pytest.mark.parametrize(
    ("address", "bucket"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("not:an:address", "not:an:address"),
    ],
)
def test_one_customers_addresses_share_a_bucket(address: str, bucket: str) -> None:
    assert bucket_of(address) == bucket


def test_an_address_holds_no_more_of_the_room_than_it_leaves_free() -> None:
    room = BodyRoom(100)
    assert room.enter("a", 50)
    assert not room.enter("a", 1), "alone it has half"
    assert room.enter("b", 25)
    assert not room.enter("b", 1)
    assert room.enter("c", 12)
    room.leave("a", 50)
    assert room.enter("c", 19)
    room.leave("b", 25)
    room.leave("c", 31)
    assert len(room) == 0
    room.resize(10)
    assert not room.enter("a", 6)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 1_000)), max_size=200))
def test_some_room_is_left_however_many_addresses_there_are(steps: list[tuple[int, int]]) -> None:
    room, held = BodyRoom(10_000), dict[str, int]()
    for number, size in steps:
        bucket = str(number)
        if room.enter(bucket, size):
            held[bucket] = held.get(bucket, 0) + size
            assert held[bucket] <= 10_000 - len(room)
    assert len(room) == sum(held.values()) < 10_000
