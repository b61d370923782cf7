"""The proxy's decisions, without a loop: who may call, what is used up, which server, which route, which headers."""

import base64
import hashlib

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engram.hotkeys import ss58
from engram.hotkeys.content_digest import BadDigest, header_value, sha256_of
from engram.http.framing import CHUNKED
from engram.proxy.authorization import Caller, Passes, Policy, Refuses, decide, policy_of
from engram.proxy.backends import rules
from engram.proxy.backends.breaker import Breaker
from engram.proxy.backends.group import Group
from engram.proxy.backends.rules import Server
from engram.proxy.capacity import BadCapacity, Capacity
from engram.proxy.endings import TABLE
from engram.proxy.exchange.heads import Origin, answer_lines, request_lines, trailer_lines
from engram.proxy.exchange.refusing import Refusal
from engram.proxy.limits.holders import Holders, NoRoom, TooMany
from engram.proxy.limits.pace import LEAST_BYTES_PER_S, Pace
from engram.proxy.limits.places import Places, Waiter
from engram.proxy.limits.rates import FULL, Rates, burst_of
from engram.proxy.limits.turnover import Turnover
from engram.proxy.routing import Matched, NoRoute, Routes
from engram.proxy.settings.model import BackendSettings, CapacitySettings, RouteSettings
from tests.proxy.backends import answer, backend
from tests.proxy.harness import AUTH, Chain
from tests.proxy.signing import ALICE, BOB, EVE

# Who may call.

RAO = 10**9
POLICY = msgspec.structs.replace(policy_of(AUTH, "the default", ss58.decode), has_chain=True, max_age_s=100.0)


def found(policy: Policy = POLICY, *, caller: Caller | None = None, age_s: float | None = 0.0) -> str:
    chain = Chain(*([] if caller is None else [(EVE.public_key, caller)]), age_s=age_s)
    match decide(policy, chain, EVE.public_key):
        case Passes(reason):
            return reason
        case Refuses(status, reason):
            assert status == (503 if reason == "chain_stale" else 403)
            return reason


def test_stake_must_be_more_than_the_threshold_in_its_unit() -> None:
    assert found(caller=Caller(True, 1_000 * RAO + 1, 0, 0)) == "permit"
    assert found(caller=Caller(True, 1_000 * RAO, 9_999 * RAO, 9_999 * RAO)) == "stake_too_low"
    tao = msgspec.structs.replace(POLICY, unit="tao")
    assert found(tao, caller=Caller(True, 0, 1_001 * RAO, 0)) == "permit"
    weighted = msgspec.structs.replace(POLICY, unit="weighted")
    assert found(weighted, caller=Caller(True, 0, 0, 1_001 * RAO)) == "permit"


def test_without_permit_registration_or_a_current_metagraph_no_one_passes() -> None:
    rich = Caller(True, 9_999 * RAO, 0, 0)
    assert found(caller=msgspec.structs.replace(rich, validator_permit=False)) == "no_permit"
    assert found() == "not_registered"
    assert found(caller=rich, age_s=100.0) == "permit"
    assert found(caller=rich, age_s=100.1) == "chain_stale"
    assert found(caller=rich, age_s=None) == "chain_stale"


@pytest.mark.parametrize(
    ("caller", "reason", "stake"),
    [
        (None, "not_registered", {}),
        (Caller(False, 7 * RAO, 0, 0), "no_permit", {"stake": 7.0}),
        (Caller(True, 7 * RAO, 0, 0), "stake_too_low", {"stake": 7.0}),
    ],
)
def test_whom_the_chain_does_not_authorize_reads_what_is_required_and_where_that_is_from(
    caller: Caller | None, reason: str, stake: dict[str, float]
) -> None:
    chain = Chain(*([] if caller is None else [(EVE.public_key, caller)]))
    refused = decide(POLICY, chain, EVE.public_key)
    assert isinstance(refused, Refuses)
    assert refused.reason == reason
    assert refused.extra == {"min_stake": 1_000.0, "stake_unit": "alpha", "min_stake_source": "the default"} | stake
    assert "a stake of more than 1000 alpha (auth.min_stake, from the default)" in refused.message
    assert ("yours is 7" in refused.message) == bool(stake)


