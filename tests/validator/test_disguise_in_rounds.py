"""Planted records among customers' at one miner, over real rounds: a miner cannot tell them apart, nor gain by trying.

At least 200 records of customers come in each round. A customer appears at any time, leaves one note or many, at a pace
of its own, and may go on over several rounds; the validator draws lengths from the notes that all miners list.
"""

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from trio.testing import MockClock

from engram.ledger import open_inline
from engram.memory.embed.hash_embedder import hash_vector
from engram.validator.records import rounds as round_records
from tests.validator.benches import NETUID, OWN, Bench, key
from tests.validator.networks import Network
from tests.validator.toy_miners import Keeps

DIMENSION = 384
"""As the model's: in 64 dimensions words of customers fall together with those of questions, and push answers out."""
CUSTOMERS = 200
"""Their records a round at least."""
PERIOD_S = 600.0
STEP_S = 10.0
ROUNDS = 16
EACH = 3
"""Miners that keep by a rule, and miners that keep by chance."""
WORDS = ("harbor", "ledger", "tulip", "radio", "seven", "copper", "lantern", "winter", "marble", "fjord", "onion")


SDK_SIGNING = {"hotkey": "", "nonce": 0, "signature": ""}
SDK_HEADERS = (
    "accept: */*",
    "accept-encoding: gzip, deflate",
    "user-agent: engram-sdk",
    "x-engram-certificate: 1",
    "content-type: application/json",
)
"""Of a customer's requests; test_wire_form.py holds these against the SDK's own."""
SDK_FORM = ("metadata", "text", "raw_embedding", *SDK_SIGNING, *SDK_HEADERS)


class Seen(msgspec.Struct, frozen=True):
    """What a miner sees of a record, and what it should not be able to tell."""

    cid: str
    signer: str
    length: int
    model: str
    form: tuple[str, ...]
    """Fields of the body and headers of the request, in their order."""
    at: float
    round: int
    planted: bool


class Watches(Keeps):
    """Keeps, and notes all that it sees of each record."""

    def __init__(self, number: int) -> None:
        super().__init__(key(number), url=f"http://127.0.0.1:{number}")
        self.seen: list[Seen] = []
        self.texts: list[str] = []
        self.now: Callable[[], float] = lambda: 0.0
        self.round = 0
        self.customers: set[str] = set()
        self.headers: tuple[str, ...] = SDK_HEADERS
        """Of the request that is being answered."""

    async def answer(self, asked: Any) -> Any:
        self.headers = tuple(f"{name.lower()}: {value}" for name, value in asked.headers.items() if "igest" not in name)
        if "Content-Digest" not in asked.headers:
            self.headers += ("no digest",)
        if asked.target == "/list":
            body = msgspec.json.decode(asked.body)
            texts = self.texts[body["offset"] :][: body["limit"]]
            listed = [{"cid": "v1::x", "metadata": {"text": text}} for text in texts]
            return 200, {}, msgspec.json.encode({"records": listed, "count": len(listed)})
        return await super().answer(asked)

    def query(self, body: dict[str, Any]) -> Any:
        cids = list(self.records)
        rows = np.frombuffer(b"".join(self.records.values()), "<f4").reshape(len(cids), -1)
        order = np.argsort(-(rows @ np.array(body["query_vector"], "<f4")))[: body["top_k"]]
        return {"results": [{"cid": cids[place], "score": 0.0, "metadata": {}} for place in order], "error": None}

    def ingest(self, body: dict[str, Any], signer: str) -> Any:
        answer = super().ingest(body, signer)
        text = body["metadata"]["text"]
        self.texts.append(text)
        model = body.get("model_version", "v1")
        planted = signer not in self.customers
        form = (*body, *(SDK_HEADERS if not planted else self.headers))
        self.seen.append(Seen(answer["cid"], signer, len(text), model, form, self.now(), self.round, planted))
        return answer


