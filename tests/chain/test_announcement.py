"""Whether a node announces itself now: the table of announcement.py, row by row, and what holds for all of them."""

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engram.chain.model import Axon
from engram.chain.read.runtime import ERA_BLOCKS
from engram.chain.registry.announce_rules import (
    REFUSED_MAX_S,
    RETRY_AFTER_MAX_S,
    UNSENT_MAX_S,
    Attempt,
    Decision,
    Place,
    Seen,
    Standing,
    Verdict,
    about_to_send,
    arrived,
    decide,
    included,
    is_at,
    may_come,
    never,
    place_of,
    postponed,
    refused,
    seen_in,
    signed,
    unknown,
    unsent,
)
from tests.chain.samples import key, metagraph, neuron

HERE = Place("203.0.113.5", 8091)
NOW_S = 1_000.0


def axon(ip: str = "203.0.113.5", port: int = 8091, block: int = 900) -> Axon:
    return Axon(ip=ip, port=port, version=1, protocol=4, block=block)


def seen(**told: Any) -> Seen:
    fields: dict[str, Any] = {"block": 1_000, "registered": True, "axon": None, "serving_rate_limit_blocks": 50}
    return Seen(**{**fields, **told})


SENT = Standing(Attempt(HERE, 990, 1_054, "0xab"))
RATE_LIMITED, IN_FLIGHT = Decision(Verdict.RATE_LIMITED, 1_045), Decision(Verdict.IN_FLIGHT, 1_055)
ELSEWHERE = axon(port=1, block=980)


@pytest.mark.parametrize(
    ("found", "standing", "decision"),
    [
        (None, Standing(), Decision(Verdict.UNREAD)),
        (seen(axon=axon()), Standing(), Decision(Verdict.ANNOUNCED)),
        (seen(axon=axon(block=999)), SENT, Decision(Verdict.ANNOUNCED)),
        (seen(), SENT, Decision(Verdict.IN_FLIGHT, 1_055)),
        (seen(block=1_054), SENT, Decision(Verdict.IN_FLIGHT, 1_055)),
        (seen(block=1_055), SENT, Decision(Verdict.DUE)),
        (seen(axon=axon(port=1, block=995)), Standing(Attempt(Place(HERE.ip, 1), 990, 1_054)), RATE_LIMITED),
        (seen(axon=axon(port=1, block=989)), Standing(Attempt(Place(HERE.ip, 1), 990, 1_054)), IN_FLIGHT),
        (seen(registered=False), SENT, Decision(Verdict.IN_FLIGHT, 1_055)),
        (seen(registered=False), Standing(), Decision(Verdict.UNREGISTERED)),
        (seen(), Standing(not_before_s=NOW_S + 1), Decision(Verdict.SET_ASIDE)),
        (seen(), Standing(not_before_s=NOW_S), Decision(Verdict.DUE)),
        (seen(axon=ELSEWHERE), Standing(), Decision(Verdict.RATE_LIMITED, 1_030)),
        (seen(axon=ELSEWHERE, block=1_029), Standing(), Decision(Verdict.RATE_LIMITED, 1_030)),
        (seen(axon=ELSEWHERE, block=1_030), Standing(), Decision(Verdict.DUE)),
        (seen(axon=ELSEWHERE, serving_rate_limit_blocks=0), Standing(), Decision(Verdict.DUE)),
        (seen(), Standing(), Decision(Verdict.DUE)),
        (seen(), Standing(Attempt(HERE, 5_000, 5_064)), Decision(Verdict.DUE)),
    ],
)
def test_every_row_of_the_table(found: Seen | None, standing: Standing, decision: Decision) -> None:
    assert decide(HERE, found, standing, NOW_S) == decision


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("203.0.113.5:8091", Place("203.0.113.5", 8091)),
        ("203.0.113.5", Place("203.0.113.5", 18_100)),
        ("[2001:DB8:0::1]:8091", Place("2001:db8::1", 8091)),
        ("2001:db8::1", Place("2001:db8::1", 18_100)),
        ("[2001:db8::1]", Place("2001:db8::1", 18_100)),
        ("[::ffff:203.0.113.5]:1", Place("203.0.113.5", 1)),
    ],
)
def test_a_place_is_read_from_the_setting(text: str, place: Place) -> None:
    assert place_of(text, 18_100) == place


NO_PLACES = (
    *("", "miner.example:80", "1.2.3:4", "1.2.3.4:", "1.2.3.4:70000", "1.2.3.4:0", "[]:1", "fe80::1%lo", "0.0.0.0:1"),
    *("[::]:1", "224.0.0.1:1", "1.2.3.4:80:90", "[1.2.3.4", "[::1", "::1]", " 1.2.3.4:80", "http://1.2.3.4:80"),
)


@pytest.mark.parametrize("text", NO_PLACES)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        place_of(text, 1)


def test_places_are_compared_as_addresses() -> None:
    six = Place("2001:db8::1", 8091)
    assert is_at(axon(ip="2001:0db8:0:0::1"), six)
    assert not is_at(axon(ip="2001:db8::2"), six)
    assert not is_at(axon(ip="::ffff:203.0.113.5"), HERE)
    assert not is_at(axon(port=1), HERE)
    assert not is_at(axon(ip="no address"), HERE)
    assert not is_at(None, HERE)
    assert (six.text, HERE.text) == ("[2001:db8::1]:8091", "203.0.113.5:8091")


