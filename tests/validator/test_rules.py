"""The rules of a validator: scoring as the original's, standings, groups, agreement, and when weights are due."""

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.chain.epochs import Epoch, current_epoch, epoch_at, epoch_of
from engram.chain.submit.weights import upscale
from engram.validator import agreement, due, peers, planting, round_rules, scoring, standing
from engram.validator.due import Due, Known, Membership, membership, membership_of, with_membership
from engram.validator.model import Answer, Kind, Look, Offers, Outcome, Question, Sent, SentState
from engram.validator.planting import Candidate, Habits, Signing
from engram.validator.scoring import Parts
from engram.validator.standing import Standing, Tally
from tests.validator.benches import NETUID, OWN, key, metagraph, neuron

pytestmark = pytest.mark.rules

SHARES = st.floats(0, 1)
VECTORS = json.loads((Path(__file__).parent.parent / "data" / "engram" / "vectors.json").read_text())


def test_the_score_is_the_original_s_to_the_last_digit() -> None:
    assert scoring.score(0.8, 250.0, 0.9) == VECTORS["score(.8,250ms,.9)"]


@pytest.mark.parametrize(
    ("latency_ms", "share"),
    [(None, 0.0), (0.0, 1.0), (100.0, 1.0), (100.1, 0.99975), (300.0, 0.5), (499.9, 0.00025), (500.0, 0.0), (9e9, 0.0)],
)
def test_latency_earns_all_below_100_ms_and_nothing_from_500_ms_on(latency_ms: float | None, share: float) -> None:
    assert scoring.latency_share(latency_ms) == pytest.approx(share)


def test_a_latency_that_is_no_number_earns_nothing() -> None:
    assert scoring.latency_share(math.nan) == 0.0


@pytest.mark.parametrize(
    ("returned", "truth", "expected"),
    [
        ([], ["a"], 0.0),
        (["a"], [], 0.0),
        (["a", "b"], ["b", "a"], 1.0),
        (["a"] * 10, ["a", "b"], 0.5),
        ([str(n) for n in range(20)], [str(n) for n in range(20)], 1.0),
        (["x"] * 10 + ["a"], ["a"], 0.0),
    ],
)
def test_recall_looks_at_the_first_ten_and_counts_each_record_once(
    returned: list[str], truth: list[str], expected: float
) -> None:
    assert scoring.recall(returned, truth) == expected


@given(st.dictionaries(st.integers(0, 255), st.floats(allow_nan=True, allow_infinity=True), max_size=20))
def test_weights_add_up_to_one_or_there_are_none(scores: Mapping[int, float]) -> None:
    weights = scoring.normalized(scores)
    assert not weights or math.isclose(sum(weights.values()), 1.0, abs_tol=1e-6)
    assert all(weight >= 0 and math.isfinite(weight) for weight in weights.values())


def normalize_max_weight(given: list[float], limit: float) -> list[float]:
    """bittensor/utils/weight_utils.py, without numpy."""
    total, values = sum(given), sorted(given)
    if len(given) * limit <= 1:
        return [1 / len(given)] * len(given)
    estimation = [value / total for value in values]
    if max(estimation) <= limit:
        return [value / total for value in given]
    cumsum = [sum(estimation[: index + 1]) for index in range(len(values))]
    rest = [(len(values) - index - 1) * each for index, each in enumerate(estimation)]
    places = zip(estimation, rest, cumsum, strict=True)
    count = sum(each / (more + so_far + 1e-7) < limit for each, more, so_far in places)
    cutoff = (limit * cumsum[count - 1] - 1e-7) / (1 - limit * (len(estimation) - count)) * total
    cut = [min(each, cutoff) for each in given]
    return [each / sum(cut) for each in cut]


POSITIVE = st.floats(1e-3, 1.0)


@given(st.lists(POSITIVE, min_size=1, max_size=30), st.floats(0.02, 1.0))
def test_weights_are_clipped_as_in_the_field(given: list[float], limit: float) -> None:
    clipped = scoring.clipped(dict(enumerate(given)), limit)
    assert list(clipped.values()) == pytest.approx(normalize_max_weight(given, limit), abs=1e-4)


