"""A miner that avoids being asked loses what it has earned, and nobody loses for what is not its own doing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from engram.validator import relaying, reports, round_rules
from engram.validator.model import Holding, Offers, Question, RoundState
from engram.validator.records import standings as miner_records
from engram.validator.standing import Standing
from tests.validator.benches import NETUID, Bench, key, over, public_file, write_file
from tests.validator.toy_miners import Keeps


async def standing_of(bench: Bench, number: int) -> Standing:
    known = await bench.ledger.read(lambda c: miner_records.known(c, key(number).public_key))
    assert known is not None
    return known.standing


async def test_a_miner_that_announces_no_address_any_more_fails_every_round_from_then_on() -> None:
    leaving, newcomer = Keeps(key(2)), Keeps(key(3))
    async with over([Keeps(key(1)), leaving, newcomer]) as bench:
        address, newcomer.url = newcomer.url, ""
        await bench.hold()
        assert (await standing_of(bench, 2)).ema == pytest.approx(1.0, abs=0.03)
        leaving.url = ""
        for held in (1, 2):
            assert (await bench.hold()).state is RoundState.CLOSED
            assert (await standing_of(bench, 2)).ema == pytest.approx(0.9**held, abs=0.03)
        assert (await standing_of(bench, 1)).ema == pytest.approx(1.0, abs=0.03)
        scores = {each.uid: each for each in await bench.ledger.read(lambda c: reports.scores(c, NETUID))}
        assert (scores[2].score, scores[2].reason) == (0.0, "announces no address")
        assert scores[3].score is None, "it was never scored, so it starts clean"
        last = (await bench.ledger.read(lambda c: relaying.readings(c, NETUID, bench.block, 0)))[0]
        assert set(last.scores) == {"1"}, "nothing was measured of it, so nothing is relayed"
        newcomer.url = address
        await bench.hold()
        assert (await standing_of(bench, 3)).ema == pytest.approx(1.0, abs=0.03)


async def test_a_void_round_costs_a_miner_without_an_address_nothing_either() -> None:
    miners = [Keeps(key(number)) for number in (1, 2, 3, 4)]
    async with over(miners) as bench:
        await bench.hold()
        for miner in miners:
            miner.url = "http://127.0.0.1:9"  # the discard port: nobody listens
        miners[3].url = ""
        assert (await bench.hold()).state is RoundState.ABANDONED
        assert (await standing_of(bench, 4)).ema == pytest.approx(1.0, abs=0.03)


class Chooses(Keeps):
    """Takes public records, and planted ones as long as it holds fewer than `most` of them."""

    most = 10**6
    public: frozenset[str] = frozenset()

    def ingest(self, body: dict[str, Any], signer: str) -> Any:
        before = dict(self.records)
        answer = super().ingest(body, signer)
        if answer["cid"] in self.public or len(self.records.keys() - self.public) <= self.most:
            return answer
        self.records = before
        return 507, {"error": "no room"}


@pytest.mark.parametrize("taken", [0, 4], ids=["nothing", "too few to be asked about"])
async def test_a_miner_that_stored_for_a_while_and_then_refuses_records_loses_within_a_few_rounds(
    tmp_path: Path, taken: int
) -> None:
    shared = public_file()
    path = write_file(tmp_path / "truth.jsonl", shared)
    cheat = Chooses(key(2), public=frozenset(each.cid for each in shared))
    async with over([Keeps(key(1)), cheat], shared=shared, ground_truth=path, planted_rounds=3) as bench:
        for _ in range(2):
            await bench.hold()
        assert (await standing_of(bench, 2)).ema == pytest.approx(1.0, abs=0.03)
        cheat.most = taken
        for _ in range(7):
            await bench.hold()
        assert (await standing_of(bench, 2)).ema < 0.7
        assert (await standing_of(bench, 1)).ema == pytest.approx(1.0, abs=0.03)


async def test_what_was_refused_in_a_void_round_counts_against_nobody() -> None:
    """A miner that is new when the validator's network fails is given its records at last in vain, and starts clean."""
    miners = [Keeps(key(number)) for number in (1, 2, 3, 4)]
    async with over(miners) as bench:
        newcomer, addresses = miners[3], [miner.url for miner in miners]
        newcomer.url = ""
        await bench.hold()
        for miner in miners:
            miner.url = "http://127.0.0.1:9"  # the discard port: nobody listens
        await bench.rounds.prepare(bench.metagraph())
        for _ in range(5):
            bench.clock.advance(601.0)
            await bench.gardener.tend_once()
        assert (await bench.rounds.hold(bench.metagraph())).state is RoundState.ABANDONED
        for miner, address in zip(miners, addresses, strict=True):
            miner.url = address
        assert (await bench.rounds.hold(bench.metagraph())).state is RoundState.CLOSED
        assert (await standing_of(bench, 4)).rounds == 0


