"""A validator's rounds over toy miners on real sockets, with its ledger in memory."""

import hashlib
import json
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import trio

from engram.chain.model import Axon, Metagraph, Neuron, SubnetParameters
from engram.clock import ManualClock
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.ledger import open_inline
from engram.ledger.inline import InlineLedger
from engram.memory.embed.hash_embedder import hash_vector
from engram.validator import round_rules
from engram.validator.corpus import PUBLISHED
from engram.validator.garden import Garden
from engram.validator.gardening import Gardener
from engram.validator.ground_truth import Entry
from engram.validator.miner_client import MinerClient, cid_of
from engram.validator.model import Round
from engram.validator.records import rounds as round_records
from engram.validator.records import standings as miner_records
from engram.validator.rounds import Rounds, RoundTerms
from engram.validator.workbench import Done, Draft
from engram.validator.workbench_child import truth
from tests.validator.toy_miners import Keeps

NETUID = 450
OWN = Keypair.from_seed(bytes([9]) * 32)
DIMENSION = 64


def key(number: int) -> Keypair:
    return Keypair.from_seed(number.to_bytes(32, "big"))


class InProcessBench:
    """Vectors by word hashes, and truths, without a child process."""

    def __init__(self, shared: Sequence[Entry] = (), dimension: int = DIMENSION) -> None:
        self.shared = shared
        self.dimension = dimension
        self.texts: list[str] = []

    async def __call__(self, texts: Sequence[str], asked: Sequence[Draft]) -> Done:
        await trio.lowlevel.checkpoint()
        self.texts += texts
        return Done(
            [hash_vector(text, self.dimension) for text in texts],
            [
                truth(
                    hash_vector(each.text, self.dimension),
                    each.candidates,
                    each.about,
                    self.shared,
                    each.seeded,
                    each.uncertain,
                )
                for each in asked
            ],
        )


def parameters(**changed: Any) -> SubnetParameters:
    given = {
        "tempo": 10,
        "max_uids": 256,
        "max_validators": 64,
        "burn_rao": 1,
        "registration_allowed": True,
        "immunity_period_blocks": 5_000,
        "activity_cutoff_blocks": 5_000,
        "serving_rate_limit_blocks": 50,
        "weights_rate_limit_blocks": 5,
        "weights_version": 0,
        "min_allowed_weights": 1,
        "max_weights_limit": 65_535,
        "commit_reveal_weights_enabled": False,
        "commit_reveal_period_tempos": 1,
    }
    return SubnetParameters(**given | changed)


def neuron(uid: int, keypair: Keypair, url: str | None, *, coldkey: int = 0, permit: bool = False) -> Neuron:
    axon = None
    if url is not None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        axon = Axon(ip=host.strip("[]"), port=int(port), version=1, protocol=4, block=1)
    return Neuron(
        uid=uid,
        hotkey=keypair.public_key,
        coldkey=hashlib.sha256(f"cold {coldkey or uid}".encode()).digest(),
        stake_rao=0,
        alpha_stake_rao=0,
        tao_stake_rao=0,
        validator_permit=permit,
        active=True,
        incentive_u16=0,
        consensus_u16=0,
        dividends_u16=0,
        emission_rao=0,
        last_update_block=1,
        registered_at_block=1,
        axon=axon,
        trust_u16=None,
        rank_u16=None,
        pruning_score_u16=None,
    )


def metagraph(neurons: Sequence[Neuron], block: int = 1_000, **changed: Any) -> Metagraph:
    return Metagraph(
        netuid=NETUID,
        block=block,
        block_hash=bytes(32),
        spec_version=293,
        name="engram",
        owner_hotkey=bytes(32),
        owner_coldkey=bytes(32),
        parameters=parameters(**changed),
        neurons=tuple(neurons),
        uid_by_hotkey={each.hotkey: each.uid for each in neurons},
        read_at_s=0.0,
        endpoint="test",
        witness=None,
    )


