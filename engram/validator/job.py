"""Holds rounds for ever: recover, prepare, wait, hold; with the gardener beside it."""

from random import Random
from typing import Final, final

import structlog
import trio

from actors import Context
from engram.chain.model import Metagraph
from engram.chain.sync.subnets import Subnets
from engram.validator.errors import EmbeddingFailed, GroundTruthInvalid
from engram.validator.gardening import Gardener
from engram.validator.rounds import Rounds

RETRY_S: Final = 30.0
FIRST_LOOK_S: Final = 1.0

_log = structlog.get_logger("engram.validator")


@final
class RoundsJob:
    """Scores while this validator is registered and permitted, or in a dry run; tends what is planted anyway."""

    def __init__(
        self,
        rounds: Rounds,
        gardener: Gardener,
        subnets: Subnets,
        *,
        netuid: int,
        hotkey: bytes,
        dry_run: bool,
        round_s: float,
        rng: Random,
    ) -> None:
        self._rounds = rounds
        self._gardener = gardener
        self._subnets = subnets
        self._netuid = netuid
        self._hotkey = hotkey
        self._dry_run = dry_run
        self._round_s = round_s
        self._rng = rng

    async def run(self, context: Context) -> None:
        """Run until cancelled."""
        await self._rounds.recover()
        context.ready()
        async with trio.open_nursery() as nursery:
            tending = False
            while True:
                metagraph = self._subnets.get(self._netuid)
                if metagraph is None:
                    await trio.sleep(FIRST_LOOK_S)
                    continue
                prepared = await self._prepared(metagraph)
                if not tending:  # not before it knows the miners: records of unknown ones would count as lost
                    nursery.start_soon(self._gardener.tend)
                    tending = True
                if not prepared:
                    await trio.sleep(RETRY_S)
                    continue
                await trio.sleep(self._round_s * self._rng.uniform(0.9, 1.1))
                await self._held()

    async def _prepared(self, metagraph: Metagraph) -> bool:
        neuron = metagraph.neuron(self._hotkey)
        if neuron is None or not (neuron.validator_permit or self._dry_run):
            await self._rounds.rest(metagraph)
            return False
        try:
            await self._rounds.prepare(metagraph)
        except (EmbeddingFailed, GroundTruthInvalid) as error:
            _log.error("not_prepared", reason=str(error))
            return False
        return True

    async def _held(self) -> None:
        metagraph = self._subnets.get(self._netuid)
        if metagraph is None:
            return
        try:
            done = await self._rounds.hold(metagraph)
        except EmbeddingFailed as error:
            _log.error("round_not_held", reason=str(error))
        else:
            _log.info("round_ended", round=done.id, block=done.block, state=str(done.state))