class Customer:
    """Leaves notes at a pace of its own, from when it appears."""

    def __init__(self, rng: Random, appears: float) -> None:
        self.name = rng.randbytes(16).hex()
        self.left = min(60, math.floor((1 - rng.random()) ** (-1 / 1.5)))
        self.gap_s = math.exp(rng.gauss(math.log(70), 1.1))
        self.next_at = appears

    def notes(self, rng: Random, until: float) -> list[tuple[float, str]]:
        """Those of its notes that come before `until`."""
        found = []
        while self.left and self.next_at < until:
            length = max(12, round(rng.lognormvariate(4.8, 0.7)))
            text = ""
            while len(text) < length:
                text += rng.choice(WORDS) + " "
            found.append((self.next_at, text[:length]))
            self.left -= 1
            self.next_at += rng.expovariate(1 / self.gap_s)
        return found


class Town:
    """A validator, miners, and customers of each."""

    def __init__(self, miners: Sequence[Watches], seed: int, customers: int = CUSTOMERS, **changed: Any) -> None:
        self.miners = miners
        self.least = customers
        given: dict[str, Any] = {"queries": 4, "challenges": 2, "planted_rounds": 8, "dimension": DIMENSION}
        self.bench = Bench(open_inline(), miners, seed=seed, **given | changed)
        self.bench.client._http = Network(miners)  # type: ignore[assignment]
        self.rng = Random(seed)
        self.crowds: dict[Watches, list[Customer]] = {miner: [] for miner in miners}
        for miner in miners:
            miner.now = self._some_time_of_this_step

    async def round(self, after: Callable[[Watches], None] = lambda miner: None) -> None:
        """Plant and take customers' records for a round's time, do what `after` says, and hold the round."""
        await self.bench.rounds.prepare(self.bench.metagraph())
        for miner in self.miners:
            miner.round += 1
        begun = self.bench.clock.now()
        for _ in range(int(PERIOD_S / STEP_S) + 1):
            self.bench.clock.advance(STEP_S)
            self._customers()
            await self.bench.gardener.tend_once()
        while any(self._of_customers(miner) < self.least for miner in self.miners):
            self._customers()
        for miner in self.miners:
            after(miner)
        assert self.bench.clock.now() >= begun + PERIOD_S
        self.bench.block += 50
        await self.bench.rounds.hold(self.bench.metagraph())

    def _some_time_of_this_step(self) -> float:
        return self.bench.clock.now() - self.rng.uniform(0.0, STEP_S)

    def _customers(self) -> None:
        now = self.bench.clock.now()
        for miner, crowd in self.crowds.items():
            for _ in range(self.rng.randint(1, 2)):
                crowd.append(Customer(self.rng, now - self.rng.uniform(0, STEP_S)))
                miner.customers.add(crowd[-1].name)
            for customer in crowd:
                for _, text in customer.notes(self.rng, now):
                    values = list(np.frombuffer(hash_vector(text, DIMENSION), "<f4").astype(float))
                    body = {"metadata": {"text": text}, "text": text, "raw_embedding": values} | SDK_SIGNING
                    miner.ingest(body, customer.name)
            self.crowds[miner] = [each for each in crowd if each.left]

    @staticmethod
    def _of_customers(miner: Watches) -> int:
        return sum(each.round == miner.round and not each.planted for each in miner.seen)

    async def mean_scores(self, rounds: int) -> list[float]:
        """The mean score of each miner over the newest rounds."""
        newest = await self.bench.ledger.read(lambda c: round_records.some_rounds(c, NETUID, rounds))
        found: dict[int, list[float]] = {}
        for each in newest:
            for result in await self.bench.ledger.read(lambda c, r=each.id: round_records.results(c, r)):  # type: ignore[misc]
                assert result.score is not None
                found.setdefault(result.uid, []).append(result.score)
        return [float(np.mean(scores)) for _, scores in sorted(found.items())]


def in_order(seen: Sequence[Seen]) -> list[Seen]:
    return sorted(seen, key=lambda each: each.at)