def test_the_lists_come_before_the_chain_and_the_deny_list_before_all() -> None:
    both = msgspec.structs.replace(POLICY, allowed=frozenset({EVE.public_key}))
    assert found(both, age_s=None) == "allow_list"
    denied = msgspec.structs.replace(both, denied=frozenset({EVE.public_key}))
    assert found(denied, caller=Caller(True, 9_999 * RAO, 0, 0)) == "denied"
    alone = msgspec.structs.replace(POLICY, has_chain=False, allowed=frozenset({BOB.public_key}))
    assert found(alone) == "no_authority"


# What is used up.


@given(st.integers(1, 600), st.lists(st.floats(0, 5), max_size=200))
def test_no_caller_gets_more_than_its_burst_and_rate(per_minute: int, gaps: list[float]) -> None:
    rates, now, passed = Rates(per_minute, 100), 0.0, 0
    for gap in gaps:
        now += gap
        passed += rates.take("a", now) == 0.0
    assert passed <= burst_of(per_minute) + now * per_minute / 60 + 1


@given(st.lists(st.integers(0, 40), max_size=300))
def test_a_full_table_gives_no_one_a_fresh_burst(callers: list[int]) -> None:
    rates = Rates(6, 8)
    passed: dict[int, int] = {}
    for caller in callers:
        if rates.take(caller, 0.0) == 0.0:
            passed[caller] = passed.get(caller, 0) + 1
    assert len(passed) <= 8
    assert all(count <= burst_of(6) for count in passed.values())


def test_a_full_table_takes_new_callers_again_once_old_buckets_are_full() -> None:
    rates = Rates(60, 4)
    assert [rates.take(each, 0.0) for each in range(4)] == [0.0] * 4
    assert rates.take("new", 0.5) == FULL
    assert rates.take("new", 1.1) == 0.0


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=100))
def test_holders_count_each_caller_by_itself(steps: list[tuple[int, bool]]) -> None:
    holders, held = Holders(2, 3), dict[int, list[int]]()
    for caller, enters in steps:
        mine = held.setdefault(caller, [])
        if not enters:
            if mine:
                holders.leave(caller, mine.pop())
            continue
        match holders.enter(caller, 0.0):
            case TooMany(limit, count, _):
                assert len(mine) == limit == count == 2
            case NoRoom():
                assert sum(1 for other in held.values() if other) == 3
                assert not mine
            case ticket:
                mine.append(ticket)
        assert holders.of(caller) == len(mine)
    assert len(holders) == sum(map(len, held.values()))


def test_a_place_that_is_given_back_twice_is_a_bug_and_shows() -> None:
    holders = Holders(2, 3)
    ticket = holders.enter("a", 0.0)
    assert isinstance(ticket, int)
    holders.leave("a", ticket)
    with pytest.raises(KeyError):
        holders.leave("a", ticket)


def test_what_came_quickly_buys_no_right_to_trickle() -> None:
    pace = Pace(20.0, 0.0)
    assert pace.holds(1, 20.0), "a window is judged at its end"
    assert pace.holds(100_000_000, 21.0)
    assert pace.holds(100_000_001, 41.0)
    assert not pace.holds(100_000_002, 41.1)
    steady = Pace(20.0, 0.0)
    assert all(steady.holds(int(LEAST_BYTES_PER_S * now), now) for now in (10.0, 21.0, 42.0, 63.0))


