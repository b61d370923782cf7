"""kill -9 of a validator at its commits, around its requests and around its extrinsics, as a process.

After the restart: weights are on the chain at most once an epoch, no round is scored twice, no miner loses a score, and
whatever a miner holds is known to the ledger, so that it will be deleted.
"""

import signal
from pathlib import Path

import pytest
import trio

from engram.ledger import LEDGER_FILE, open_inline
from engram.validator.model import PlantState, RoundState
from engram.validator.records import plants as plant_records
from engram.validator.records import rounds as round_records
from engram.validator.records import standings as miner_records
from tests.fakes.chain import ChainServer
from tests.fakes.living_chain import NETUID
from tests.sampling import sample
from tests.validator.subnets import HashingSubnet, SmallSubnet, miner_key
from tests.validator.test_process import ValidatorProcess
from tests.validator.toy_miners import Keeps

COMMITS = 40
"""Of the first start, until weights have been set."""
EFFECTS = (
    "round:opened",
    "round:answered",
    "round:asked",
    "plant:before",
    "plant:after",
    "unplant:before",
    "unplant:after",
    "weights:before",
    "weights:after",
)
POINTS = [
    *EFFECTS,
    *(f"{moment}:{number}" for number in range(1, COMMITS + 1) for moment in ("begin", "commit")),
]
COMMITTED = [
    *(("timelocked", point) for point in ("weights:before", "weights:after")),
    *(("by hash", point) for point in ("weights:before", "weights:after", "reveal:before", "reveal:after")),
]
CASES = [
    *(("plain", point) for point in sample("validator-kills", POINTS, 1)),
    *sample("validator-kills-of-commits", COMMITTED, 0),
]
HONEST = 7
TEMPO = 10


async def seal_for_ever(chain: SmallSubnet) -> None:
    while True:
        await trio.sleep(1.5)
        chain.seal()


@pytest.mark.heavy
@pytest.mark.parametrize(("way", "point"), CASES)
async def test_a_validator_killed_anywhere_goes_on_as_if_it_had_not_been(tmp_path: Path, way: str, point: str) -> None:
    chain, miner = HashingSubnet() if way == "by hash" else SmallSubnet(), Keeps(miner_key(HONEST))
    if way == "timelocked":
        chain.commits_first()
    chain.seal_at_look = way != "by hash"
    server = ChainServer(chain)
    async with trio.open_nursery() as nursery:
        url = await nursery.start(server.run)
        await nursery.start(miner.run)
        if way == "by hash":  # a window for reveals must be open for longer than from one look to the next
            nursery.start_soon(seal_for_ever, chain)
        chain.announce({HONEST: int(miner.url.rpartition(":")[2])})
        validator = ValidatorProcess(tmp_path, url)
        text = validator.config.read_text().replace("round_s = 2.5", "round_s = 1.0")
        validator.config.write_text(text.replace("planted = 20", "planted = 8\nplanted_rounds = 3"))
        validator.start(ENGRAM_TEST_KILL="1", ENGRAM_KILL_AT=point)
        assert validator.process is not None
        try:
            with trio.fail_after(120):
                while validator.process.poll() is None:  # noqa: ASYNC110  # another process dies
                    await trio.sleep(0.1)
            assert validator.process.returncode == -9, validator.log.read_text()
            before = len(chain.set_at)
            validator.start()
            with trio.fail_after(120):
                while len(chain.set_at) < before + 1 or (way != "timelocked" and not chain.weights_of()):
                    await trio.sleep(0.1)
                    assert validator.process.poll() is None, validator.log.read_text()
            assert validator.end() == 0, validator.log.read_text()
        finally:
            validator.end(signal.SIGKILL)
        nursery.cancel_scope.cancel()
    epochs = [(block + NETUID + 1) // (TEMPO + 1) for block in chain.set_at]
    assert len(epochs) == len(set(epochs))
    assert set(chain.weights_of()) == (set() if way == "timelocked" else {HONEST})
    ledger = open_inline(tmp_path / "data" / LEDGER_FILE)
    rounds = await ledger.read(lambda c: round_records.some_rounds(c, NETUID, 1_000))
    assert {each.state for each in rounds[1:]} <= {RoundState.CLOSED}
    known = await ledger.read(lambda c: miner_records.known(c, miner_key(HONEST).public_key))
    assert known is not None
    assert known.standing.ema > 0.9
    asked = 0
    for each in rounds:
        results = await ledger.read(lambda c, r=each.id: round_records.results(c, r))  # type: ignore[misc]
        asked += each.state is RoundState.CLOSED and any(result.score is not None for result in results)
    assert known.standing.rounds == asked
    planted = await ledger.read(lambda c: plant_records.plants(c, miner_key(HONEST).public_key, tuple(PlantState)))
    assert set(miner.records) <= {plant.cid for plant in planted}
    ledger.close()