@pytest.mark.parametrize(
    ("refused", "taken", "undeleted", "questioned", "fails"),
    [
        (0, 0, 0, False, False),
        (0, 9, 0, False, False),
        (1, 0, 0, False, True),
        (1, 0, 0, True, True),
        (5, 5, 0, False, True),
        (4, 5, 0, False, False),
        (9, 1, 0, True, False),
        (0, 5, 5, False, True),
        (2, 5, 3, False, True),
        (1, 5, 3, False, False),
        (0, 0, 9, True, False),
        (0, 5, 9, True, False),
    ],
)
def test_a_miner_fails_that_takes_nothing_or_is_not_asked_for_what_it_refuses_to_take_or_to_delete(
    refused: int, taken: int, undeleted: int, questioned: bool, fails: bool
) -> None:
    assert round_rules.is_evading(Offers(refused, taken, 0, undeleted), questioned=questioned) is fails


class Mumbles(Keeps):
    """Answers nonsense to records, or to their deletion, once it has earned something; and keeps or drops them."""

    mumbling = ""

    def ingest(self, body: dict[str, Any], signer: str) -> Any:
        return {"cid": [1]} if self.mumbling == "ingest" else super().ingest(body, signer)

    def delete(self, body: dict[str, Any], signer: str) -> Any:
        return {"no": "answer"} if self.mumbling == "delete" else super().delete(body, signer)


def nothing_can_be_asked_of(bench: Bench, *numbers: int) -> None:
    """As when too much that a miner may hold or may not is nearer to each question than what it must hold."""
    draw = bench.rounds._drawn
    hotkeys = {key(number).public_key for number in numbers}

    async def drawn(holdings: Mapping[bytes, Holding], round_id: int) -> list[Question]:
        return await draw({hotkey: each for hotkey, each in holdings.items() if hotkey not in hotkeys}, round_id)

    bench.rounds._drawn = drawn  # type: ignore[method-assign]


@pytest.mark.parametrize("mumbling", ["ingest", "delete"])
async def test_who_answers_nonsense_to_records_or_deletions_and_is_not_asked_loses_what_it_has_earned(
    mumbling: str,
) -> None:
    cheat = Mumbles(key(2))
    async with over([Keeps(key(1)), cheat], planted_rounds=3, planted=10, unasked_rounds=10) as bench:
        for _ in range(3):
            await bench.hold()
        assert (await standing_of(bench, 2)).ema == pytest.approx(1.0, abs=0.03)
        cheat.mumbling = mumbling
        for _ in range(2):
            await bench.hold()
        nothing_can_be_asked_of(bench, 1, 2)
        for _ in range(8):
            for _ in range(12):
                bench.clock.advance(5.0)
                await bench.gardener.tend_once()
            await bench.hold()
        assert (await standing_of(bench, 2)).ema < 0.75
        assert (await standing_of(bench, 1)).ema == pytest.approx(1.0, abs=0.03), "it takes and deletes"


async def test_what_was_earned_decays_once_nothing_could_be_asked_for_so_many_rounds() -> None:
    async with over([Keeps(key(1)), Keeps(key(2))], unasked_rounds=4) as bench:
        for _ in range(2):
            await bench.hold()
        ask = bench.rounds._drawn
        nothing_can_be_asked_of(bench, 2)
        for _ in range(3):
            await bench.hold()
            assert (await standing_of(bench, 2)).rounds == 2, "it keeps its average at first"
        for held in (1, 2, 3):
            await bench.hold()
            assert (await standing_of(bench, 2)).ema == pytest.approx(0.9**held, abs=0.03)
        assert (await standing_of(bench, 1)).ema == pytest.approx(1.0, abs=0.03)
        bench.rounds._drawn = ask  # type: ignore[method-assign]
        before = (await standing_of(bench, 2)).ema
        await bench.hold()
        assert (await standing_of(bench, 2)).ema > before


async def test_rounds_that_do_not_count_bring_no_decay_nearer() -> None:
    miners = [Keeps(key(number)) for number in (1, 2, 3, 4)]
    async with over(miners, unasked_rounds=4) as bench:
        await bench.hold()
        addresses = [miner.url for miner in miners]
        for miner in miners:
            miner.url = "http://127.0.0.1:9"  # the discard port: nobody listens
        for _ in range(5):
            assert (await bench.hold()).state is RoundState.ABANDONED
        for miner, address in zip(miners, addresses, strict=True):
            miner.url = address
        nothing_can_be_asked_of(bench, 4)
        for _ in range(3):
            await bench.hold()
        assert (await standing_of(bench, 4)).ema == pytest.approx(1.0, abs=0.03)