@given(st.integers(1, 3), st.integers(0, 3), st.lists(st.sampled_from(["take", "back", "leave"]), max_size=60))
def test_places_are_given_in_order_and_none_is_lost(places: int, queue: int, steps: list[str]) -> None:
    room, inside, waiting, woken = Places(places, queue), 0, list[Waiter](), list[Waiter]()
    for step in steps:
        if step == "take":
            if room.take():
                inside += 1
                assert not waiting
            elif (waiter := room.wait(lambda: None)) is not None:
                waiting.append(waiter)
            else:
                assert len(waiting) == queue
        elif step == "back" and inside:
            inside -= 1
            room.give_back()
        elif step == "leave" and waiting:
            room.leave(waiting.pop())
        while waiting and waiting[0].admitted:
            woken.append(waiting.pop(0))
            inside += 1
        assert not any(waiter.admitted for waiter in waiting), "first come, first served"
        assert room.taken == inside <= places
        assert room.waiting == len(waiting) <= queue


# Which server.

GROUP = BackendSettings(urls=("http://a", "http://b", "http://c"), failures=2, eject_s=10, slow_start_s=10)


def servers() -> list[Server]:
    return [Server(url) for url in GROUP.urls]


def test_the_least_busy_server_is_chosen_and_none_twice_while_others_are_there() -> None:
    a, b, c = group = servers()
    a.in_flight, b.in_flight, c.in_flight = 2, 1, 3
    assert rules.choose(group, GROUP, 0.0) is b
    assert rules.choose(group, GROUP, 0.0, [b]) is a
    assert rules.choose(group, GROUP, 0.0, [a, b, c]) is b


def test_a_server_that_fails_in_a_row_is_ejected_tried_again_and_starts_slowly() -> None:
    a, b, c = group = servers()
    assert not rules.failed(a, group, GROUP, 0.0, "x")
    assert rules.failed(a, group, GROUP, 0.0, "x")
    assert a.word(1.0, 10) == "ejected"
    b.in_flight = c.in_flight = 9
    assert rules.choose(group, GROUP, 9.9) is not a
    assert a.word(10.0, 10) == "probing"
    assert rules.choose(group, GROUP, 10.0) is a
    a.in_flight = 1
    assert rules.choose(group, GROUP, 10.0) is not a, "one request probes"
    assert rules.failed(a, group, GROUP, 10.0, "x")
    assert a.ejected_until == 30.0, "twice as long"
    rules.succeeded(a, 30.0)
    assert a.word(31.0, 10) == "slow_start"
    a.in_flight, b.in_flight, c.in_flight = 0, 5, 5
    assert rules.choose(group, GROUP, 31.0) is b, "a tenth of its share counts as ten times as busy"
    assert rules.choose(group, GROUP, 39.0) is a


def test_no_more_than_a_share_is_ejected_and_one_is_chosen_even_if_all_are_out() -> None:
    group = servers()
    for each in group:
        rules.failed(each, group, GROUP, 0.0, "x")
        rules.failed(each, group, GROUP, 0.0, "x")
    assert [each.ejections for each in group] == [1, 0, 0]
    for each in group:
        rules.checked(each, 0.0, "down")
    assert rules.choose(group, GROUP, 0.0) in group
    assert rules.checked(group[0], 5.0, "")
    assert rules.choose(group, GROUP, 5.0) is group[0]


def test_a_breaker_opens_lets_one_trial_through_and_closes() -> None:
    breaker = Breaker()
    for _ in range(3):
        assert breaker.wait_s(0.0) == 0.0
        breaker.failed(3, 5.0, 0.0)
    assert breaker.wait_s(1.0) == 4.0
    assert breaker.wait_s(5.0) == 0.0
    assert breaker.wait_s(5.0) > 0.0, "one trial at a time"
    breaker.failed(3, 5.0, 5.0)
    assert breaker.wait_s(9.9) > 0.0
    assert breaker.wait_s(10.0) == 0.0
    breaker.left()
    assert breaker.wait_s(10.0) == 0.0, "a trial without an outcome is made again"
    breaker.succeeded()
    assert breaker.word(10.0) == "closed"


