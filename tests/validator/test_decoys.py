"""What the own hotkey asks about records of customers: nobody earns by it, and nobody is told by it what is planted."""

import json
from typing import Any

from sqlalchemy import select

from engram.hotkeys import Keypair
from engram.validator import reports
from engram.validator.decoys import HELD_MOST, Decoys
from engram.validator.model import Kind
from engram.validator.records import plants as plant_records
from engram.validator.records import standings as miner_records
from engram.validator.tables import questions
from tests.fakes.responder import Answer, Asked
from tests.validator.benches import NETUID, OWN, Bench, key, over
from tests.validator.toy_miners import Keeps

CUSTOMERS = {f"v1::{number:064x}": f"customer note {number} about copper lanterns" for number in range(130)}


class Lists(Keeps):
    """Lists customers' records among what it was given, and notes what it is asked."""

    def __init__(self, keypair: Keypair, customers: dict[str, str] = CUSTOMERS, **more: Any) -> None:
        super().__init__(keypair, **more)
        self.customers = customers
        self.texts: dict[str, str] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def answer(self, asked: Asked) -> Answer | None:
        body = json.loads(asked.body)
        self.asked.append((asked.target, body))
        if asked.target != "/list":
            return await super().answer(asked)
        listed = [*self.customers.items(), *self.texts.items()]
        page = listed[body["offset"] :][: body["limit"]]
        records = [{"cid": cid, "metadata": {"text": text}} for cid, text in page]
        return 200, {}, json.dumps({"records": records, "count": len(records)}).encode()

    def ingest(self, body: dict[str, Any], signer: str) -> Any:
        answer = super().ingest(body, signer)
        self.texts[answer["cid"]] = body["metadata"]["text"]
        return answer

    def challenged(self) -> list[str]:
        return [body["cid"] for target, body in self.asked if target == "/ChallengeSynapse"]


async def last_questions(bench: Bench) -> list[reports.ExplainedQuestion]:
    explained = await bench.ledger.read(lambda c: reports.explain(c, NETUID, 1, 1))
    assert explained is not None
    return explained.rounds[0].questions


async def test_the_own_hotkey_searches_and_challenges_customers_records_too_and_their_answers_earn_nothing() -> None:
    miner = Lists(key(1))
    async with over([miner], decoys=2) as bench:
        await bench.hold()
        found = await last_questions(bench)
        kinds = [each.kind for each in found]
        assert (kinds.count(Kind.DECOY_QUERY), kinds.count(Kind.DECOY_CHALLENGE)) == (2, 2)
        decoys = [each for each in found if each.kind in (Kind.DECOY_QUERY, Kind.DECOY_CHALLENGE)]
        assert all(each.own_key and each.recall is None and each.proved is None for each in decoys)
        assert {each.outcome for each in decoys if each.kind == Kind.DECOY_CHALLENGE} == {"refused"}
        assert len(set(miner.challenged()) & CUSTOMERS.keys()) == 2
        known = await bench.ledger.read(lambda c: miner_records.known(c, key(1).public_key))
        assert known is not None
        assert (known.standing.challenges, known.standing.proved) == (3, 3)
        assert {each.recall for each in found if each.kind == Kind.QUERY} == {1.0}


async def test_a_record_that_is_planted_is_no_decoy_though_the_miner_lists_it() -> None:
    miner = Lists(key(1), customers={})
    async with over([miner], decoys=2) as bench:
        for _ in range(3):
            await bench.hold()
        planted = await bench.ledger.read(lambda c: plant_records.cids(c, key(1).public_key))
        assert set(miner.challenged()) <= planted
        assert {each.kind for each in await last_questions(bench)} == {Kind.QUERY, Kind.CHALLENGE}


async def test_lists_are_read_by_keys_that_do_nothing_else_and_from_any_place() -> None:
    miner = Lists(key(1))
    async with over([miner], decoys=2) as bench:
        for _ in range(8):
            await bench.hold()
    lists = [body for target, body in miner.asked if target == "/list"]
    others = {body["hotkey"] for target, body in miner.asked if target != "/list"}
    assert not {body["hotkey"] for body in lists} & others
    assert OWN.ss58 not in {body["hotkey"] for body in lists}
    assert max(body["offset"] for body in lists) > 100
    assert len({cid for cid in miner.challenged() if cid in CUSTOMERS}) > 8


async def test_no_words_of_a_customer_are_kept_in_the_ledger() -> None:
    async with over([Lists(key(1))], decoys=2) as bench:
        await bench.hold()
        rows = await bench.ledger.read(lambda c: c.execute(select(questions)).all())
        assert any("decoy query" in row for row in rows)
        assert not any("copper" in str(row) or "lantern" in str(row) for row in rows)
        shown = {each.about for each in await last_questions(bench) if each.kind == Kind.DECOY_QUERY}
        assert shown == {reports.OF_A_CUSTOMER}


async def test_what_counts_is_not_told_by_its_place_among_the_questions() -> None:
    miner = Lists(key(1))
    places: set[tuple[str, ...]] = set()
    async with over([miner], decoys=2) as bench:
        for _ in range(5):
            await bench.hold()
            places.add(tuple(each.kind for each in await last_questions(bench)))
    assert len(places) == 5


async def test_a_miner_whose_list_is_nonsense_or_too_large_is_asked_no_decoys_and_loses_nothing() -> None:
    class Mumbles(Lists):
        async def answer(self, asked: Asked) -> Answer | None:
            if asked.target == "/list":
                return 200, {}, self.listing
            return await super().answer(asked)

        listing = b""

    for listing in (b"[1]", b'{"records": []}', b"x" * 300_000, b'{"records": [{"cid": "v1::x", "metadata": {}}]}'):
        miner = Mumbles(key(1), listing=listing)
        async with over([miner], decoys=2) as bench:
            await bench.hold()
            found = await last_questions(bench)
            assert {each.kind for each in found} == {Kind.QUERY, Kind.CHALLENGE}
            assert {each.recall for each in found if each.kind == Kind.QUERY} == {1.0}


async def test_decoys_can_be_left_out_and_few_of_them_are_held() -> None:
    silent, asked = Lists(key(1)), Lists(key(2))
    async with over([silent], decoys=0) as bench:
        await bench.rounds.prepare(bench.metagraph())
        assert not silent.asked
    async with over([asked], decoys=1) as bench:
        for _ in range(12):
            await bench.rounds.prepare(bench.metagraph())
        decoys: Decoys = bench.rounds._decoys
        assert len(decoys._held[key(2).public_key]) <= HELD_MOST
        bench.miners = []
        await bench.rounds.prepare(bench.metagraph())
        assert not decoys._held, "what is gone is forgotten"