def features(seen: Sequence[Seen]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Length, time of the round, age and records of the signer, its rate and that of all, the model and the form."""
    first: dict[str, float] = {}
    count: dict[str, int] = {}
    last: dict[str, float] = {}
    rows, before = [], 0.0
    for each in in_order(seen):
        age = each.at - first.setdefault(each.signer, each.at)
        count[each.signer] = count.get(each.signer, 0) + 1
        gap = each.at - last.get(each.signer, each.at)
        row = (
            math.log(each.length),
            each.at % PERIOD_S,
            math.log1p(age),
            math.log(count[each.signer]),
            math.log1p(gap),
            count[each.signer] / (age + 60.0),
            math.log1p(each.at - before),
            float(each.model == "v1"),
            float(each.form == SDK_FORM),
        )
        last[each.signer] = before = each.at
        rows.append(row)
    return np.array(rows)


class Regression:
    """A logistic regression over standardized features and their squares, by Newton's method with a little ridge."""

    def __init__(self, rows: np.ndarray[Any, Any], planted: np.ndarray[Any, Any]) -> None:
        self.mean, self.span = rows.mean(axis=0), rows.std(axis=0) + 1e-9
        design, labels = self._design(rows), planted.astype(float)
        self.weights = np.zeros(design.shape[1])
        ridge = np.eye(design.shape[1])
        for _ in range(25):
            chance = 1 / (1 + np.exp(-np.clip(design @ self.weights, -30, 30)))
            slope = design.T @ (labels - chance) - ridge @ self.weights
            curve = (design * (chance * (1 - chance))[:, None]).T @ design + ridge
            self.weights += np.linalg.solve(curve, slope)

    def _design(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        standard = (rows - self.mean) / self.span
        return np.hstack([standard, standard**2, np.ones((len(rows), 1))])

    def __call__(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = self._design(rows) @ self.weights
        return found


def auc(scores: np.ndarray[Any, Any], planted: np.ndarray[Any, Any]) -> float:
    """The share of pairs of a planted and another record that the scores put in the right order."""
    ones, others = scores[planted], scores[~planted]
    return float(np.mean((ones[:, None] > others) + (ones[:, None] == others) / 2))


def labels(seen: Sequence[Seen]) -> np.ndarray[Any, Any]:
    return np.array([each.planted for each in in_order(seen)])


@pytest.mark.nightly
async def test_a_regression_that_learned_from_half_of_the_rounds_cannot_tell_the_records_of_the_others(
    autojump_clock: MockClock,
) -> None:
    """It learns from nine miners in three towns, and is judged by all of them.

    Of one alone the late half has some 120 planted records by 50 signers, whose records are much alike: for such a
    sample an AUC of 0.54 comes out as anything from 0.4 to 0.65.
    """
    learned: list[tuple[Any, Any]] = []
    judged: list[tuple[Any, Any]] = []
    for seed in (1, 2, 3):
        town = Town([Watches(number) for number in (1, 2, 3)], seed)  # three, or nothing that they list counts
        for _ in range(ROUNDS):
            await town.round()
        for miner in town.miners:
            assert min(np.bincount([each.round for each in miner.seen if not each.planted])[1:]) >= CUSTOMERS
            rows, planted = features(miner.seen), labels(miner.seen)
            early = np.array([each.round <= ROUNDS // 2 for each in in_order(miner.seen)])
            learned.append((rows[early], planted[early]))
            judged.append((rows[~early], planted[~early]))
        town.bench.ledger.close()
    rule = Regression(*joined(learned))
    rows, planted = joined(judged)
    assert planted.sum() > 900
    assert auc(rule(rows), planted) <= 0.6


def joined(parts: Sequence[tuple[Any, Any]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.vstack([rows for rows, _ in parts]), np.concatenate([planted for _, planted in parts])


class KeepsWhatIsAskedAbout(Watches):
    """Lets all that is older than a round go but what the validator's own hotkey asked about, and what is near that."""

    NEAR = 0.25
    """Cosine."""
    REMEMBERED = 48

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.asked: list[np.ndarray[Any, Any]] = []
        self.named: set[str] = set()

    def query(self, body: dict[str, Any]) -> Any:
        if body["hotkey"] == OWN.ss58:
            self.asked.append(np.array(body["query_vector"], "<f4"))
        return super().query(body)

    def challenge(self, body: dict[str, Any]) -> Any:
        self.named.add(body["cid"])
        if body["cid"] in self.records:
            self.asked.append(self._vector(body["cid"]))
        return super().challenge(body)

    def forget(self) -> None:
        near = np.array(self.asked[-self.REMEMBERED :])
        for cid in {each.cid for each in self.seen if each.round < self.round} & self.records.keys():
            if cid not in self.named and (not len(near) or (near @ self._vector(cid)).max() < self.NEAR):
                del self.records[cid]

    def kept(self, *, planted: bool) -> float:
        """The share of older records that it still has, of the planted ones or of its customers'."""
        found = [each.cid for each in self.seen if each.planted is planted and 4 < each.round < self.round]
        due = set(found) - set(self.deleted)
        return len(due & self.records.keys()) / len(due)

    def _vector(self, cid: str) -> np.ndarray[Any, Any]:
        return np.frombuffer(self.records[cid], "<f4")


@pytest.mark.nightly
@pytest.mark.parametrize(("decoys", "least", "most"), [(0, 0.0, 0.05), (2, 0.8, 1.0)])
async def test_a_miner_that_keeps_what_the_own_hotkey_asks_about_keeps_what_customers_have_in_common_too(
    autojump_clock: MockClock, decoys: int, least: float, most: float
) -> None:
    """Without decoys it keeps next to none of its customers' records, and scores all the same."""
    cheat = KeepsWhatIsAskedAbout(1)
    town = Town([cheat, Watches(2), Watches(3)], 1, customers=60, decoys=decoys)
    for _ in range(12):
        await town.round(lambda miner: cheat.forget() if miner is cheat else None)
    assert cheat.kept(planted=True) > 0.9
    assert least <= cheat.kept(planted=False) <= most
    town.bench.ledger.close()


class Keepers:
    """Half of a miner's records are kept: those that its rule takes for planted, or any."""

    def __init__(self, chooses: Callable[[Watches], dict[str, float]]) -> None:
        self.chooses = chooses
        self.judged: set[str] = set()

    def __call__(self, miner: Watches) -> None:
        chances = self.chooses(miner)
        kept = (each.cid for each in miner.seen if each.cid in miner.records and each.cid not in self.judged)
        fresh = list(dict.fromkeys(kept))  # two customers may leave one note
        self.judged |= set(fresh)
        for cid in sorted(fresh, key=lambda cid: chances[cid])[: len(fresh) // 2]:
            del miner.records[cid]


@pytest.mark.nightly
async def test_a_miner_that_keeps_what_its_best_rule_takes_for_planted_gains_nothing_over_guessing(
    autojump_clock: MockClock,
) -> None:
    """Its rule knows the truth of half of the rounds, of which a miner knows the challenged records alone.

    What half of the records earn differs by a tenth from one miner to the next, so several of each kind are compared.
    """
    honest = Watches(1)
    ruled, guessing = [Watches(10 + n) for n in range(EACH)], [Watches(20 + n) for n in range(EACH)]
    town = Town([honest, *ruled, *guessing], 5)
    for _ in range(ROUNDS // 2):
        await town.round()
    rules = {miner: Regression(features(miner.seen), labels(miner.seen)) for miner in ruled}
    rng = Random(6)

    def by_rule(miner: Watches) -> dict[str, float]:
        order = in_order(miner.seen)
        return {each.cid: chance for each, chance in zip(order, rules[miner](features(order)), strict=True)}

    def by_chance(miner: Watches) -> dict[str, float]:
        return {each.cid: rng.random() for each in miner.seen}

    keepers = {miner: Keepers(by_rule) for miner in ruled} | {miner: Keepers(by_chance) for miner in guessing}
    for _ in range(ROUNDS - ROUNDS // 2):
        await town.round(lambda miner: keepers[miner](miner) if miner in keepers else None)
    own, *others = await town.mean_scores(ROUNDS - ROUNDS // 2)
    by_rules, by_guesses = float(np.mean(others[:EACH])), float(np.mean(others[EACH:]))
    assert own == pytest.approx(1.0, abs=0.01)
    assert by_guesses < 0.8
    assert by_rules - by_guesses <= 0.2, others
    assert float(np.mean([share_of_planted_kept(miner) for miner in ruled])) <= 0.6
    assert float(np.mean([auc_of_late(miner, rules[miner]) for miner in ruled])) <= 0.6
    town.bench.ledger.close()


def share_of_planted_kept(miner: Watches) -> float:
    late = [each for each in miner.seen if each.planted and each.round > ROUNDS // 2 and each.cid not in miner.deleted]
    return sum(each.cid in miner.records for each in late) / len(late)


def auc_of_late(miner: Watches, rule: Regression) -> float:
    late = np.array([each.round > ROUNDS // 2 for each in in_order(miner.seen)])
    return auc(rule(features(miner.seen)[late]), labels(miner.seen)[late])
