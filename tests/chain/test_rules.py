from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.chain.model import (
    Axon,
    AxonMoved,
    EndpointHealth,
    FinalizedBlock,
    HeadWatch,
    PermitLost,
    Registered,
    Removed,
    Replaced,
)
from engram.chain.read.endpoint_health import (
    BACKOFF_MAX_S,
    JITTER,
    RETRY_AFTER_MAX_S,
    after_busy,
    after_failure,
    after_hang,
    after_refused_head,
    after_success,
    choose,
    next_poll_s,
    witnesses,
)
from engram.chain.read.head_opinions import Opinion, is_live, opinion_of
from engram.chain.sync.rules import HeadVerdict, Support, changes, judge_head, may_act, support_of
from tests.chain.samples import key, metagraph, neuron

OURS = FinalizedBlock(100, b"a" * 32)
WATCH = HeadWatch(OURS, advanced_at_s=0.0)
HERE = Axon("13.89.38.129", 9999, 1, 4, 5)
THERE = Axon("13.89.38.130", 9999, 1, 4, 6)


@pytest.mark.parametrize(
    ("watch", "seen", "ours_on_its_chain", "now_s", "verdict"),
    [
        (None, FinalizedBlock(1, b"x" * 32), None, 0.0, HeadVerdict.ADVANCED),
        (WATCH, FinalizedBlock(101, b"b" * 32), OURS.hash, 999.0, HeadVerdict.ADVANCED),
        (WATCH, FinalizedBlock(101, b"b" * 32), b"z" * 32, 0.0, HeadVerdict.FORKED),
        (WATCH, FinalizedBlock(101, b"b" * 32), None, 60.0, HeadVerdict.FORKED),
        (WATCH, FinalizedBlock(101, b"b" * 32), b"z" * 32, 60.1, HeadVerdict.OVERTAKEN),
        (WATCH, FinalizedBlock(101, b"b" * 32), None, 60.1, HeadVerdict.OVERTAKEN),
        (WATCH, FinalizedBlock(100, b"b" * 32), None, 0.0, HeadVerdict.FORKED),
        (WATCH, FinalizedBlock(100, b"b" * 32), None, 999.0, HeadVerdict.FORKED),
        (WATCH, OURS, OURS.hash, 60.0, HeadVerdict.SAME),
        (WATCH, OURS, OURS.hash, 60.1, HeadVerdict.STALLED),
        (WATCH, FinalizedBlock(99, b"c" * 32), None, 60.0, HeadVerdict.BEHIND),
        (WATCH, FinalizedBlock(99, b"c" * 32), None, 60.1, HeadVerdict.STALLED),
    ],
)
def test_a_head_is_judged_by_the_table(
    watch: HeadWatch | None, seen: FinalizedBlock, ours_on_its_chain: bytes | None, now_s: float, verdict: HeadVerdict
) -> None:
    assert judge_head(watch, seen, ours_on_its_chain, now_s, stall_after_s=60.0) is verdict


@pytest.mark.parametrize(
    ("seen", "ours_on_its_chain", "still_s", "verdict"),
    [
        (FinalizedBlock(99, b"c" * 32), None, 600.0, HeadVerdict.STALLED),
        (FinalizedBlock(99, b"c" * 32), None, 600.1, HeadVerdict.RESTARTED),
        (FinalizedBlock(1, b"c" * 32), None, 600.1, HeadVerdict.RESTARTED),
        (FinalizedBlock(100, b"c" * 32), None, 600.1, HeadVerdict.RESTARTED),
        (FinalizedBlock(101, b"c" * 32), None, 600.1, HeadVerdict.RESTARTED),
        (FinalizedBlock(101, b"c" * 32), b"z" * 32, 600.0, HeadVerdict.OVERTAKEN),
        (FinalizedBlock(101, b"c" * 32), b"z" * 32, 600.1, HeadVerdict.RESTARTED),
        (FinalizedBlock(101, b"c" * 32), OURS.hash, 600.1, HeadVerdict.ADVANCED),
        (OURS, None, 600.1, HeadVerdict.STALLED),
    ],
)
def test_what_is_not_of_our_chain_is_another_start_after_the_time_that_is_set(
    seen: FinalizedBlock, ours_on_its_chain: bytes | None, still_s: float, verdict: HeadVerdict
) -> None:
    watch = HeadWatch(OURS, 1_000.0)
    now_s = 1_000.0 + still_s
    assert judge_head(watch, seen, ours_on_its_chain, now_s, stall_after_s=60.0, reset_after_s=600.0) is verdict
    never = judge_head(watch, seen, ours_on_its_chain, now_s, stall_after_s=60.0)
    assert never is not HeadVerdict.RESTARTED


