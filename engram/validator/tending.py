"""Sends planted records to their miners, and deletes them there when their rounds are over.

Every step is a fact first: a record is `sending` before it is sent and `deleting` before it is deleted, so that after a
crash it is sent (or deleted) again. Both may be repeated: a CID is what the record is, and deleting twice deletes once.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, final

import trio
from sqlalchemy import Connection

from engram import kill_points
from engram.hotkeys import Keypair
from engram.validator.garden import Garden
from engram.validator.miner_client import MinerReply
from engram.validator.model import SEEDS, Known, Outcome, Plant, PlantState
from engram.validator.records import plants as plant_records
from engram.validator.records import standings as miner_records
from engram.validator.turns import Turns

ATTEMPTS: Final = 5
AT_ONCE: Final = 48
"""Records of one miner that are sent, or deleted, in one pass at most."""
TEND_S: Final = 15.0
"""Time of one miner in a pass: nothing more is begun after it."""
_UNSENT: Final = (PlantState.READY, PlantState.SENDING)


@final
class Tender:
    """Tends to what is planted, one pass at a time."""

    def __init__(self, garden: Garden) -> None:
        self._garden = garden

    async def tend(self, urls: Mapping[bytes, str]) -> None:
        """Send and delete what is due now, at the miners' `urls`.

        It takes no miner longer than TEND_S and the answer that is waited for then.
        """
        garden = self._garden
        now, furthest_s = garden.clock.now(), 2 * garden.round_s + 2.0 ** (ATTEMPTS + 1)
        due = await garden.ledger.read(lambda c: plant_records.due_plants(c, now, AT_ONCE, furthest_s))
        over = await garden.ledger.read(lambda c: plant_records.outlived(c, AT_ONCE))
        async with trio.open_nursery() as nursery:
            turns = Turns(nursery, garden.concurrency)
            for miner, plants in _by_miner(due).items():
                nursery.start_soon(self._plant, turns, urls.get(miner), plants)
            for miner, plants in _by_miner(over).items():
                nursery.start_soon(self._each, turns, urls.get(miner), plants, self._remove)

    async def _plant(self, turns: Turns, url: str | None, plants: Sequence[Plant]) -> None:
        """Send the records of one miner. Where it does not answer, an attempt of the others counts as made, too.

        One by one, those of a miner that hangs would pile up for ever.
        """
        left = await self._each(turns, url, plants, self._send)
        at, silent = self._garden.clock.now(), MinerReply(outcome=Outcome.UNREACHABLE, detail="it did not answer")

        def write(connection: Connection) -> None:
            for plant in left:
                state, more = _after_sending(plant, silent, at)
                attempts = plant.attempts + 1
                plant_records.set_plant(connection, plant.id, _UNSENT, state, at, attempts=attempts, **more)

        if left:
            await self._garden.ledger.write(write)

    async def _each(
        self,
        turns: Turns,
        url: str | None,
        plants: Sequence[Plant],
        work: Callable[[str | None, Plant], Awaitable[bool]],
    ) -> Sequence[Plant]:
        """Work the records of one miner off, one after the other; returns what is left where it does not answer."""
        async with turns.turn():
            until = trio.current_time() + TEND_S
            for index, plant in enumerate(plants):
                if trio.current_time() >= until:
                    break
                if not await work(url, plant):
                    return plants[index + 1 :]
        return ()

    async def _send(self, url: str | None, plant: Plant) -> bool:
        garden, ledger = self._garden, self._garden.ledger
        if url is None:
            at = garden.clock.now()
            await ledger.write(
                lambda c: plant_records.set_plant(c, plant.id, _UNSENT, PlantState.LOST, at, reason="no address")
            )
            return True
        at = garden.clock.now()
        begun = await ledger.write(
            lambda c: plant_records.set_plant(
                c, plant.id, _UNSENT, PlantState.SENDING, at, attempts=plant.attempts + 1, plant_at=at
            )
        )
        if not begun:
            return True
        signer = await self._signer_for(plant)
        kill_points.point("plant:before")
        tried = await garden.client.ingest(url, signer, plant.text, plant.vector)
        kill_points.point("plant:after")
        if tried.not_admitted and signer is not garden.keypair:
            now = garden.clock.now()
            await ledger.write(lambda c: miner_records.mark_registered_only(c, plant.hotkey, now))
            tried = await garden.client.ingest(url, garden.keypair, plant.text, plant.vector)
        await self._settle(plant, tried)
        return tried.outcome is not Outcome.UNREACHABLE

    async def _settle(self, plant: Plant, tried: MinerReply) -> None:
        at = self._garden.clock.now()
        state, more = _after_sending(plant, tried, at)
        if state is PlantState.HELD and plant.family_id == SEEDS:
            more["vector"] = None  # the file has it
        await self._garden.ledger.write(
            lambda c: plant_records.set_plant(c, plant.id, (PlantState.SENDING,), state, at, **more)
        )

    async def _remove(self, url: str | None, plant: Plant) -> bool:
        garden, ledger = self._garden, self._garden.ledger
        at = garden.clock.now()
        held = (PlantState.HELD, PlantState.DELETING)
        if url is None or plant.attempts > 2 * ATTEMPTS:
            await ledger.write(
                lambda c: plant_records.set_plant(c, plant.id, held, PlantState.LOST, at, reason="unreachable")
            )
            return True
        begun = await ledger.write(
            lambda c: plant_records.set_plant(c, plant.id, held, PlantState.DELETING, at, attempts=plant.attempts + 1)
        )
        if not begun:
            return True
        kill_points.point("unplant:before")
        tried = await garden.client.delete(url, await self._signer_for(plant), plant.cid)
        kill_points.point("unplant:after")
        if tried.outcome is Outcome.ANSWERED:
            await ledger.write(lambda c: plant_records.set_plant(c, plant.id, held, PlantState.DELETED, at))
        elif tried.outcome is Outcome.REFUSED:
            await ledger.write(
                lambda c: plant_records.set_plant(c, plant.id, held, PlantState.LOST, at, reason=tried.detail[:200])
            )
        return tried.outcome is not Outcome.UNREACHABLE

    async def _signer_for(self, plant: Plant) -> Keypair:
        """Return the record's own signer; the validator's key where the miner admits registered keys only."""

        def look(connection: Connection) -> tuple[bytes | None, Known | None]:
            return plant_records.seed_of(connection, plant.signer), miner_records.known(connection, plant.hotkey)

        seed, held = await self._garden.ledger.read(look)
        if seed is None or (held is not None and held.registered_only):
            return self._garden.keypair
        return Keypair.from_seed(seed)


def _after_sending(plant: Plant, tried: MinerReply, at: float) -> tuple[PlantState, dict[str, Any]]:
    if tried.outcome is Outcome.ANSWERED:
        return PlantState.HELD, {"attempts": 0, "reason": None}
    if tried.outcome is Outcome.UNREACHABLE and plant.attempts + 1 < ATTEMPTS:
        return PlantState.READY, {"reason": tried.detail, "plant_at": at + 2.0 ** (plant.attempts + 1)}
    return PlantState.REFUSED, {"reason": tried.detail}


def _by_miner(plants: Sequence[Plant]) -> dict[bytes, list[Plant]]:
    found: dict[bytes, list[Plant]] = {}
    for plant in plants:
        found.setdefault(plant.hotkey, []).append(plant)
    return found