@given(st.dictionaries(st.integers(1, 30), POSITIVE, min_size=1), st.integers(1_000, 65_535))
def test_clipped_weights_are_taken_by_the_chain_where_any_could_be(scores: dict[int, float], limit: int) -> None:
    graph = metagraph([neuron(uid, key(uid), None) for uid in range(31)], max_weights_limit=limit)
    if due.too_few(graph, scores):
        assert len(scores) * limit < 65_535
        return
    weights = due.weights(graph, scores)
    assert sum(weights.values()) == pytest.approx(1.0)
    scaled = upscale(weights, graph)
    assert limit == 65_535 or max(scaled.values) / sum(scaled.values) <= limit / 65_535
    ranked = sorted(scores, key=lambda uid: scores[uid])
    assert all(weights[one] <= weights[other] * (1 + 1e-9) for one, other in itertools.pairwise(ranked))


def test_nothing_is_clipped_where_the_subnet_has_no_limit_and_nothing_goes_to_who_has_none() -> None:
    graph = metagraph([neuron(uid, key(uid), None) for uid in range(5)])
    assert due.weights(graph, {1: 3.0, 2: 1.0, 3: 0.0}) == {1: 0.75, 2: 0.25}
    limited = metagraph([neuron(uid, key(uid), None) for uid in range(5)], max_weights_limit=32_768)
    assert due.weights(limited, {1: 3.0, 2: 1.0, 3: 0.0}) == pytest.approx({1: 0.5, 2: 0.5}, abs=1e-4)


@given(st.dictionaries(st.integers(0, 9), SHARES, min_size=1), st.sets(st.integers(0, 9), min_size=2, max_size=5))
def test_a_group_earns_together_what_one_of_it_would(scores: dict[int, float], group: set[int]) -> None:
    shared = scoring.shared(scores, [frozenset(group)])
    members = [uid for uid in group if uid in scores]
    assert {uid: shared[uid] for uid in scores if uid not in members} == {
        uid: scores[uid] for uid in scores if uid not in members
    }
    if members:
        assert sum(shared[uid] for uid in members) <= max(scores[uid] for uid in members) + 1e-9
        assert all(0 <= shared[uid] <= scores[uid] for uid in members)
        assert all(shared[uid] == 0 for uid in members if scores[uid] == 0)