# Which route.


def test_an_exact_path_comes_before_prefixes_and_the_longest_prefix_first() -> None:
    routes = Routes([RouteSettings(path=path, backend="inference") for path in ("/a/*", "/a/b/*", "/a/b/c")])

    def route_of(path: bytes) -> str:
        found = routes.find("POST", path)
        return found.route.path if isinstance(found, Matched) else str(found.status)

    assert route_of(b"/a/b/c") == "/a/b/c"
    assert route_of(b"/a/b/d") == "/a/b/*"
    assert route_of(b"/a/x") == "/a/*"
    assert route_of(b"/a") == route_of(b"/ab") == "404"
    assert routes.find("PUT", b"/a/x") == NoRoute(405, ("POST",))


# Which headers.

ORIGIN = Origin("192.0.2.1", secure=False, host=b"m", request_id="ab", caller=ALICE.ss58)


@pytest.mark.parametrize("length", [None, 0, 7, CHUNKED])
def test_framing_is_ours_alone(length: int | None) -> None:
    theirs = [(b"content-length", b"99"), (b"transfer-encoding", b"chunked"), (b"expect", b"100-continue")]
    lines = request_lines(theirs, ORIGIN, "backend:1", length)
    framing = {name: value for name, value in lines if name in (b"content-length", b"transfer-encoding")}
    expected = {None: {}, CHUNKED: {b"transfer-encoding": b"chunked"}}
    assert framing == expected.get(length, {b"content-length": str(length).encode()})
    assert b"expect" not in dict(lines)


@pytest.mark.parametrize(
    "name",
    ["authorization", "epistula-request-signature", "epistula-uuid", "x-epistula-signature", "body-signature",
     "x_epistula_caller", "x_forwarded_for",
     "content_length", "x-epistula-caller", "x-internal-secret", "forwarded", "x-real-ip", "proxy-authorization",
     "keep-alive"],
)  # fmt: skip
def test_what_authenticates_the_caller_or_is_stated_by_us_stays_here(name: str) -> None:
    lines = request_lines([(name.encode(), b"Epistula 0xabc")], ORIGIN, "backend:1", None)
    assert b"Epistula 0xabc" not in dict(lines).values()


def test_a_backends_own_authorization_passes() -> None:
    lines = request_lines([(b"authorization", b"Bearer for the backend")], ORIGIN, "backend:1", None)
    assert (b"authorization", b"Bearer for the backend") in lines


def test_an_ipv6_client_is_quoted_in_forwarded() -> None:
    origin = msgspec.structs.replace(ORIGIN, client="2001:db8::1", secure=True)
    assert dict(request_lines([], origin, "b", None))[b"forwarded"] == b'for="[2001:db8::1]";proto=https;host="m"'


def test_what_connection_names_in_an_answer_stays_too() -> None:
    lines = answer_lines([(b"connection", b"close, X-Hop"), (b"x-hop", b"1"), (b"x-end", b"2"), (b"date", b"d")])
    assert lines == [(b"x-end", b"2")]


def test_a_backends_own_permission_for_pages_does_not_reach_them() -> None:
    lines = answer_lines([(b"access-control-allow-origin", b"*"), (b"access-control-allow-credentials", b"true")])
    assert lines == []


@pytest.mark.parametrize(
    "name",
    ["x-forwarded-for", "X_Forwarded_For", "x-epistula-caller", "x_epistula_caller", "epistula-uuid", "authorization",
     "cookie", "set-cookie", "host", "transfer-encoding", "content-length", "te", "access-control-allow-origin"],
)  # fmt: skip
def test_a_trailer_is_no_way_around_what_a_header_may_not_be(name: str) -> None:
    digest = (b"content-digest", b"sha-256=:x:")
    assert trailer_lines([(name.lower().encode(), b"5F"), digest]) == [digest]


