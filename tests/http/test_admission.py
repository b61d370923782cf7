"""Who may come in, and who goes for it: examples, and any order of comings and goings against a plain model."""

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.http.admission import Admission
from engram.http.limits import ClientAddress

LEAVES = st.booleans()


class Place:
    def __init__(self, idle_since: int | None, blocked_since: int | None = None) -> None:
        self.idle_since, self.blocked_since = idle_since, blocked_since
        self.arriving = False


def filled(entries: Iterable[tuple[str, int | None]], trusted: tuple[str, ...] = ()) -> Admission[Place]:
    admission = Admission[Place](100, 3, ClientAddress(trusted))
    for peer, idle_since in entries:
        admission.enter(peer, Place(idle_since))
    return admission


def evicted(admission: Admission[Place]) -> int | None:
    chosen = admission.to_evict()
    return None if chosen is None else chosen.idle_since


def test_an_address_may_have_so_many_and_a_trusted_proxy_any_number() -> None:
    admission = filled([("192.0.2.1", 1)] * 3 + [("10.0.0.1", 1)] * 3, trusted=("10.0.0.0/8",))
    assert not admission.allows("192.0.2.1")
    assert admission.allows("192.0.2.2")
    assert admission.allows("10.0.0.1")


def test_an_ipv6_network_of_one_customer_is_one_address() -> None:
    admission = filled([("2001:db8::1", 1), ("2001:db8::2", 1), ("2001:db8::3", 1)])
    assert not admission.allows("2001:db8::4")
    assert admission.allows("2001:db8:0:1::1")


def test_addresses_are_forgotten_when_their_connections_close() -> None:
    admission = Admission[Place](100, 1, ClientAddress())
    held = {peer: Place(1) for peer in ("2001:db8::1", "192.0.2.1")}
    for peer, place in held.items():
        assert admission.allows(peer)
        admission.enter(peer, place)
        assert not admission.allows(peer)
    for peer, place in held.items():
        admission.leave(peer, place)
        assert admission.allows(peer)
    assert (len(admission), admission._open, admission._by_count) == (0, {}, {})


def test_without_a_limit_an_address_may_have_any_number() -> None:
    admission = Admission[Place](2_000, 0, ClientAddress())
    for _ in range(1_000):
        assert admission.allows("192.0.2.1")
        admission.enter("192.0.2.1", Place(None))


def test_the_longest_idle_of_one_address_goes() -> None:
    assert evicted(filled([("192.0.2.1", 5), ("192.0.2.1", 2), ("192.0.2.1", 3)])) == 2


def test_the_address_with_most_connections_pays_even_when_another_has_idled_longer() -> None:
    assert evicted(filled([("192.0.2.1", 1), ("192.0.2.2", 8), ("192.0.2.2", 9)])) == 8


def test_busy_connections_never_go() -> None:
    assert evicted(filled([("192.0.2.1", None), ("192.0.2.1", None), ("192.0.2.2", 4)])) == 4
    assert evicted(filled([("192.0.2.1", None)])) is None
    assert evicted(filled([])) is None


def test_clients_behind_a_trusted_proxy_go_last() -> None:
    entries = [("10.0.0.1", 1), ("10.0.0.1", 1), ("192.0.2.1", 7)]
    assert evicted(filled(entries, trusted=("10.0.0.1",))) == 7
    assert evicted(filled(entries[:2], trusted=("10.0.0.1",))) == 1


def test_clients_behind_a_trusted_ipv6_proxy_go_last_and_not_with_their_neighbours() -> None:
    proxy, neighbour = "2001:db8::1", "2001:db8::2"
    entries = [(proxy, 1), (proxy, 2), ("192.0.2.1", 7)]
    assert evicted(filled(entries, trusted=(proxy,))) == 7
    assert evicted(filled([*entries, (neighbour, 5)], trusted=(proxy,))) == 5
    assert evicted(filled(entries[:2], trusted=(proxy,))) == 1


def test_of_addresses_with_as_many_connections_the_longest_idle_goes() -> None:
    assert evicted(filled([("192.0.2.1", 90), ("192.0.2.2", 1), ("192.0.2.3", 50)])) == 1
    twice = [("192.0.2.1", 90), ("192.0.2.1", 80), ("192.0.2.2", 20), ("192.0.2.2", 10), ("192.0.2.3", 5)]
    assert evicted(filled(twice)) == 10


@pytest.mark.parametrize("twice", [False, True])
def test_leaving_twice_counts_once(twice: bool) -> None:
    admission = Admission[Place](2, 0, ClientAddress())
    first, second = Place(1), Place(2)
    admission.enter("192.0.2.1", first)
    admission.enter("192.0.2.1", second)
    assert admission.full
    admission.leave("192.0.2.1", first)
    if twice:
        admission.leave("192.0.2.1", first)
    assert (len(admission), admission.full, list(admission)) == (1, False, [second])


@given(st.lists(st.tuples(st.integers(0, 4), st.one_of(st.none(), st.integers(0, 9))), max_size=40), st.data())
def test_the_counts_are_those_of_a_plain_model(steps: list[tuple[int, int | None]], data: st.DataObject) -> None:
    admission = Admission[Place](1_000, 0, ClientAddress())
    model: list[tuple[str, Place]] = []
    for number, idle in steps:
        leaves: bool = data.draw(LEAVES)
        if model and leaves:
            index: int = data.draw(st.integers(0, len(model) - 1))
            peer, place = model.pop(index)
            admission.leave(peer, place)
        peer, place = f"192.0.2.{number}", Place(idle)
        admission.enter(peer, place)
        model.append((peer, place))
    counts = Counter(peer for peer, place in model)
    assert len(admission) == len(model)
    idle_places = [(counts[peer], place) for peer, place in model if place.idle_since is not None]
    chosen = admission.to_evict()
    if not idle_places:
        assert chosen is None
    else:
        most = max(count for count, _ in idle_places)
        assert chosen in [place for count, place in idle_places if count == most]


def test_a_request_that_has_arrived_keeps_its_connection_and_only_the_one_to_be_closed_is_asked_for_it() -> None:
    asked = list[int]()

    class Counted(Place):
        @property
        def arriving(self) -> bool:
            assert self.idle_since is not None
            asked.append(self.idle_since)
            return self.idle_since == 1

        @arriving.setter
        def arriving(self, _: bool) -> None: ...

    admission = Admission[Place](100, 0, ClientAddress())
    for turn in (3, 1, 2, 5, 4):
        admission.enter("192.0.2.1", Counted(turn))
    assert evicted(admission) == 2
    assert asked == [1, 2]


def test_the_longest_blocked_of_a_crowded_address_without_idle_ones_goes_and_no_lone_one() -> None:
    admission = Admission[Place](100, 3, ClientAddress(("10.0.0.0/8",)))
    lone, first, second = Place(None, 1), Place(None, 3), Place(None, 4)
    for peer, place in (("192.0.2.1", lone), ("192.0.2.2", second), ("192.0.2.2", first), ("192.0.2.2", Place(None))):
        admission.enter(peer, place)
    for expected in (first, second):
        assert admission.to_evict() is expected
        admission.leave("192.0.2.2", expected)
    assert admission.to_evict() is None
    for _ in range(4):
        admission.enter("10.0.0.1", Place(None, 2))
    admission.enter("192.0.2.2", second)
    assert admission.to_evict() is second, "a trusted proxy's are considered last"
    admission.leave("192.0.2.2", second)
    admission.enter("192.0.2.3", idle := Place(5))
    assert admission.to_evict() is idle
    admission.end(lone)
    assert admission.to_evict() is lone, "what has ended goes before all others"
