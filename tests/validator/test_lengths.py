"""How long planted records are: by what all miners list of their customers' texts, never by the word of one of them."""

import json
import statistics
from typing import Any

from engram.hotkeys import Keypair
from engram.validator.asker import LISTED_EVERY
from engram.validator.planting import LENGTHS
from engram.validator.records import standings as miner_records
from tests.fakes.responder import Answer, Asked
from tests.validator.benches import OWN, Bench, key, over
from tests.validator.toy_miners import Keeps

HONEST = [40 + 2 * number for number in range(60)]


class Lists(Keeps):
    """Lists texts of these lengths, by pages; `padding` bytes come with each."""

    def __init__(self, keypair: Keypair, lengths: list[int] | None, padding: int = 0, **more: Any) -> None:
        super().__init__(keypair, **more)
        self.lengths = lengths
        self.padding = padding
        self.listed_to: set[str] = set()
        self.limits: list[int] = []

    async def answer(self, asked: Asked) -> Answer | None:
        if asked.target != "/list":
            return await super().answer(asked)
        body = json.loads(asked.body)
        self.listed_to.add(body["hotkey"])
        self.limits.append(body["limit"])
        if self.lengths is None:
            return 500, {}, b"oops"
        page = self.lengths[body["offset"] :][: body["limit"]]
        records = [
            {"cid": "v1::x", "metadata": {"text": "x" * length, "more": "y" * self.padding}, "score": 0.0}
            for length in page
        ]
        return 200, {}, json.dumps({"records": records, "count": len(records)}).encode()


async def lengths_kept(bench: Bench, number: int) -> tuple[int, ...]:
    found = await bench.ledger.read(lambda c: miner_records.known(c, key(number).public_key))
    assert found is not None
    return found.lengths


def planted_lengths(miner: Keeps, since: int) -> list[int]:
    return [length for _, _, length in miner.came[since:]]


async def test_a_miner_that_lists_long_texts_alone_is_given_records_as_long_as_all_others() -> None:
    liar = Lists(key(4), [901] * 20)
    honest = [Lists(key(number), HONEST) for number in (1, 2, 3)]
    async with over([*honest, liar]) as bench:
        await bench.hold()
        came = len(liar.came)
        assert await lengths_kept(bench, 4) == (901,) * 20
        for _ in range(3):
            await bench.hold()
        assert max(planted_lengths(liar, came)) < 300
        assert abs(statistics.median(planted_lengths(liar, came)) - statistics.median(HONEST)) < 25


async def test_one_operator_s_miners_have_one_say_however_many_they_are() -> None:
    liars = [Lists(key(number), [901] * 20) for number in range(4, 9)]
    honest = [Lists(key(number), HONEST) for number in (1, 2, 3)]
    async with over([*honest, *liars], coldkeys=dict.fromkeys(range(4, 9), 77), planted=6) as bench:
        await bench.hold()
        came = len(liars[0].came)
        await bench.hold()
        assert max(planted_lengths(liars[0], came)) < 300


async def test_two_operators_are_too_few_to_draw_lengths_from() -> None:
    miners = [Lists(key(number), [901] * 20) for number in (1, 2)]
    async with over(miners) as bench:
        await bench.hold()
        came = len(miners[0].came)
        await bench.hold()
        assert max(planted_lengths(miners[0], came)) <= max(LENGTHS) + 100


async def test_texts_are_listed_to_a_key_of_the_miner_s_own() -> None:
    miner = Lists(key(1), HONEST)
    async with over([miner]) as bench:
        await bench.hold()
        assert miner.listed_to
        assert OWN.ss58 not in miner.listed_to


async def test_a_miner_that_does_not_list_any_more_keeps_its_lengths_of_before() -> None:
    miner = Lists(key(1), HONEST)
    async with over([miner], planted=6) as bench:
        await bench.hold()
        before = await lengths_kept(bench, 1)
        assert set(before) <= set(HONEST)
        miner.lengths = None
        for _ in range(LISTED_EVERY):
            await bench.hold()
        assert len(miner.limits) > 2
        assert await lengths_kept(bench, 1) == before


async def test_a_list_that_is_larger_than_an_answer_may_be_is_read_in_smaller_pages() -> None:
    miner = Lists(key(1), [*HONEST, *HONEST], padding=10_000)
    async with over([miner]) as bench:
        await bench.hold()
        assert len(set(miner.limits)) == 2
        assert set(await lengths_kept(bench, 1)) <= set(HONEST)
        assert len(await lengths_kept(bench, 1)) >= 60


async def test_a_list_of_which_no_page_is_small_enough_changes_nothing() -> None:
    miner = Lists(key(1), HONEST, padding=100_000)
    async with over([miner]) as bench:
        await bench.hold()
        assert await lengths_kept(bench, 1) == ()
        assert len(miner.limits) <= 8
