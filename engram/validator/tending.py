"""Sends planted records to their miners, and deletes them there when their rounds are over.

Every step is a fact first: a record is `sending` before it is sent and `deleting` before it is deleted, so that after a
crash it is sent (or deleted) again. Both may be repeated: a CID is what the record is, and deleting twice deletes once.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from math import inf
from typing import Any, Final, final

import trio
from sqlalchemy import Connection

from engram import kill_points
from engram.hotkeys import Keypair
from engram.validator.garden import Garden
from engram.validator.miner_client import MinerReply
from engram.validator.model import SEEDS, Outcome, Plant, PlantState
from engram.validator.planting import Signing
from engram.validator.records import admissions
from engram.validator.records import plants as plant_records
from engram.validator.records import standings as miner_records
from engram.validator.turns import Turns

ATTEMPTS: Final = 5
AT_ONCE: Final = 48
"""Records of one miner that are sent, or deleted, in one pass at most."""
TEND_S: Final = 15.0
"""Time of one miner in a pass: nothing more is begun after it."""
_UNSENT: Final = (PlantState.READY, PlantState.SENDING)
_STORED: Final = (PlantState.HELD, PlantState.DELETING, PlantState.REFUSED)
"""States of records that are deleted; a refused one that may have been stored stays refused."""
_ONE_RECORD: Final = Signing(left=0, mean_gap_s=1.0)
"""A signer that leaves nothing after the record it is made for."""
_UNSENT_REPLY: Final = MinerReply(outcome=Outcome.UNREACHABLE, detail="it did not answer", may_have_arrived=False)


@final
class Tender:
    """Tends to what is planted, one pass at a time."""

    def __init__(self, garden: Garden) -> None:
        self._garden = garden

    async def tend(self, urls: Mapping[bytes, str], registered: Collection[bytes], round_s: float = inf) -> None:
        """Send and delete what is due now, at the miners' `urls`; `registered` are the hotkeys of all miners.

        It takes no miner longer than TEND_S and the answer that is waited for then. Where no rounds are held, each
        `round_s` counts as one.
        """
        garden = self._garden
        now, furthest_s = garden.clock.now(), 2 * garden.round_s + 2.0 ** (ATTEMPTS + 1)
        due = await garden.ledger.read(lambda c: plant_records.due_plants(c, now, AT_ONCE, furthest_s))
        over = await garden.ledger.read(lambda c: plant_records.outlived(c, now, AT_ONCE, round_s))
        async with trio.open_nursery() as nursery:
            turns = Turns(nursery, garden.concurrency)
            for miner, plants in _by_miner(due).items():
                nursery.start_soon(self._plant, turns, urls.get(miner), plants)
            for miner, plants in _by_miner(over).items():
                if miner in registered:
                    nursery.start_soon(self._unplant, turns, urls.get(miner), plants)
                else:
                    nursery.start_soon(self._lose, plants)

    async def _plant(self, turns: Turns, url: str | None, plants: Sequence[Plant]) -> None:
        """Send the records of one miner. Where it does not answer, an attempt of the others counts as made, too.

        One by one, those of a miner that hangs would pile up for ever.
        """
        left = await self._each(turns, url, plants, self._send)
        at, silent = self._garden.clock.now(), _UNSENT_REPLY

        def write(connection: Connection) -> None:
            for plant in left:
                state, more = _after_sending(plant, silent, at)
                more.setdefault("attempts", plant.attempts + 1)
                plant_records.set_plant(connection, plant.id, _UNSENT, state, at, **more)

        if left:
            await self._garden.ledger.write(write)

    async def _unplant(self, turns: Turns, url: str | None, plants: Sequence[Plant]) -> None:
        """Delete the records of one miner. Where it does not answer, an attempt of the others counts as made, too."""
        left, at = await self._each(turns, url, plants, self._remove), self._garden.clock.now()

        def write(connection: Connection) -> None:
            for plant in left:
                self._begin_removal(connection, plant, at)

        if left:
            await self._garden.ledger.write(write)

    async def _lose(self, plants: Sequence[Plant]) -> None:
        """Give the records up that a miner held whose hotkey is no longer registered: it is asked nothing any more."""
        at = self._garden.clock.now()

        def write(connection: Connection) -> None:
            for plant in plants:
                state = PlantState.REFUSED if plant.state is PlantState.REFUSED else PlantState.LOST
                plant_records.set_plant(connection, plant.id, _STORED, state, at, reason="no longer registered")

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
        at = garden.clock.now()
        if url is None:
            unsure = plant.state is PlantState.SENDING
            await ledger.write(
                lambda c: plant_records.set_plant(
                    c, plant.id, _UNSENT, PlantState.LOST, at, may_be_held=unsure, reason="no address"
                )
            )
            return True
        signer = await ledger.write(lambda c: self._begin(c, plant, at))
        if signer is None:
            return True
        keypair = await self._keypair_of(signer)
        kill_points.point("plant:before")
        tried = await garden.client.ingest(url, keypair, plant.text, plant.vector)
        kill_points.point("plant:after")
        if tried.not_admitted and keypair is not garden.keypair:
            if not await self._note_refusal(plant, tried):
                return True
            refused, tried = tried.detail, await garden.client.ingest(url, garden.keypair, plant.text, plant.vector)
            await self._settle(plant, tried, reason=_not_admitted(refused))
        else:
            admitted = tried.outcome is Outcome.ANSWERED and keypair is not garden.keypair
            await self._settle(plant, tried, admitted=admitted)
        return tried.outcome is not Outcome.UNREACHABLE

    def _begin(self, connection: Connection, plant: Plant, at: float) -> bytes | None:
        """Commit to sending a record; returns its signer, None where another pass has sent it.

        A miner that admits registered keys alone is tried with one fresh key a round; the other records are the
        validator's own. One that is sent again keeps the signer under which it may have arrived.
        """
        signer, held = plant.signer, miner_records.known(connection, plant.hotkey)
        own = self._garden.keypair.public_key
        if plant.state is PlantState.READY and signer != own and held is not None and held.registered_only:
            signer = own
            if not admissions.was_refused(connection, plant.hotkey, plant.planted_round):
                seed = self._garden.seed()
                signer = Keypair.from_seed(seed).public_key
                plant_records.add_signer(connection, plant.hotkey, signer, seed, _ONE_RECORD, at)
        begun = plant_records.set_plant(
            connection,
            plant.id,
            _UNSENT,
            PlantState.SENDING,
            at,
            attempts=plant.attempts + 1,
            plant_at=at,
            signer=signer,
        )
        return signer if begun else None

    async def _note_refusal(self, plant: Plant, tried: MinerReply) -> bool:
        """Note that a record's signer was refused; returns whether the validator's own key is to send it instead."""
        own, at = self._garden.keypair.public_key, self._garden.clock.now()
        reason = _not_admitted(tried.detail)
        sending = (PlantState.SENDING,)

        def note(connection: Connection) -> bool:
            plant_records.set_plant(connection, plant.id, sending, PlantState.SENDING, at, reason=reason)
            if admissions.note_refusal(connection, plant.hotkey, plant.planted_round, own, at):
                return plant_records.set_plant(connection, plant.id, sending, PlantState.SENDING, at, signer=own)
            unsure = plant.state is PlantState.SENDING
            plant_records.set_plant(connection, plant.id, sending, PlantState.REFUSED, at, may_be_held=unsure)
            return False

        return await self._garden.ledger.write(note)

    async def _settle(
        self, plant: Plant, tried: MinerReply, *, admitted: bool = False, reason: str | None = None
    ) -> None:
        at = self._garden.clock.now()
        state, more = _after_sending(plant, tried, at)
        if reason is not None:
            more["reason"] = reason
        if state is PlantState.HELD and plant.family_id == SEEDS:
            more["vector"] = None  # the file has it

        def settle(connection: Connection) -> None:
            plant_records.set_plant(connection, plant.id, (PlantState.SENDING,), state, at, **more)
            if admitted:
                admissions.mark(connection, plant.hotkey, at, registered_only=False)

        await self._garden.ledger.write(settle)

    async def _remove(self, url: str | None, plant: Plant) -> bool:
        garden, ledger = self._garden, self._garden.ledger
        at = garden.clock.now()
        begun = await ledger.write(lambda c: self._begin_removal(c, plant, at))
        if not begun:
            return True
        if url is None:
            return False
        kill_points.point("unplant:before")
        tried = await garden.client.delete(url, await self._keypair_of(plant.signer), plant.cid)
        kill_points.point("unplant:after")
        state = PlantState.REFUSED if plant.state is PlantState.REFUSED else PlantState.DELETING
        if tried.outcome is Outcome.ANSWERED:
            over = PlantState.DELETED if state is PlantState.DELETING else PlantState.REFUSED
            await ledger.write(lambda c: plant_records.set_plant(c, plant.id, _STORED, over, at))
        else:
            why = _why_not_deleted(plant, tried)
            await ledger.write(
                lambda c: plant_records.set_plant(c, plant.id, _STORED, state, at, may_be_held=True, **why)
            )
        return tried.outcome is not Outcome.UNREACHABLE

    def _begin_removal(self, connection: Connection, plant: Plant, at: float) -> bool:
        """Commit to deleting a record, or to giving it up after so many attempts; returns whether it is to be deleted.

        A miner that comes back with what it held is asked as before, so what was given up may be held for all we know.
        """
        over = plant.attempts >= plant_records.DELETIONS
        state = PlantState.LOST if over else PlantState.DELETING
        if plant.state is PlantState.REFUSED:
            state = PlantState.REFUSED
        attempts = plant.attempts + 1
        begun = plant_records.set_plant(connection, plant.id, _STORED, state, at, may_be_held=True, attempts=attempts)
        return begun and not over

    async def _keypair_of(self, signer: bytes) -> Keypair:
        """Return the keypair of a throw-away signer; the validator's for any other key."""
        seed = await self._garden.ledger.read(lambda c: plant_records.seed_of(c, signer))
        return self._garden.keypair if seed is None else Keypair.from_seed(seed)