async def test_a_trial_whose_client_leaves_while_it_connects_may_be_made_again() -> None:
    async with backend(answer()) as servers:
        settings = BackendSettings(urls=(f"http://127.0.0.1:{servers.port}",), connections=1)
        group = Group("servers", settings, trio.current_time, None)
        async with group.connected(1.0, 0.0, bodyless=False):
            group.breaker.failed(1, 0.0, trio.current_time())
            assert group.wait_s() == 0.0, "this is the trial"
            with trio.move_on_after(0.01) as left:
                async with group.connected(5.0, 0.0, bodyless=False):
                    raise AssertionError("there is no second connection")
            assert left.cancelled_caught
            assert group.wait_s() == 0.0


# Digests.


@given(st.binary(max_size=100))
def test_a_digest_is_read_as_it_is_written(body: bytes) -> None:
    digest = hashlib.sha256(body).digest()
    assert sha256_of([(b"content-digest", header_value(digest).encode())]) == digest.hex()


@pytest.mark.parametrize("value", [b"sha-256=abc", b"sha-256=:abc:", b"sha-256=:YWJj:", b"x", b"sha-256=:=:,"])
def test_a_digest_that_is_none_is_refused(value: bytes) -> None:
    with pytest.raises(BadDigest):
        sha256_of([(b"content-digest", value)])


def test_other_digests_do_not_count_and_two_are_one_too_many() -> None:
    other = b"sha-512=:" + base64.b64encode(b"x" * 64) + b":"
    assert sha256_of([(b"content-digest", other)]) is None
    own = header_value(hashlib.sha256(b"").digest()).encode()
    with pytest.raises(BadDigest, match="more than once"):
        sha256_of([(b"content-digest", own), (b"content-digest", own)])


# What is advertised.


def test_both_shapes_of_capacity() -> None:
    lists = Capacity(CapacitySettings())
    assert lists.document() == {"inference": ["base-h100_pcie", "img-h100_pcie"], "training": ["H100pcie"]}
    booleans = Capacity(CapacitySettings(profile="booleans", training=()))
    assert booleans.document() == {"base-h100_pcie": True, "img-h100_pcie": True}
    assert lists.update(b'{"a": true, "b": false}') == {"a": True, "b": False}
    assert lists.document() == {"a": True, "b": False}
    assert lists.update(b'{"capacity": {"inference": ["x"]}}') == {"inference": ["x"]}


@pytest.mark.parametrize("raw", [b"", b"[]", b"1", b'{"a": 1}', b'{"a": [1]}', b'{"a": {"b": 1}}', b'{"\xff": true}'])
def test_a_capacity_that_no_one_could_read_changes_nothing(raw: bytes) -> None:
    capacity = Capacity(CapacitySettings())
    before = capacity.document()
    with pytest.raises(BadCapacity):
        capacity.update(raw)
    assert capacity.document() == before


def test_who_finds_no_room_is_told_when_those_who_wait_will_have_been_served() -> None:
    turnover = Turnover()
    assert turnover.wait_s(3, 1, 10.0) == 10.0, "nothing is known yet: by then the queue is another one"
    turnover.note(2.0)
    assert turnover.wait_s(3, 4, 10.0) == 2.0
    assert turnover.wait_s(3, 100, 10.0) == 1.0, "never at once"
    assert turnover.wait_s(30, 4, 10.0) == 10.0, "no longer than anyone waits"
    assert turnover.wait_s(30, 4, 0.5) == 0.5
    for _ in range(100):
        turnover.note(4.0)
    assert turnover.wait_s(3, 4, 10.0) == pytest.approx(4.0)


@pytest.mark.parametrize("code", [row.code for row in TABLE.values() if row.status in (429, 503)])
def test_each_answer_that_asks_to_wait_says_how_long(code: str) -> None:
    assert dict(Refusal(code, "wait").headers)[b"retry-after"] == b"5"
    assert dict(Refusal(code, "wait", retry_after_s=0.2).headers)[b"retry-after"] == b"1"
