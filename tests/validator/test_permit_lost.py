"""A validator that may score no more deletes what it has planted, as miners were promised, with time for rounds."""

from random import Random
from typing import cast

import msgspec
import pytest
import trio
from trio.testing import MockClock

from actors import Context
from engram.chain.model import Metagraph
from engram.chain.sync.subnets import Subnets
from engram.ledger import open_inline
from engram.validator.job import RoundsJob
from engram.validator.model import RoundState
from engram.validator.records import plants as plant_records
from engram.validator.records import rounds as round_records
from tests.validator.benches import NETUID, OWN, Bench, key
from tests.validator.networks import Network
from tests.validator.toy_miners import Keeps

ROUND_S = 600.0
PLANTED_ROUNDS = 3


class Ready:
    """Stands for the actor's context."""

    def ready(self) -> None:
        pass


def without(found: Metagraph, what: str) -> Metagraph:
    """The metagraph once the validator's permit, or its uid, is gone."""
    if what == "permit":
        bare = tuple(msgspec.structs.replace(each, validator_permit=False) for each in found.neurons)
        return msgspec.structs.replace(found, neurons=bare)
    return msgspec.structs.replace(
        found,
        neurons=tuple(each for each in found.neurons if each.hotkey != OWN.public_key),
        uid_by_hotkey={hotkey: uid for hotkey, uid in found.uid_by_hotkey.items() if hotkey != OWN.public_key},
    )


@pytest.mark.parametrize("what", ["permit", "registration"])
async def test_what_was_planted_is_deleted_when_the_permit_is_lost_over_a_restart(
    autojump_clock: MockClock, what: str
) -> None:
    ledger, miner = open_inline(), Keeps(key(1), url="http://127.0.0.1:1")
    first = Bench(ledger, [miner], planted_rounds=PLANTED_ROUNDS)
    first.client._http = Network([miner])  # type: ignore[assignment]
    for _ in range(3):
        await first.hold()
    await first.gardener.tend_once()
    held = len(miner.records)
    assert held
    second = Bench(ledger, [miner], planted_rounds=PLANTED_ROUNDS, boot="second")
    second.client._http = Network([miner])  # type: ignore[assignment]
    second.clock.advance(first.clock.now() - second.clock.now() + 60.0)
    subnets = Subnets(second.clock, (NETUID,), 60.0)
    subnets.publish(without(first.metagraph(), what), ())
    job = RoundsJob(
        second.rounds,
        second.gardener,
        subnets,
        netuid=NETUID,
        hotkey=OWN.public_key,
        dry_run=False,
        round_s=ROUND_S,
        rng=Random(1),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(job.run, cast(Context, Ready()))
        await trio.sleep(5.0)
        ended = await ledger.read(lambda c: round_records.last_round(c, NETUID))
        assert ended is not None
        assert len(miner.records) == held, "their time is not over yet"
        for _ in range(PLANTED_ROUNDS + 1):
            second.clock.advance(ROUND_S)
            await trio.sleep(5.0)
        assert miner.records == {}
        nursery.cancel_scope.cancel()
    assert set(await ledger.read(plant_records.count_planted)) <= {"deleted", "refused"}
    last = await ledger.read(lambda c: round_records.last_round(c, NETUID))
    assert last is not None
    assert (last.id, last.state) == (ended.id, RoundState.CLOSED), "no round is held"
    ledger.close()
