"""When the validator's own clock is wrong no miner pays for it, and no miner gets away by saying that it is."""

from typing import Any

import pytest
import structlog
from trio.testing import MockClock

from engram.ledger import open_inline
from engram.validator.model import Answer, Kind, Offers, Outcome, RoundState
from engram.validator.records import standings as miner_records
from engram.validator.round_rules import VOID_MOST, counted, why_void
from engram.validator.standing import Standing
from tests.fakes.responder import Answer as HttpAnswer
from tests.fakes.responder import Asked
from tests.validator.benches import Bench, key, over
from tests.validator.networks import Network
from tests.validator.toy_miners import Keeps

ORIGINALS = "Nonce 1 is outside the ±30s replay window. Check that your system clock is synchronised."
OURS = "The signature does not hold: the request's timestamp is 40.000 s behind the server's clock."


class Checks(Keeps):
    """Refuses what it takes to be signed at another time, as `refusing` says: endpoints."""

    refusing: frozenset[str] = frozenset()
    text = OURS

    async def answer(self, asked: Asked) -> HttpAnswer | None:
        if asked.target.strip("/") in self.refusing:
            return 401, {}, f'{{"error": "{self.text}"}}'.encode()
        return await super().answer(asked)


class ChecksChallenges(Checks):
    """A clock that is out by less than the window of signatures fails challenges alone."""

    async def answer(self, asked: Asked) -> HttpAnswer | None:
        if asked.target == "/ChallengeSynapse" and self.refusing:
            return 400, {}, b'{"error": "The challenge has expired.", "code": "expired"}'
        return await Keeps.answer(self, asked)


ALL = frozenset({"IngestSynapse", "QuerySynapse", "ChallengeSynapse", "list"})


async def standing_of(bench: Bench, number: int) -> Standing:
    known = await bench.ledger.read(lambda c: miner_records.known(c, key(number).public_key))
    assert known is not None
    return known.standing


@pytest.mark.parametrize(("kind", "text"), [(Checks, OURS), (Checks, ORIGINALS), (ChecksChallenges, "")])
async def test_a_round_in_which_most_miners_refuse_our_time_is_void_whatever_another_answers(
    kind: type[Checks], text: str
) -> None:
    checking: list[Checks] = [kind(key(number), text=text) for number in (1, 2, 3)]
    async with over([*checking, Keeps(key(4))]) as bench:
        await bench.hold()
        await bench.plant()
        for miner in checking:
            miner.refusing = ALL
        with structlog.testing.capture_logs() as logs:
            assert (await bench.rounds.hold(bench.metagraph())).state is RoundState.ABANDONED
        (void,) = [each for each in logs if each["event"] == "round_void"]
        assert void["reason"] == "most operators refuse our requests for their time: look at our clock"
        assert (await standing_of(bench, 1)).rounds == 1
        for miner in checking:
            miner.refusing = frozenset()
        assert (await bench.hold()).state is RoundState.CLOSED
        for number in (1, 2, 3):
            held = await standing_of(bench, number)
            assert held.ema == pytest.approx(1.0, abs=0.03)
            assert held.slashes == 0


async def test_records_that_were_refused_by_our_wrong_clock_count_against_nobody_and_mark_nobody() -> None:
    checking = [Checks(key(number)) for number in (1, 2, 3)]
    async with over([*checking, Keeps(key(4))], planted_rounds=24) as bench:
        await bench.hold()
        for _ in range(3):
            for miner in checking:
                miner.refusing = ALL
            await bench.rounds.prepare(bench.metagraph())
            for _ in range(7):
                bench.clock.advance(601.0)
                await bench.gardener.tend_once()
            for miner in checking:
                miner.refusing = frozenset()
            assert (await bench.rounds.hold(bench.metagraph())).state is RoundState.CLOSED
        known = await bench.ledger.read(miner_records.all_known)
        assert not any(each.registered_only for each in known.values())
        for number in (1, 2, 3):
            assert (await standing_of(bench, number)).ema == pytest.approx(1.0, abs=0.03)


