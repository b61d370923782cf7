"""One honest miner among those that cheat, over real rounds: their scores, and the weights that the chain has then."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from trio.testing import MockClock

from engram.chain.model import Axon
from engram.ledger import open_inline
from engram.validator import reports
from engram.validator.due import Due
from tests.chain.test_sender import VALIDATOR
from tests.validator.benches import NETUID, Bench, public_file, write_file
from tests.validator.networks import Network
from tests.validator.setters import RuledChain, Setter
from tests.validator.subnets import miner_key
from tests.validator.toy_miners import Drops, Keeps, KeepsHashes, Relays, ServesPublicFile

STORES, PUBLIC, DROPS, HASHES, RELAYS, LEGACY, IMPOSTOR = 7, 9, 11, 13, 15, 17, 19
ROUNDS = 6


class Legacy(Keeps):
    """Stores, and proves by the first form alone."""

    def proof(self, cid: str, vector: bytes, body: dict[str, Any]) -> Any:
        return {"embedding_hash": "00" * 32, "proof": "00" * 32}


def at(uid: int) -> dict[str, Any]:
    return {"keypair": miner_key(uid), "url": f"http://127.0.0.{uid}:{uid}"}


def axon(number: int | None) -> Axon | None:
    if number is None:
        return None
    return Axon(ip=f"127.0.0.{number}", port=number, version=1, protocol=4, block=1)


@pytest.mark.nightly
@pytest.mark.parametrize("share_scores", [True, False])
async def test_only_the_miner_that_stores_has_weight_on_the_chain(
    tmp_path: Path, autojump_clock: MockClock, share_scores: bool
) -> None:
    shared = public_file(40)
    honest, drops = Keeps(**at(STORES)), Drops(**at(DROPS))
    file_only = ServesPublicFile(**at(PUBLIC))
    file_only.records = {each.cid: each.vector_bytes for each in shared}
    miners = [
        honest,
        file_only,
        drops,
        KeepsHashes(**at(HASHES)),
        Relays(**at(RELAYS), other=honest),
        Legacy(**at(LEGACY)),
    ]
    addresses = {uid: uid for uid in (STORES, PUBLIC, DROPS, HASHES, RELAYS, LEGACY)} | {IMPOSTOR: STORES}
    ledger = open_inline()
    file = write_file(tmp_path / "truth.jsonl", shared)
    bench = Bench(
        ledger,
        miners,
        own=VALIDATOR,
        shared=shared,
        ground_truth=file,
        planted_rounds=12,
        share_scores=share_scores,
    )
    bench.client._http = Network(miners)  # type: ignore[assignment]
    setter = Setter(ledger, RuledChain(), tmp_path, share_scores=share_scores)
    best: dict[int, float] = {}
    for _ in range(ROUNDS):
        await setter.sync()
        graph = setter.subnets.get(NETUID)
        assert graph is not None
        neurons = [msgspec.structs.replace(each, axon=axon(addresses.get(each.uid))) for each in graph.neurons]
        graph = msgspec.structs.replace(graph, neurons=tuple(neurons))
        await bench.rounds.prepare(graph)
        bench.clock.advance(601.0)
        await bench.gardener.tend_once()
        drops.forget()
        await bench.rounds.hold(graph)
        for each in await ledger.read(lambda c: reports.scores(c, NETUID)):
            best[each.uid] = max(best.get(each.uid, 0.0), each.score or 0.0)
    assert best[STORES] >= 0.9, "it holds what is passed on to it and sent to it, too, and 64 dimensions are few"
    assert best[PUBLIC] <= 0.6
    assert best[HASHES] <= 0.3
    last = {each.uid: each for each in await ledger.read(lambda c: reports.scores(c, NETUID))}
    assert last[STORES].ema > 0.85
    dropped = last[DROPS].score
    assert dropped is not None
    assert dropped < 0.8
    assert {last[uid].proof_rate for uid in (RELAYS, LEGACY, IMPOSTOR)} == {0.0}
    for uid in (PUBLIC, DROPS, HASHES, RELAYS, LEGACY, IMPOSTOR):
        assert last[uid].slashed_until_block is not None, uid
    assert await setter.look() is Due.SET
    assert setter.weights() == {STORES: 65_535}
    ledger.close()
