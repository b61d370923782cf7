"""kill -9 of a validator at its commits, around its requests and around its extrinsics, as a process.

After the restart: weights are on the chain at most once an epoch, no round is scored twice, no miner loses a score, and
whatever a miner holds is known to the ledger, so that it will be deleted.
"""

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
from tests.validator.subnets import SmallSubnet, miner_key
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
HONEST = 7
TEMPO = 10


@pytest.mark.heavy
@pytest.mark.parametrize("point", sample("validator-kills", POINTS, 1))
async def test_a_validator_killed_anywhere_goes_on_as_if_it_had_not_been(tmp_path: Path, point: str) -> None:
    chain, miner = SmallSubnet(), Keeps(miner_key(HONEST))
    chain.seal_at_look = True
    server = ChainServer(chain)
    async with trio.open_nursery() as nursery:
        url = await nursery.start(server.run)
        await nursery.start(miner.run)
        chain.announce({HONEST: int(miner.url.rpartition(":")[2])})
        validator = ValidatorProcess(tmp_path, url)
        text = validator.config.read_text().replace("round_s = 2.5", "round_s = 1.0")
        validator.config.write_text(text.replace("planted = 20", "planted = 8\nplanted_rounds = 3"))
        validator.start(ENGRAM_TEST_KILL="1", ENGRAM_KILL_AT=point)
        assert validator.process is not None
        with trio.fail_after(120):
            while validator.process.poll() is None:  # noqa: ASYNC110  # another process dies
                await trio.sleep(0.1)
        assert validator.process.returncode == -9, validator.log.read_text()
        before = len(chain.set_at)
        validator.start()
        with trio.fail_after(120):
            while len(chain.set_at) < before + 1:
                await trio.sleep(0.1)
                assert validator.process.poll() is None, validator.log.read_text()
        assert validator.end() == 0, validator.log.read_text()
        nursery.cancel_scope.cancel()
    epochs = [(block + NETUID + 1) // (TEMPO + 1) for block in chain.set_at]
    assert len(epochs) == len(set(epochs))
    assert set(chain.weights_of()) == {HONEST}
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