class Model:
    """An independent account of a miner: every score and challenge, from which all else is computed anew."""

    def __init__(self) -> None:
        self.scores: list[float] = []
        self.since: list[tuple[int, int]] = []
        self.until = -1
        self.slashes = 0

    def after(self, score: float, challenges: int, proved: int, block: int) -> None:
        self.scores.append(score)
        self.since.append((challenges, proved))
        asked, held = sum(one for one, _ in self.since), sum(one for _, one in self.since)
        if block >= self.until and asked >= 5 and held / asked < 0.5:
            self.until, self.slashes, self.since = block + 7_200, self.slashes + 1, []
        elif asked > 60:
            self.since = [(asked // 2, held // 2)]

    def average(self, alpha: float) -> float:
        found = self.scores[0]
        for score in self.scores[1:]:
            found = found * (1 - alpha) + score * alpha
        return found


@given(st.lists(st.tuples(SHARES, SHARES, st.integers(0, 4), st.integers(0, 4), st.integers(1, 4_000)), min_size=1))
def test_a_standing_is_what_all_its_rounds_come_to(rounds: list[tuple[float, float, int, int, int]]) -> None:
    held, model, block = Standing(), Model(), 0
    for recall, rate, challenges, proved, passed in rounds:
        block += passed
        proved = min(challenges, proved)
        parts = Parts(recall, 100.0, rate)
        held = standing.after_round(held, parts, Tally(challenges, proved), block)
        model.after(parts.score, challenges, proved, block)
        assert held.ema == pytest.approx(model.average(0.1))
        assert held.reputation == pytest.approx(model.average(0.15))
        assert held.reliability == pytest.approx(model.average(0.15) * min(1.0, len(model.scores) / 50))
        assert held.slashes == model.slashes
        assert standing.is_slashed(held, block) is (block < model.until)
        assert standing.weight_of(held, block) == (0.0 if block < model.until else held.ema)


@given(st.integers(0, 5_000), st.integers(1, 4))
def test_a_miner_that_stops_proving_is_slashed_after_some_thirty_challenges_however_long_it_was_honest(
    honest_rounds: int, challenges: int
) -> None:
    held, failed = Standing(), 0
    for block in range(honest_rounds):
        held = standing.after_round(held, Parts(1.0, 50.0, 1.0), Tally(challenges, challenges), block)
    assert held.proof_rate == 1.0
    while not held.slashes:
        held = standing.after_round(held, Parts(0.0, None, 0.0), Tally(challenges, 0), honest_rounds + failed)
        failed += challenges
    assert failed <= 30 + 2 * challenges
    if honest_rounds * challenges > 60:
        assert failed > 30 - challenges, "an outage of an hour is no reason"


def test_a_score_that_is_no_number_is_taken_as_zero() -> None:
    held = standing.after_round(Standing(), Parts(math.nan, None, 0.0), Tally(0, 0), 1)
    assert held.ema == 0.0


def test_a_slash_is_not_repeated_for_the_challenges_that_led_to_it() -> None:
    held = standing.after_round(Standing(), Parts(0.0, None, 0.0), Tally(5, 0), 10)
    assert held.slashed_until_block == 7_210
    after = standing.after_round(held, Parts(1.0, 50.0, 1.0), Tally(4, 0), 7_300)
    assert after.slashes == 1
    assert after.proof_rate == 0.0


@given(st.dictionaries(st.integers(0, 20), SHARES), st.dictionaries(st.integers(0, 20), SHARES))
def test_distance_is_symmetric_and_between_none_and_two(one: dict[int, float], other: dict[int, float]) -> None:
    found = agreement.distance(one, other)
    assert found == pytest.approx(agreement.distance(other, one))
    assert -1e-9 <= found <= 2.0


def test_validators_agree_up_to_a_distance_of_fifteen_hundredths() -> None:
    assert agreement.agree({1: 1.0, 2: 1.0}, {1: 1.0, 2: 0.6})
    assert not agreement.agree({1: 1.0, 2: 1.0}, {1: 1.0, 2: 0.2})


def test_a_consensus_is_the_median_of_each_uid() -> None:
    assert agreement.consensus([{1: 0.1}, {1: 0.3, 2: 1.0}, {1: 0.9, 2: 0.5}]) == {1: 0.3, 2: 0.5}


# ------------------------------------------------------------------------------------------------------ miners


def test_a_validator_never_asks_itself_nor_an_address_that_is_not_public() -> None:
    found = peers.miners(
        metagraph(
            [
                neuron(0, OWN, "http://13.89.38.129:80"),
                neuron(1, key(1), "http://127.0.0.1:80"),
                neuron(2, key(2), "http://10.0.0.7:80"),
                neuron(3, key(3), "http://13.89.38.129:8091"),
                neuron(4, key(4), "http://2606:4700::1111:8091"),
                neuron(5, key(5), None),
                neuron(6, key(6), "http://169.254.169.254:80"),
            ]
        ),
        OWN.public_key,
    )
    assert {miner.uid: miner.url for miner in found} == {
        1: None,
        2: None,
        3: "http://13.89.38.129:8091",
        4: "http://[2606:4700::1111]:8091",
        5: None,
        6: None,
    }
    assert all(miner.reason for miner in found if miner.url is None)


def test_a_miner_on_the_blacklist_is_not_asked() -> None:
    graph = metagraph([neuron(1, key(1), "http://13.89.38.129:80")])
    (found,) = peers.miners(graph, OWN.public_key, blacklist={key(1).public_key: "sold our data"})
    assert (found.url, found.reason) == (None, "on the blacklist: sold our data")


# ------------------------------------------------------------------------------------------------ weights due


def known(**changed: object) -> Known:
    graph = metagraph([msgspec.structs.replace(neuron(0, OWN, None, permit=True), last_update_block=900)], 1_000)
    given: dict[str, object] = {
        "metagraph": graph,
        "age_s": 1.0,
        "hotkey": OWN.public_key,
        "scores": {1: 0.5},
        "rounds": 1,
        "epoch": epoch_of(1_000, NETUID, 10),
        "last_sent_block": None,
    }
    return Known(**given | changed)  # type: ignore[arg-type]


def of_graph(**changed: object) -> object:
    graph = known().metagraph
    assert graph is not None
    fields = {name: value for name, value in changed.items() if name in ("neurons", "block", "uid_by_hotkey")}
    rest = {name: value for name, value in changed.items() if name not in fields}
    parameters = msgspec.structs.replace(graph.parameters, **rest)
    return msgspec.structs.replace(graph, parameters=parameters, **fields)


def refused(block: int) -> Sent:
    return Sent(
        id=1,
        netuid=NETUID,
        epoch=1,
        block=block,
        round_id=1,
        weights={1: 1.0},
        state=SentState.REFUSED,
        reason="",
        at=1.0,
    )


THREE = (
    msgspec.structs.replace(neuron(0, OWN, None, permit=True), last_update_block=900),
    neuron(1, key(1), None),
    neuron(2, key(2), None),
)
UPDATED_NOW = (msgspec.structs.replace(neuron(0, OWN, None, permit=True), last_update_block=998),)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, Due.DUE),
        ({"metagraph": None}, Due.CHAIN_STALE),
        ({"age_s": 121.0}, Due.CHAIN_STALE),
        ({"hotkey": key(5).public_key}, Due.NOT_REGISTERED),
        ({"metagraph": of_graph(neurons=(neuron(0, OWN, None),))}, Due.NO_PERMIT),
        ({"metagraph": of_graph(weights_version=2)}, Due.OUTDATED),
        ({"rounds": 0}, Due.NO_ROUND),
        ({"scores": {}}, Due.NO_SCORES),
        ({"scores": {1: 0.0, 2: math.nan, 3: math.inf}}, Due.NO_SCORES),
        ({"metagraph": of_graph(neurons=THREE, min_allowed_weights=2)}, Due.TOO_FEW),
        ({"metagraph": of_graph(neurons=THREE, min_allowed_weights=2), "scores": {1: 0.5, 2: 0.0}}, Due.TOO_FEW),
        ({"metagraph": of_graph(max_weights_limit=32_768), "scores": {1: 0.5}}, Due.TOO_FEW),
        ({"metagraph": of_graph(max_weights_limit=0), "scores": {1: 0.5, 2: 0.5}}, Due.TOO_FEW),
        ({"metagraph": of_graph(max_weights_limit=32_768), "scores": {1: 0.5, 2: 0.1}}, Due.DUE),
        ({"last_sent_block": epoch_of(1_000, NETUID, 10).first_block}, Due.SET),
        ({"last_sent_block": epoch_of(1_000, NETUID, 10).first_block - 1}, Due.DUE),
        ({"refused": refused(991)}, Due.REFUSED),
        ({"refused": refused(990)}, Due.DUE),
        ({"metagraph": of_graph(neurons=UPDATED_NOW)}, Due.SET),
        ({"metagraph": of_graph(neurons=UPDATED_NOW, commit_reveal_weights_enabled=True)}, Due.SET),
        (
            {
                "metagraph": of_graph(neurons=UPDATED_NOW, commit_reveal_weights_enabled=True),
                "last_sent_block": epoch_of(1_000, NETUID, 10).first_block - 1,
            },
            Due.RATE_LIMITED,
        ),
        ({"unsettled": True}, Due.UNSETTLED),
        ({"metagraph": of_graph(weights_rate_limit_blocks=101)}, Due.RATE_LIMITED),
        ({"metagraph": of_graph(weights_rate_limit_blocks=100)}, Due.DUE),
    ],
)
def test_weights_are_due_only_when_nothing_speaks_against_it(changed: dict[str, object], expected: Due) -> None:
    assert due.due(known(**changed)) is expected


