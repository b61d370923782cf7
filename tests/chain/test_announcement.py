"""Whether a node announces itself now: the table of announce_rules.py, row by row, and what holds for all of them."""

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
    AnnounceDecision,
    AnnouncementState,
    AnnounceVerdict,
    Attempt,
    HotkeyOnChain,
    ServingAddress,
    about_to_send,
    arrived,
    decide,
    hotkey_on_chain,
    included,
    is_at,
    may_come,
    never,
    postponed,
    refused,
    serving_address,
    signed,
    unknown,
    unsent,
)
from tests.chain.samples import key, metagraph, neuron

pytestmark = pytest.mark.rules

HERE = ServingAddress("203.0.113.5", 8091)
NOW_S = 1_000.0


def axon(ip: str = "203.0.113.5", port: int = 8091, block: int = 900) -> Axon:
    return Axon(ip=ip, port=port, version=1, protocol=4, block=block)


def seen(**told: Any) -> HotkeyOnChain:
    fields: dict[str, Any] = {"block": 1_000, "registered": True, "axon": None, "serving_rate_limit_blocks": 50}
    return HotkeyOnChain(**{**fields, **told})


SENT = AnnouncementState(Attempt(HERE, 990, 1_054, "0xab"))
RATE_LIMITED, IN_FLIGHT = (
    AnnounceDecision(AnnounceVerdict.RATE_LIMITED, 1_045),
    AnnounceDecision(AnnounceVerdict.IN_FLIGHT, 1_055),
)
ELSEWHERE = axon(port=1, block=980)


@pytest.mark.parametrize(
    ("found", "state", "decision"),
    [
        (None, AnnouncementState(), AnnounceDecision(AnnounceVerdict.UNREAD)),
        (seen(axon=axon()), AnnouncementState(), AnnounceDecision(AnnounceVerdict.ANNOUNCED)),
        (seen(axon=axon(block=999)), SENT, AnnounceDecision(AnnounceVerdict.ANNOUNCED)),
        (seen(), SENT, AnnounceDecision(AnnounceVerdict.IN_FLIGHT, 1_055)),
        (seen(block=1_054), SENT, AnnounceDecision(AnnounceVerdict.IN_FLIGHT, 1_055)),
        (seen(block=1_055), SENT, AnnounceDecision(AnnounceVerdict.DUE)),
        (
            seen(axon=axon(port=1, block=995)),
            AnnouncementState(Attempt(ServingAddress(HERE.ip, 1), 990, 1_054)),
            RATE_LIMITED,
        ),
        (
            seen(axon=axon(port=1, block=989)),
            AnnouncementState(Attempt(ServingAddress(HERE.ip, 1), 990, 1_054)),
            IN_FLIGHT,
        ),
        (seen(registered=False), SENT, AnnounceDecision(AnnounceVerdict.IN_FLIGHT, 1_055)),
        (seen(registered=False), AnnouncementState(), AnnounceDecision(AnnounceVerdict.UNREGISTERED)),
        (seen(), AnnouncementState(not_before_s=NOW_S + 1), AnnounceDecision(AnnounceVerdict.SET_ASIDE)),
        (seen(), AnnouncementState(not_before_s=NOW_S), AnnounceDecision(AnnounceVerdict.DUE)),
        (seen(axon=ELSEWHERE), AnnouncementState(), AnnounceDecision(AnnounceVerdict.RATE_LIMITED, 1_030)),
        (seen(axon=ELSEWHERE, block=1_029), AnnouncementState(), AnnounceDecision(AnnounceVerdict.RATE_LIMITED, 1_030)),
        (seen(axon=ELSEWHERE, block=1_030), AnnouncementState(), AnnounceDecision(AnnounceVerdict.DUE)),
        (seen(axon=ELSEWHERE, serving_rate_limit_blocks=0), AnnouncementState(), AnnounceDecision(AnnounceVerdict.DUE)),
        (seen(), AnnouncementState(), AnnounceDecision(AnnounceVerdict.DUE)),
        (seen(), AnnouncementState(Attempt(HERE, 5_000, 5_064)), AnnounceDecision(AnnounceVerdict.DUE)),
    ],
)
def test_every_row_of_the_table(
    found: HotkeyOnChain | None, state: AnnouncementState, decision: AnnounceDecision
) -> None:
    assert decide(HERE, found, state, NOW_S) == decision


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("203.0.113.5:8091", ServingAddress("203.0.113.5", 8091)),
        ("203.0.113.5", ServingAddress("203.0.113.5", 18_100)),
        ("[2001:DB8:0::1]:8091", ServingAddress("2001:db8::1", 8091)),
        ("2001:db8::1", ServingAddress("2001:db8::1", 18_100)),
        ("[2001:db8::1]", ServingAddress("2001:db8::1", 18_100)),
        ("[::ffff:203.0.113.5]:1", ServingAddress("203.0.113.5", 1)),
    ],
)
def test_a_place_is_read_from_the_setting(text: str, place: ServingAddress) -> None:
    assert serving_address(text, 18_100) == place