async def test_a_miner_that_says_so_alone_refuses_records() -> None:
    liar = Checks(key(1))
    async with over([liar, *(Keeps(key(number)) for number in (2, 3, 4))]) as bench:
        await bench.hold()
        liar.refusing = frozenset({"IngestSynapse"})
        for _ in range(5):
            await bench.rounds.prepare(bench.metagraph())
            for _ in range(7):
                bench.clock.advance(601.0)
                await bench.gardener.tend_once()
            await bench.rounds.hold(bench.metagraph())
        assert (await standing_of(bench, 1)).ema < 0.8
        assert (await standing_of(bench, 2)).ema == pytest.approx(1.0, abs=0.03)


async def test_operators_that_say_so_for_ever_keep_no_score_as_it_is(autojump_clock: MockClock) -> None:
    """One stored, and stops; most operators help it by refusing every question for its time."""
    keeper, stopped = (Keeps(key(number), url=f"http://127.0.0.1:{number}") for number in (1, 2))
    helpers = [Checks(key(number), url=f"http://127.0.0.1:{number}") for number in (3, 4, 5)]
    miners = [keeper, stopped, *helpers]
    bench = Bench(open_inline(), miners, planted=8)
    bench.client._http = Network(miners)  # type: ignore[assignment]
    for _ in range(3):
        await bench.hold()
    for miner in helpers:
        miner.refusing = frozenset({"QuerySynapse", "ChallengeSynapse"})
    states = []
    for _ in range(30):
        stopped.records.clear()
        states.append((await bench.hold()).state)
    assert states[:6] == [RoundState.ABANDONED] * 6
    assert states[6:24] == [RoundState.CLOSED] * 18
    weights = await bench.weights()
    assert weights[keeper.keypair.public_key] > 0.9
    assert all(weights[miner.keypair.public_key] < 0.1 for miner in (stopped, *helpers))
    bench.ledger.close()


def brought(*outcomes: Outcome) -> list[tuple[Kind, Answer]]:
    return [(Kind.QUERY, Answer(question_id=number, outcome=outcome)) for number, outcome in enumerate(outcomes)]


RIGHT, LATE = brought(Outcome.ANSWERED), brought(Outcome.LATE)
UNTIMELY = brought(Outcome.ANSWERED, Outcome.UNTIMELY)


@pytest.mark.parametrize(
    ("answers", "same_operator", "void"),
    [
        ([UNTIMELY] * 3 + [RIGHT] * 2, 0, True),
        ([UNTIMELY] * 3 + [RIGHT] * 3, 0, False),
        ([UNTIMELY] * 2 + [RIGHT], 0, False),
        ([UNTIMELY] * 3 + [RIGHT] * 2, 3, False),
        ([UNTIMELY] * 3 + [RIGHT] * 2 + [LATE] * 9, 0, True),
        ([UNTIMELY] * 6 + [RIGHT] * 2, 4, True),
    ],
    ids=["most", "half", "too few", "of one operator", "silent ones say nothing", "most operators"],
)
def test_our_clock_is_out_when_most_operators_and_three_at_least_say_so(
    answers: list[Any], same_operator: int, void: bool
) -> None:
    found = {bytes([number]): each for number, each in enumerate(answers)}
    operators = {hotkey: b"one" if number < same_operator else hotkey for number, hotkey in enumerate(found)}
    assert bool(why_void(found, {}, operators, VOID_MOST - 1)) is void
    assert not why_void(found, {}, operators, VOID_MOST)


def test_what_is_refused_for_its_time_counts_unless_most_refuse_it() -> None:
    offers = {bytes([number]): Offers(1, 2, 3) for number in range(3)} | {b"x": Offers(1, 2), b"y": Offers(0, 2)}
    operators = {hotkey: hotkey for hotkey in offers}
    assert counted(offers, operators) == offers
    alone = {b"x": Offers(1, 2, 3), b"y": Offers(0, 2)}
    assert counted(alone, operators) == {b"x": Offers(4, 2), b"y": Offers(0, 2)}