@given(st.integers(0, 10_000_000), st.integers(0, 1_000), st.integers(1, 1_000))
def test_every_block_is_in_its_epoch_and_the_next_epoch_begins_after_it(block: int, netuid: int, tempo: int) -> None:
    epoch = epoch_of(block, netuid, tempo)
    assert epoch.first_block <= block <= epoch.last_block
    assert epoch_of(epoch.last_block + 1, netuid, tempo) == Epoch(
        epoch.index + 1, epoch.last_block + 1, epoch.last_block + 1 + tempo
    )


@pytest.mark.parametrize(
    ("last", "first_block"),
    [(995, 995), (1_000, 1_000), (978, 978), (977, 990), (0, 990), (1_001, 990)],
    ids=["ran", "runs now", "late", "stalled", "never", "ahead"],
)
def test_an_epoch_begins_where_the_chain_ran_the_last_one_unless_it_has_stopped(last: int, first_block: int) -> None:
    graph = known().metagraph
    assert graph is not None
    graph = msgspec.structs.replace(graph, last_epoch_block=last)
    found = current_epoch(graph)
    assert found.first_block == first_block
    assert found.index == epoch_of(first_block, NETUID, 10).index
    assert epoch_at(graph, graph.block) == epoch_at(graph, found.first_block) == found
    former, following = epoch_at(graph, first_block - 1), epoch_at(graph, max(graph.block, found.last_block) + 1)
    assert (former.index, former.last_block) == (found.index - 1, first_block - 1)
    assert following.index > found.index
    assert following.first_block > found.last_block