class Bench:
    """A validator over miners; `hold` lets a round's time pass and holds it."""

    def __init__(self, ledger: InlineLedger, miners: Sequence[Keeps], **changed: Any) -> None:
        self.ledger = ledger
        self.miners = miners
        own = changed.pop("own", OWN)
        self.clock = ManualClock()
        self.embeds = InProcessBench(changed.pop("shared", ()), changed.pop("dimension", DIMENSION))
        self.coldkeys = changed.pop("coldkeys", {})
        self.block = 1_000
        self.closed: list[Round] = []
        self.http = HttpClient()
        planted_rounds = changed.pop("planted_rounds", 6)
        boot = changed.pop("boot", "boot")
        timeout_s = changed.pop("timeout_s", 2.0)
        words = changed.get("words", PUBLISHED)
        concurrency = changed.setdefault("concurrency", 16)
        rng = Random(changed.pop("seed", 1))
        self.client = client = MinerClient(self.http, _Now(), timeout_s)
        self.gardener = Gardener(
            Garden(
                ledger=ledger,
                client=client,
                keypair=own,
                clock=self.clock,
                rng=rng,
                seed=lambda: rng.randbytes(32),
                embeds=self.embeds,
                planted_a_round=changed.pop("planted", 20),
                keep_rounds=planted_rounds,
                round_s=600.0,
                concurrency=concurrency,
                words=words,
                ground_truth=str(changed.pop("ground_truth", "")),
            )
        )
        given: dict[str, Any] = {
            "netuid": NETUID,
            "queries": 4,
            "challenges": 3,
            "decoys": 2,
            "least_planted": 5,
            "deadline_s": 5.0,
            "keep_rounds": 100,
            "planted_rounds": planted_rounds,
            "unasked_rounds": 6,
            "share_scores": False,
            "private_allowed": True,
            "blacklist": {},
        }
        terms = RoundTerms(**given | changed)
        self.shares = terms.share_scores
        self.rounds = Rounds(
            terms,
            ledger,
            client,
            own,
            self.clock,
            rng,
            self.gardener,
            self.embeds,
            boot,
            lambda r, s: self.closed.append(r),
        )

    def metagraph(self) -> Metagraph:
        neurons = [neuron(0, OWN, None, permit=True)]
        neurons += [
            neuron(uid, miner.keypair, miner.url or None, coldkey=self.coldkeys.get(uid, 0))
            for uid, miner in enumerate(self.miners, start=1)
        ]
        return metagraph(neurons, self.block)

    async def plant(self) -> None:
        await self.rounds.prepare(self.metagraph())
        self.clock.advance(601.0)
        await self.gardener.tend_once()

    async def hold(self) -> Round:
        await self.plant()
        self.block += 50
        return await self.rounds.hold(self.metagraph())

    async def weights(self) -> dict[bytes, float]:
        """What weights are made of after the last round, by hotkey, as the setter of weights reads it."""
        newest = (await self.ledger.read(lambda c: round_records.some_rounds(c, NETUID, 1)))[0]
        results = await self.ledger.read(lambda c: round_records.results(c, newest.id))
        proved = await self.ledger.read(lambda c: round_records.proved_at(c, newest.id))
        held = await self.ledger.read(miner_records.all_known)
        groups = round_rules.groups(results, proved) if self.shares else []
        uids = {each.hotkey: each.uid for each in results}
        return round_rules.weights(held, uids, groups, self.block, frozenset())


class _Now:
    """The machine's clock for stamps of signatures, which the toy miners hold against nothing."""

    def now(self) -> float:
        import time

        return time.time()

    def monotonic(self) -> float:
        return trio.current_time()


@asynccontextmanager
async def over(miners: Sequence[Keeps], path: Path | None = None, **changed: Any) -> AsyncIterator[Bench]:
    ledger = open_inline(path)
    async with trio.open_nursery() as nursery:
        for miner in miners:
            await nursery.start(miner.run)
        bench = Bench(ledger, miners, **changed)
        yield bench
        await bench.http.aclose()
        nursery.cancel_scope.cancel()
    ledger.close()


def write_file(path: Path, entries: Sequence[Entry]) -> Path:
    """As the original's file has them, with other CIDs than ours."""
    lines = [{"text": each.text, "embedding": each.embedding, "cid": "v1::" + "0" * 64} for each in entries]
    path.write_text("\n".join(json.dumps(each) for each in lines))
    return path


def public_file(
    count: int = 40,
    dimension: int = DIMENSION,
    facts: Sequence[str] = ("A public fact number {} of the file that everyone has.",),
) -> list[Entry]:
    found = []
    for number in range(count):
        text = facts[number % len(facts)].format(number)
        vector = hash_vector(text, dimension)
        values = list(struct.unpack(f"<{dimension}f", vector))
        found.append(Entry(text=text, embedding=values, cid=cid_of(text, vector)))
    return found