NO_PLACES = (
    *("", "miner.example:80", "1.2.3:4", "1.2.3.4:", "1.2.3.4:70000", "1.2.3.4:0", "[]:1", "fe80::1%lo", "0.0.0.0:1"),
    *("[::]:1", "224.0.0.1:1", "1.2.3.4:80:90", "[1.2.3.4", "[::1", "::1]", " 1.2.3.4:80", "http://1.2.3.4:80"),
)


@pytest.mark.parametrize("text", NO_PLACES)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        serving_address(text, 1)


def test_places_are_compared_as_addresses() -> None:
    six = ServingAddress("2001:db8::1", 8091)
    assert is_at(axon(ip="2001:0db8:0:0::1"), six)
    assert not is_at(axon(ip="2001:db8::2"), six)
    assert not is_at(axon(ip="::ffff:203.0.113.5"), HERE)
    assert not is_at(axon(port=1), HERE)
    assert not is_at(axon(ip="no address"), HERE)
    assert not is_at(None, HERE)
    assert (six.text, HERE.text) == ("[2001:db8::1]:8091", "203.0.113.5:8091")


def test_a_metagraph_says_what_is_known_of_a_hotkey() -> None:
    there = metagraph(neuron(0, 7, axon=axon()))
    assert hotkey_on_chain(there, key(7)) == HotkeyOnChain(1100, True, axon(), 0)
    assert hotkey_on_chain(there, key(8)) == HotkeyOnChain(1100, False, None, 0)


def test_one_that_is_included_is_in_flight_until_its_era_is_over() -> None:
    state = included(signed(about_to_send(AnnouncementState(failures=3), HERE, 1_000), b"\xab", 1_064), 1_001)
    assert state == AnnouncementState(Attempt(HERE, 1_000, 1_064, "0xab", 1_001))
    assert decide(HERE, seen(block=1_003), state, NOW_S).verdict is AnnounceVerdict.IN_FLIGHT
    assert decide(HERE, seen(block=1_065), state, NOW_S).verdict is AnnounceVerdict.DUE


def test_what_certainly_does_not_come_is_forgotten_and_what_may_come_is_not() -> None:
    state = about_to_send(AnnouncementState(), HERE, 1_000)
    assert refused(state, "InvalidPort", NOW_S).attempt is None
    assert unsent(state, "no answer", NOW_S, None).attempt is None
    assert never(state, "gone").attempt is None
    assert unknown(state, "no word").attempt == state.attempt
    assert postponed(state, "no answer", NOW_S, None).attempt == state.attempt
    assert arrived(state, axon(block=1_003)).attempt == Attempt(HERE, 1_000, 1_064, "", 1_003)
    assert arrived(included(state, 1_002), axon(block=1_003)).attempt == included(state, 1_002).attempt
    assert arrived(AnnouncementState(failures=3, why="refused", not_before_s=9.0), axon()) == AnnouncementState()
    assert signed(AnnouncementState(), b"", 1) == included(AnnouncementState(), 1) == AnnouncementState()