@pytest.mark.parametrize(
    ("its_hash", "its_finalized", "opinion"),
    [
        (OURS.hash, 100, Opinion.SAME),
        (OURS.hash, 99, Opinion.SAME),
        (b"z" * 32, 100, Opinion.OTHER),
        (b"z" * 32, 101, Opinion.OTHER),
        (b"z" * 32, 99, Opinion.NONE),
        (None, 99, Opinion.NONE),
        (None, 101, Opinion.NONE),
    ],
)
def test_only_a_finalized_block_contradicts_a_head(
    its_hash: bytes | None, its_finalized: int, opinion: Opinion
) -> None:
    assert opinion_of(OURS, its_hash, its_finalized) is opinion


def test_one_endpoint_that_has_a_head_too_outweighs_those_that_have_another() -> None:
    assert support_of([]) is Support.ALONE
    assert support_of([Opinion.NONE, Opinion.NONE]) is Support.ALONE
    assert support_of([Opinion.NONE, Opinion.NOT_YET]) is Support.AWAITED
    assert support_of([Opinion.NOT_YET, Opinion.OTHER]) is Support.CONTRADICTED
    assert support_of([Opinion.NOT_YET, Opinion.SAME]) is Support.CONFIRMED
    assert support_of([Opinion.OTHER, Opinion.OTHER, Opinion.SAME]) is Support.CONFIRMED


@pytest.mark.parametrize(("made_ms", "live"), [(None, False), (819_999, False), (820_000, True), (2_000_000, True)])
def test_an_endpoint_follows_the_chain_while_its_finalized_block_is_of_the_last_minutes(
    made_ms: int | None, live: bool
) -> None:
    assert is_live(made_ms, now_s=1_000.0) is live


def test_one_that_hung_is_not_asked_for_ten_minutes() -> None:
    hung = after_hang(EndpointHealth(failures=1), "no answer", 50.0)
    assert hung == EndpointHealth(2, 650.0, "no answer", 650.0)


def test_an_endpoint_that_was_passed_over_is_not_chosen_again() -> None:
    healths = [EndpointHealth(), EndpointHealth()]
    assert [choose(healths, 0.0), choose(healths, 0.0, {0}), choose(healths, 0.0, {0, 1})] == [0, 1, None]


@pytest.mark.parametrize("heads_differ", [False, True])
@pytest.mark.parametrize("support", list(Support))
@pytest.mark.parametrize("verdict", list(HeadVerdict))
def test_a_new_head_is_acted_on_by_the_table(verdict: HeadVerdict, support: Support, heads_differ: bool) -> None:
    acted_on = {
        (HeadVerdict.ADVANCED, Support.CONFIRMED, False),
        (HeadVerdict.ADVANCED, Support.CONFIRMED, True),
        (HeadVerdict.ADVANCED, Support.ALONE, False),
        (HeadVerdict.OVERTAKEN, Support.CONFIRMED, False),
        (HeadVerdict.OVERTAKEN, Support.CONFIRMED, True),
        (HeadVerdict.RESTARTED, Support.CONFIRMED, False),
        (HeadVerdict.RESTARTED, Support.CONFIRMED, True),
    }
    assert may_act(verdict, support, heads_differ) is ((verdict, support, heads_differ) in acted_on)
    restarted_alone = (verdict, support) == (HeadVerdict.RESTARTED, Support.ALONE)
    only = may_act(verdict, support, heads_differ, only_endpoint=True)
    assert only is (restarted_alone or (verdict, support, heads_differ) in acted_on)


@given(failures=st.integers(0, 10_000), silent_until_s=st.floats(0, 1e6), seed=st.integers())
def test_an_endpoint_whose_head_was_refused_may_still_be_asked_about_others(
    failures: int, silent_until_s: float, seed: int
) -> None:
    before = EndpointHealth(failures, silent_until_s=silent_until_s)
    refused = after_refused_head(before, "fork", 50.0, Random(seed))
    failed = after_failure(before, "fork", 50.0, Random(seed))
    assert (refused.failures, refused.not_before_s) == (failed.failures, failed.not_before_s)
    assert refused.silent_until_s == silent_until_s
    assert failed.silent_until_s == failed.not_before_s


def test_witnesses_are_those_that_may_be_asked_with_the_refused_ones_last() -> None:
    refused = after_refused_head(EndpointHealth(), "fork", 0.0, Random(1))
    busy = after_busy(EndpointHealth(), "", 60.0, 0.0, Random(1))
    healths = [refused, EndpointHealth(), busy, EndpointHealth()]
    assert witnesses(healths, 1, 1.0) == [3, 0]
    assert witnesses(healths, 0, 1.0) == [1, 3]
    assert witnesses(healths, 1, 100.0) == [0, 2, 3]
    assert witnesses([EndpointHealth()], 0, 0.0) == []