def test_a_metagraph_says_what_is_known_of_a_hotkey() -> None:
    there = metagraph(neuron(0, 7, axon=axon()))
    assert seen_in(there, key(7)) == Seen(1100, True, axon(), 0)
    assert seen_in(there, key(8)) == Seen(1100, False, None, 0)


def test_one_that_is_included_is_in_flight_until_its_era_is_over() -> None:
    standing = included(signed(about_to_send(Standing(failures=3), HERE, 1_000), b"\xab", 1_064), 1_001)
    assert standing == Standing(Attempt(HERE, 1_000, 1_064, "0xab", 1_001))
    assert decide(HERE, seen(block=1_003), standing, NOW_S).verdict is Verdict.IN_FLIGHT
    assert decide(HERE, seen(block=1_065), standing, NOW_S).verdict is Verdict.DUE


def test_what_certainly_does_not_come_is_forgotten_and_what_may_come_is_not() -> None:
    standing = about_to_send(Standing(), HERE, 1_000)
    assert refused(standing, "InvalidPort", NOW_S).attempt is None
    assert unsent(standing, "no answer", NOW_S, None).attempt is None
    assert never(standing, "gone").attempt is None
    assert unknown(standing, "no word").attempt == standing.attempt
    assert postponed(standing, "no answer", NOW_S, None).attempt == standing.attempt
    assert arrived(standing, axon(block=1_003)).attempt == Attempt(HERE, 1_000, 1_064, "", 1_003)
    assert arrived(included(standing, 1_002), axon(block=1_003)).attempt == included(standing, 1_002).attempt
    assert arrived(Standing(failures=3, why="refused", not_before_s=9.0), axon()) == Standing()
    assert signed(Standing(), b"", 1) == included(Standing(), 1) == Standing()


def test_what_fails_again_is_set_aside_for_longer_up_to_a_bound() -> None:
    standing, waits = Standing(), []
    for _ in range(9):
        standing = refused(standing, "InvalidPort", NOW_S)
        waits.append(standing.not_before_s - NOW_S)
    assert waits == [300, 600, 1_200, 2_400, 4_800, 9_600, REFUSED_MAX_S, REFUSED_MAX_S, REFUSED_MAX_S]
    assert (standing.failures, standing.why) == (9, "InvalidPort")
    assert unsent(Standing(), "", NOW_S, None).not_before_s == NOW_S + 12
    assert unsent(Standing(failures=5_000), "", NOW_S, None).not_before_s == NOW_S + UNSENT_MAX_S
    assert postponed(Standing(failures=9), "", NOW_S, 30.0).not_before_s == NOW_S + 30
    assert postponed(Standing(), "", NOW_S, 1e9).not_before_s == NOW_S + RETRY_AFTER_MAX_S


blocks = st.integers(0, 10_000)
axons = st.none() | st.builds(axon, ip=st.sampled_from(["203.0.113.5", "1.1.1.1"]), block=blocks)
seens = st.builds(
    Seen, block=blocks, registered=st.booleans(), axon=axons, serving_rate_limit_blocks=st.integers(0, 200)
)
births = st.integers(0, 10_000)
attempts = st.none() | births.map(lambda birth: Attempt(HERE, birth, birth + ERA_BLOCKS))
standings = st.builds(Standing, attempt=attempts, failures=st.integers(0, 50), not_before_s=st.floats(0, 2_000))


@given(seens, standings, st.floats(0, 2_000))
def test_nothing_is_sent_that_is_said_already_or_would_be_a_second_one_or_refused(
    found: Seen, standing: Standing, now_s: float
) -> None:
    if decide(HERE, found, standing, now_s).verdict is not Verdict.DUE:
        return
    assert found.registered
    assert not is_at(found.axon, HERE)
    assert standing.attempt is None or not may_come(standing.attempt, found)
    assert found.axon is None or found.block - found.axon.block >= found.serving_rate_limit_blocks
    assert now_s >= standing.not_before_s


@given(seens, standings, st.floats(0, 2_000))
def test_whatever_holds_it_up_ends_with_time_and_blocks(found: Seen, standing: Standing, now_s: float) -> None:
    later = msgspec.structs.replace(found, registered=True, block=found.block + 20_000)
    verdict = decide(HERE, later, standing, now_s + 20_000).verdict
    assert verdict is (Verdict.ANNOUNCED if is_at(found.axon, HERE) else Verdict.DUE)


@given(seens, standings)
def test_a_verdict_that_a_block_ends_ends_at_that_block_and_not_before(found: Seen, standing: Standing) -> None:
    # One that was signed for a chain before this one may seem to come once this one is as long: it never does.
    assume(standing.attempt is None or standing.attempt.birth - ERA_BLOCKS <= found.block)
    decision = decide(HERE, found, standing, 1e9)
    if decision.until_block is None:
        return
    assert decision.until_block > found.block
    before = msgspec.structs.replace(found, block=decision.until_block - 1)
    assert decide(HERE, before, standing, 1e9) == decision
    at = msgspec.structs.replace(found, block=decision.until_block)
    assert decide(HERE, at, standing, 1e9).verdict is not decision.verdict