def _after_sending(plant: Plant, tried: MinerReply, at: float) -> tuple[PlantState, dict[str, Any]]:
    if tried.outcome is Outcome.ANSWERED:
        return PlantState.HELD, {"attempts": 0, "reason": None}
    # `sending` as long as it may have arrived: questions must not count on its being there, nor on its absence.
    unknown = plant.state is PlantState.SENDING or (
        tried.may_have_arrived and tried.outcome in (Outcome.UNREACHABLE, Outcome.MALFORMED)
    )
    untimely = tried.outcome is Outcome.UNTIMELY
    reason = f"{admissions.UNTIMELY}: {tried.detail}" if untimely else tried.detail
    if (untimely or tried.outcome is Outcome.UNREACHABLE) and plant.attempts + 1 < ATTEMPTS:
        again_at = at + 2.0 ** (plant.attempts + 1)
        return PlantState.SENDING if unknown else PlantState.READY, {"reason": reason, "plant_at": again_at}
    refused: dict[str, Any] = {"reason": reason, "may_be_held": unknown}
    return PlantState.REFUSED, refused | ({"attempts": 0} if unknown else {})


def _why_not_deleted(plant: Plant, tried: MinerReply) -> dict[str, Any]:
    if plant.state is PlantState.REFUSED and tried.not_admitted:
        return {}  # its signer was refused before, and why it is refused stays
    if tried.outcome in (Outcome.REFUSED, Outcome.MALFORMED):
        return {"reason": f"{admissions.NOT_DELETED}: {tried.detail[:160]}"}
    return {"reason": tried.detail[:200]}


def _not_admitted(detail: str) -> str:
    return f"{admissions.NOT_ADMITTED}: {detail}"


def _by_miner(plants: Sequence[Plant]) -> dict[bytes, list[Plant]]:
    found: dict[bytes, list[Plant]] = {}
    for plant in plants:
        found.setdefault(plant.hotkey, []).append(plant)
    return found