@given(failures=st.integers(0, 10_000), seed=st.integers())
def test_a_failing_endpoint_is_set_aside_for_a_bounded_time(failures: int, seed: int) -> None:
    health = after_failure(EndpointHealth(failures=failures), "gone", 50.0, Random(seed))
    assert health.failures == failures + 1
    assert health.last_error == "gone"
    assert 50.0 + 2.0 * (1 - JITTER) <= health.not_before_s <= 50.0 + BACKOFF_MAX_S * (1 + JITTER)


@given(asked_s=st.floats(0, 1e9), seed=st.integers())
def test_what_an_endpoint_asks_for_is_never_shortened_but_bounded(asked_s: float, seed: int) -> None:
    health = after_busy(EndpointHealth(), "slow down", asked_s, 0.0, Random(seed))
    assert min(asked_s, RETRY_AFTER_MAX_S) <= health.not_before_s <= RETRY_AFTER_MAX_S * (1 + JITTER)
    assert health.not_before_s >= 1.0


def test_a_busy_endpoint_that_does_not_say_for_how_long_waits_longer_each_time() -> None:
    first = after_busy(EndpointHealth(), "", None, 0.0, Random(1))
    third = after_busy(EndpointHealth(failures=2), "", None, 0.0, Random(1))
    assert 12.0 <= first.not_before_s <= 18.0
    assert 48.0 <= third.not_before_s <= 72.0


def test_the_first_endpoint_in_order_that_is_not_set_aside_is_asked() -> None:
    aside = EndpointHealth(failures=1, not_before_s=10.0)
    assert choose([aside, after_success(), after_success()], 5.0) == 1
    assert choose([aside, aside], 5.0) is None
    assert choose([aside, after_success()], 10.0) == 0


def test_after_a_failure_the_next_poll_comes_when_an_endpoint_may_be_asked_again() -> None:
    soon, later = EndpointHealth(1, 103.0), EndpointHealth(1, 140.0)
    assert next_poll_s([soon, later], 12.0, 100.0, failed=False) == 12.0
    assert next_poll_s([soon, later], 12.0, 100.0, failed=True) == 3.0
    assert next_poll_s([later], 12.0, 100.0, failed=True) == 12.0
    assert next_poll_s([EndpointHealth()], 12.0, 100.0, failed=True) == 1.0


def test_changes_between_two_metagraphs_are_told_by_uid() -> None:
    old = metagraph(neuron(0, 10, permit=True), neuron(1, 11, axon=HERE), neuron(2, 12), neuron(3, 13), neuron(4, 14))
    new = metagraph(neuron(0, 10), neuron(1, 11, axon=THERE), neuron(2, 99, permit=True), neuron(3, 13), block=1101)
    assert changes(old, new) == (
        PermitLost(450, 1101, 0, key(10)),
        AxonMoved(450, 1101, 1, key(11), THERE),
        Replaced(450, 1101, 2, key(12), key(99)),
        Removed(450, 1101, 4, key(14)),
    )
    assert changes(new, old)[-1] == Registered(450, 1100, 4, key(14))


def test_a_replaced_uid_is_one_event_whatever_else_differs() -> None:
    old = metagraph(neuron(0, 10, permit=True, axon=HERE))
    new = metagraph(neuron(0, 11, axon=THERE))
    assert changes(old, new) == (Replaced(450, 1100, 0, key(10), key(11)),)


def test_an_axon_announced_again_at_the_same_place_has_not_moved() -> None:
    again = Axon(HERE.ip, HERE.port, 2, 4, 90)
    assert changes(metagraph(neuron(0, 1, axon=HERE)), metagraph(neuron(0, 1, axon=again))) == ()
    gone = metagraph(neuron(0, 1))
    assert changes(metagraph(neuron(0, 1, axon=HERE)), gone) == (AxonMoved(450, 1100, 0, key(1), None),)


@given(st.lists(st.integers(0, 50), unique=True, max_size=20), st.lists(st.integers(0, 50), unique=True, max_size=20))
def test_each_uid_changes_hands_in_at_most_one_event(before: list[int], after: list[int]) -> None:
    old = metagraph(*[neuron(uid, hotkey) for uid, hotkey in enumerate(before)])
    new = metagraph(*[neuron(uid, hotkey) for uid, hotkey in enumerate(after)])
    found = changes(old, new)
    assert len({change.uid for change in found}) == len(found)
    holders = {one.uid: one.hotkey for one in old.neurons}
    for change in found:
        match change:
            case Removed():
                del holders[change.uid]
            case Replaced() | Registered():
                holders[change.uid] = change.hotkey
            case _:
                raise AssertionError(change)
    assert holders == {one.uid: one.hotkey for one in new.neurons}