def test_what_fails_again_is_set_aside_for_longer_up_to_a_bound() -> None:
    state, waits = AnnouncementState(), []
    for _ in range(9):
        state = refused(state, "InvalidPort", NOW_S)
        waits.append(state.not_before_s - NOW_S)
    assert waits == [300, 600, 1_200, 2_400, 4_800, 9_600, REFUSED_MAX_S, REFUSED_MAX_S, REFUSED_MAX_S]
    assert (state.failures, state.why) == (9, "InvalidPort")
    assert unsent(AnnouncementState(), "", NOW_S, None).not_before_s == NOW_S + 12
    assert unsent(AnnouncementState(failures=5_000), "", NOW_S, None).not_before_s == NOW_S + UNSENT_MAX_S
    assert postponed(AnnouncementState(failures=9), "", NOW_S, 30.0).not_before_s == NOW_S + 30
    assert postponed(AnnouncementState(), "", NOW_S, 1e9).not_before_s == NOW_S + RETRY_AFTER_MAX_S


blocks = st.integers(0, 10_000)
axons = st.none() | st.builds(axon, ip=st.sampled_from(["203.0.113.5", "1.1.1.1"]), block=blocks)
seens = st.builds(
    HotkeyOnChain, block=blocks, registered=st.booleans(), axon=axons, serving_rate_limit_blocks=st.integers(0, 200)
)
births = st.integers(0, 10_000)
attempts = st.none() | births.map(lambda birth: Attempt(HERE, birth, birth + ERA_BLOCKS))
standings = st.builds(
    AnnouncementState, attempt=attempts, failures=st.integers(0, 50), not_before_s=st.floats(0, 2_000)
)


@given(seens, standings, st.floats(0, 2_000))
def test_nothing_is_sent_that_is_said_already_or_would_be_a_second_one_or_refused(
    found: HotkeyOnChain, state: AnnouncementState, now_s: float
) -> None:
    if decide(HERE, found, state, now_s).verdict is not AnnounceVerdict.DUE:
        return
    assert found.registered
    assert not is_at(found.axon, HERE)
    assert state.attempt is None or not may_come(state.attempt, found)
    assert found.axon is None or found.block - found.axon.block >= found.serving_rate_limit_blocks
    assert now_s >= state.not_before_s


@given(seens, standings, st.floats(0, 2_000))
def test_whatever_holds_it_up_ends_with_time_and_blocks(
    found: HotkeyOnChain, state: AnnouncementState, now_s: float
) -> None:
    later = msgspec.structs.replace(found, registered=True, block=found.block + 20_000)
    verdict = decide(HERE, later, state, now_s + 20_000).verdict
    assert verdict is (AnnounceVerdict.ANNOUNCED if is_at(found.axon, HERE) else AnnounceVerdict.DUE)


@given(seens, standings)
def test_a_verdict_that_a_block_ends_ends_at_that_block_and_not_before(
    found: HotkeyOnChain, state: AnnouncementState
) -> None:
    # One that was signed for a chain before this one may seem to come once this one is as long: it never does.
    assume(state.attempt is None or state.attempt.birth - ERA_BLOCKS <= found.block)
    decision = decide(HERE, found, state, 1e9)
    if decision.until_block is None:
        return
    assert decision.until_block > found.block
    before = msgspec.structs.replace(found, block=decision.until_block - 1)
    assert decide(HERE, before, state, 1e9) == decision
    at = msgspec.structs.replace(found, block=decision.until_block)
    assert decide(HERE, at, state, 1e9).verdict is not decision.verdict