def test_the_operator_is_warned_before_the_activity_cutoff_and_of_late_reveals() -> None:
    graph = of_graph(activity_cutoff_blocks=100)
    assert "activity_cutoff" in due.warnings(graph, OWN.public_key)[0]  # type: ignore[arg-type]
    late = of_graph(commit_reveal_weights_enabled=True, commit_reveal_period_tempos=3, immunity_period_blocks=29)
    assert "immune" in due.warnings(late, OWN.public_key)[0]  # type: ignore[arg-type]
    assert due.warnings(of_graph(), OWN.public_key) == []  # type: ignore[arg-type]


def test_a_uid_whose_hotkey_was_replaced_gets_nothing_and_one_that_moved_keeps_its_score() -> None:
    graph = metagraph([neuron(0, OWN, None), neuron(1, key(9), None), neuron(2, key(1), None)])
    scores = {key(1).public_key: 0.7, key(2).public_key: 0.9}
    uids = {key(1).public_key: 1, key(2).public_key: 0}
    assert due.realigned(scores, uids, graph) == ({2: 0.7}, [0, 1])


# --------------------------------------------------------------------------------------------------- planting


@given(st.integers(0, 2**32), st.integers(1, 40), st.lists(st.integers(1, 40), max_size=5))
def test_a_plan_keeps_to_its_bounds(seed: int, most: int, left: list[int]) -> None:
    plan = planting.plan(
        Random(seed),
        most=most,
        families=3,
        period_s=600.0,
        under_way=[Signing(each, 100.0) for each in left],
        habits=Habits(),
        keep_most=6,
    )
    assert max(1, most // 2) <= len(plan.records) <= most
    assert [record.after_s for record in plan.records] == sorted(record.after_s for record in plan.records)
    for record in plan.records:
        assert 0 <= record.after_s < 600.0
        assert 2 <= record.keep_rounds <= 6
        assert -len(left) <= record.signer < len(plan.signers)


@given(st.integers(0, 2**32))
def test_old_matters_are_asked_about_in_every_round(seed: int) -> None:
    candidates = [Candidate(str(age), 5, age) for age in range(8)]
    chosen = planting.to_ask(Random(seed), candidates, queries=4, least_held=5)
    assert any(int(each) >= 4 for each in chosen)
    assert planting.to_ask(Random(seed), candidates, queries=4, least_held=6) == []


def test_lengths_are_those_of_customers_once_enough_are_known() -> None:
    assert planting.length_sample(["x"] * 19) == ()
    honest = planting.length_sample(["x" * n for n in range(1, 200)])
    assert set(honest) <= set(range(1, 200))
    assert planting.common_lengths([[honest], [honest]]) == planting.LENGTHS
    found = planting.common_lengths([[honest], [honest], [honest], [()]])
    assert len(found) == planting.QUANTILES
    assert (min(found), max(found)) == (min(honest), max(honest))


@given(st.lists(st.integers(1, 10**5), min_size=20, max_size=300))
def test_no_operator_sets_the_lengths_that_records_are_planted_with(listed: list[int]) -> None:
    """However many miners it lists by: it can at most make them the shorter, or the longer, of the other operators'."""
    one, other = (planting.length_sample(["x" * n for n in range(*span)]) for span in ((20, 220), (60, 900, 4)))
    liar = planting.length_sample(["x" * n for n in listed])
    assert max(liar) <= planting.LONGEST
    without = [planting.common_lengths([[each]] * 3) for each in (one, other)]
    found = planting.common_lengths([[one], [other], [liar] * 50])
    for low, length, high in zip(without[0], found, without[1], strict=True):
        assert low <= length <= high


def query(text: str, planted: int) -> Question:
    return Question(
        hotkey=key(1).public_key,
        kind=Kind.QUERY,
        family_id=1,
        text=text,
        vector=b"",
        truth=("cid",),
        planted=planted,
        own_key=True,
    )


@pytest.mark.parametrize(
    ("text", "planted", "kept", "worth"),
    [
        ("b", 5, ["a"], True),
        ("b", 10, [], True),
        ("b", 4, ["a"], False),
        ("a", 5, ["a"], False),
        ("c", 5, ["a", "b"], False),
    ],
)
def test_a_query_is_asked_when_enough_is_planted_it_is_new_and_there_is_room(
    text: str, planted: int, kept: list[str], worth: bool
) -> None:
    there = [query(each, 9) for each in kept]
    assert round_rules.is_worth_asking(query(text, planted), there, most=2, least_planted=5) is worth


# ------------------------------------------------------------------------------------------------ void rounds


def brought(*outcomes: Outcome) -> list[tuple[Kind, Answer]]:
    return [(Kind.QUERY, Answer(question_id=number, outcome=outcome)) for number, outcome in enumerate(outcomes)]


REFUSES, TAKES, STUCK = Offers(2, 0), Offers(0, 2), Offers(0, 0)


@pytest.mark.parametrize(
    ("answers", "offers", "void"),
    [
        ([brought(Outcome.UNREACHABLE), brought(Outcome.REFUSED), brought(Outcome.LATE)], [], True),
        ([brought(Outcome.UNREACHABLE)] * 2, [], False),
        ([brought(Outcome.UNREACHABLE)] * 2, [REFUSES], True),
        ([], [REFUSES] * 3, True),
        ([], [REFUSES] * 2, False),
        ([brought(Outcome.UNREACHABLE)] * 5 + [brought(Outcome.LATE, Outcome.ANSWERED)], [], False),
        ([brought(Outcome.UNREACHABLE)] * 5 + [brought(Outcome.MALFORMED)], [], True),
        ([brought(Outcome.MALFORMED)] * 5, [], False),
        ([brought(Outcome.UNREACHABLE)] * 5 + [brought(Outcome.LEGACY)], [REFUSES] * 3, False),
        ([[], [], []], [], False),
        ([], [STUCK] * 3, True),
        ([], [STUCK] * 2, False),
        ([brought(Outcome.UNREACHABLE)] * 2, [STUCK], True),
        ([], [*[STUCK] * 3, TAKES], False),
        ([], [*[REFUSES] * 3, TAKES], True),
        ([], [TAKES] * 5, False),
    ],
)
def test_a_round_is_void_when_none_of_several_miners_gave_any_answer(
    answers: list[list[tuple[Kind, Answer]]], offers: list[Offers], void: bool
) -> None:
    by_hotkey = {key(number).public_key: found for number, found in enumerate(answers, 1)}
    offered = {key(100 + number).public_key: each for number, each in enumerate(offers)}
    operators = {hotkey: hotkey for hotkey in (*by_hotkey, *offered)}
    assert bool(round_rules.why_void(by_hotkey, offered, operators)) is void


M = Membership


@pytest.mark.parametrize(
    ("verdict", "detail", "former", "found", "shown"),
    [
        (Due.NO_PERMIT, "", None, M.NOT_YET_PERMITTED, "not yet permitted"),
        (Due.NO_PERMIT, "", M.DEREGISTERED, M.NOT_YET_PERMITTED, "not yet permitted"),
        (Due.NO_PERMIT, "", M.PERMITTED, M.PERMIT_LOST, "permit lost"),
        (Due.NO_PERMIT, "", M.PERMIT_LOST, M.PERMIT_LOST, "permit lost"),
        (Due.NOT_REGISTERED, "", None, M.NEVER_REGISTERED, "never registered"),
        (Due.NOT_REGISTERED, "", M.NEVER_REGISTERED, M.NEVER_REGISTERED, "never registered"),
        (Due.NOT_REGISTERED, "", M.NOT_YET_PERMITTED, M.DEREGISTERED, "deregistered"),
        (Due.NOT_REGISTERED, "", M.DEREGISTERED, M.DEREGISTERED, "deregistered"),
        (Due.CHAIN_STALE, "", None, None, ""),
        (Due.CHAIN_STALE, "", M.PERMIT_LOST, M.PERMIT_LOST, "last known: permit lost"),
        (Due.CHAIN_STALE, "no answer", M.PERMITTED, M.PERMITTED, "no answer; last known: permitted"),
        (Due.REFUSED, "too soon", M.PERMIT_LOST, M.PERMITTED, "too soon"),
    ],
)
def test_a_look_tells_what_was_lost_from_what_never_was(
    verdict: Due, detail: str, former: Membership | None, found: Membership | None, shown: str
) -> None:
    assert membership(verdict, former) is found
    assert with_membership(verdict, detail, found) == shown
    look = Look(netuid=1, verdict=str(verdict), detail=shown, warnings=[], block=None, uid=None, at=0.0)
    assert membership_of(look) is found


def test_a_look_from_before_memberships_were_noted_says_nothing_of_it() -> None:
    assert membership_of(None) is None
    look = Look(netuid=1, verdict="no_permit", detail="", warnings=[], block=None, uid=None, at=0.0)
    assert membership_of(look) is None
