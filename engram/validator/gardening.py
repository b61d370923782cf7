"""Plants and removes records at the miners: drafts, vectors, sending when each is due, deletion when its time is over.

Every step is a fact first: a record is `sending` before it is sent and `deleting` before it is deleted, so that after a
crash it is sent (or deleted) again. Both may be repeated: a CID is what the record is, and deleting twice deletes once.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final, final

import msgspec
import structlog
import trio
from sqlalchemy import Connection

from engram import kill_points
from engram.clock import Clock
from engram.hotkeys import Keypair
from engram.ledger import Ledger
from engram.validator import corpus, planting
from engram.validator.ground_truth import Entry, read_file
from engram.validator.miner_client import MinerClient, MinerReply, cid_of
from engram.validator.model import NEVER, SEEDS, Known, Miner, Outcome, Plant, PlantState
from engram.validator.planting import Habits
from engram.validator.records import plants as plant_records
from engram.validator.records import standings as miner_records
from engram.validator.standing import Standing
from engram.validator.workbench import Done, Draft

FAMILIES: Final = 3
"""Matters at once for each miner."""
FAMILY_ROUNDS: Final = 5
"""Rounds for which new records about a matter are planted."""
ATTEMPTS: Final = 5
BATCH: Final = 32
SEND_TICK_S: Final = 0.5
SEEDED_A_ROUND: Final = 25
"""Records of the ground-truth file that a miner is given in one round."""

_log = structlog.get_logger("engram.validator")

Embeds = Callable[[Sequence[str], Sequence[Draft]], Awaitable[Done]]
"""Workbench, or what stands in for it. Raises EmbeddingFailed."""


class Garden(msgspec.Struct, frozen=True, kw_only=True):
    """What planting works with."""

    ledger: Ledger
    client: MinerClient
    keypair: Keypair
    """The validator's own."""
    clock: Clock
    rng: Random
    seed: Callable[[], bytes]
    """32 random bytes for a signer's key."""
    embeds: Embeds
    planted_a_round: int
    keep_rounds: int
    round_s: float
    concurrency: int
    ground_truth: str = ""
    """Path of the file whose records every miner is given; empty: none."""


@final
class Gardener:
    """Plants at the miners of the newest list that `tend` was given."""

    def __init__(self, garden: Garden) -> None:
        self._garden = garden
        self._urls: dict[bytes, str] = {}
        self._seeds: list[Entry] | None = None

    async def draft(self, miners: Sequence[Miner], round_id: int) -> None:
        """Draft the records of a round for every miner that may be asked and has none of this round yet.

        Raises EmbeddingFailed, GroundTruthInvalid.
        """
        if self._seeds is None and self._garden.ground_truth:
            self._seeds = await trio.to_thread.run_sync(read_file, Path(self._garden.ground_truth))
        self._urls = {each.hotkey: each.url for each in miners if each.url is not None}
        able = [each for each in miners if each.url is not None]
        for start in range(0, len(able), BATCH):
            batch, at = able[start : start + BATCH], self._garden.clock.now()
            await self._garden.ledger.write(lambda c, b=batch, t=at: self._draft(c, b, round_id, t))  # type: ignore[misc]
        await self.embed()

    def _draft(self, connection: Connection, miners: Sequence[Miner], round_id: int, at: float) -> None:
        for miner in miners:
            held = miner_records.known(connection, miner.hotkey)
            if held is None:
                held = Known(hotkey=miner.hotkey, uid=miner.uid, standing=Standing())
                miner_records.keep(connection, [held], at)
            if not plant_records.has_drafts(connection, miner.hotkey, round_id):
                plant_records.add_plants(connection, self._planned(connection, miner, held, round_id, at))
                plant_records.add_plants(connection, self._seeded(connection, miner, round_id, at))

    def _seeded(self, connection: Connection, miner: Miner, round_id: int, at: float) -> list[dict[str, object]]:
        """Return the next of the file's records that the miner was not given yet: at most SEEDED_A_ROUND."""
        had = plant_records.seeds_of(connection, miner.hotkey) if self._seeds else frozenset[str]()
        return [
            {
                "hotkey": miner.hotkey,
                "family_id": SEEDS,
                "signer": self._garden.keypair.public_key,
                "text": each.text,
                "vector": each.vector_bytes,
                "cid": each.cid,
                "state": str(PlantState.READY),
                "plant_at": at + self._garden.rng.uniform(0.0, self._garden.round_s),
                "planted_round": round_id,
                "delete_round": NEVER,
                "updated_at": at,
            }
            for each in [each for each in self._seeds or () if each.cid not in had][:SEEDED_A_ROUND]
        ]

    def _planned(
        self, connection: Connection, miner: Miner, held: Known, round_id: int, at: float
    ) -> list[dict[str, object]]:
        garden, rng = self._garden, self._garden.rng
        matters = plant_records.live_families(connection, miner.hotkey, round_id)
        while len(matters) < FAMILIES:
            matter, until = corpus.family(rng), round_id + 1 + rng.randrange(1, 2 * FAMILY_ROUNDS)
            matters[plant_records.add_family(connection, miner.hotkey, matter, until)] = matter
        under_way = plant_records.signers_under_way(connection, miner.hotkey)
        plan = planting.plan(
            rng,
            most=garden.planted_a_round,
            families=len(matters),
            period_s=garden.round_s,
            under_way=[signing for _, signing in under_way],
            habits=Habits(lengths=held.lengths or planting.LENGTHS),
            keep_most=garden.keep_rounds,
        )
        keys = [self._new_signer(connection, miner.hotkey, signing, at) for signing in plan.signers]
        ids = list(matters)
        rows: list[dict[str, object]] = []
        for each in plan.records:
            signer = keys[each.signer] if each.signer >= 0 else under_way[-1 - each.signer][0]
            plant_records.use_signer(connection, signer, 1)
            rows.append(
                {
                    "hotkey": miner.hotkey,
                    "family_id": ids[each.family],
                    "signer": signer,
                    "text": corpus.note(rng, matters[ids[each.family]], each.length),
                    "state": str(PlantState.DRAFTED),
                    "plant_at": at + each.after_s,
                    "planted_round": round_id,
                    "delete_round": round_id + each.keep_rounds,
                    "updated_at": at,
                }
            )
        return rows

    def _new_signer(self, connection: Connection, hotkey: bytes, signing: planting.Signing, at: float) -> bytes:
        seed = self._garden.seed()
        public_key = Keypair.from_seed(seed).public_key
        plant_records.add_signer(connection, hotkey, public_key, seed, signing, at)
        return public_key

    async def embed(self) -> None:
        """Give every draft its vector and CID. Raises EmbeddingFailed; drafts that are left are embedded next time."""
        garden = self._garden
        while drafts := await garden.ledger.read(lambda c: plant_records.drafted(c, 4_096)):
            done = await garden.embeds([text for _, text in drafts], [])
            made = [
                (each[0], vector, cid_of(each[1], vector)) for each, vector in zip(drafts, done.vectors, strict=True)
            ]
            at = garden.clock.now()

            def ready(connection: Connection, made: list[tuple[int, bytes, str]] = made, at: float = at) -> None:
                for plant_id, vector, cid in made:
                    plant_records.set_plant(
                        connection, plant_id, (PlantState.DRAFTED,), PlantState.READY, at, vector=vector, cid=cid
                    )

            await garden.ledger.write(ready)

    async def tend(self) -> None:
        """Send what is due and delete what has outlived its rounds, for ever."""
        while True:
            await self.tend_once()
            await trio.sleep(SEND_TICK_S)

    async def tend_once(self) -> None:
        """Send and delete what is due now."""
        garden = self._garden
        now, furthest_s = garden.clock.now(), 2 * garden.round_s + 2.0 ** (ATTEMPTS + 1)
        due = await garden.ledger.read(lambda c: plant_records.due_plants(c, now, 512, furthest_s))
        over = await garden.ledger.read(lambda c: plant_records.outlived(c, 512))
        room = trio.CapacityLimiter(garden.concurrency)
        async with trio.open_nursery() as nursery:
            for miner, plants in _by_miner(due).items():
                nursery.start_soon(self._each, room, miner, plants, self._send)
            for miner, plants in _by_miner(over).items():
                nursery.start_soon(self._each, room, miner, plants, self._remove)

    async def _each(
        self,
        room: trio.CapacityLimiter,
        miner: bytes,
        plants: Sequence[Plant],
        work: Callable[[str | None, Plant], Awaitable[bool]],
    ) -> None:
        """Work the records of one miner off, one after the other, until it does not answer."""
        async with room:
            for plant in plants:
                if not await work(self._urls.get(miner), plant):
                    return

    async def _send(self, url: str | None, plant: Plant) -> bool:
        garden, ledger = self._garden, self._garden.ledger
        if url is None:
            return False
        leaves = (PlantState.READY, PlantState.SENDING)
        at = garden.clock.now()
        begun = await ledger.write(
            lambda c: plant_records.set_plant(
                c, plant.id, leaves, PlantState.SENDING, at, attempts=plant.attempts + 1, plant_at=at
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
        state, more = _after_sending(plant, tried)
        if state is PlantState.HELD and plant.family_id == SEEDS:
            more["vector"] = None  # the file has it
        if state is PlantState.READY:
            more["plant_at"] = at + 2.0 ** (plant.attempts + 1)
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


def _after_sending(plant: Plant, tried: MinerReply) -> tuple[PlantState, dict[str, object]]:
    if tried.outcome is Outcome.ANSWERED:
        return PlantState.HELD, {"attempts": 0, "reason": None}
    if tried.outcome is Outcome.UNREACHABLE and plant.attempts + 1 < ATTEMPTS:
        return PlantState.READY, {"reason": tried.detail}
    return PlantState.REFUSED, {"reason": tried.detail}


def _by_miner(plants: Sequence[Plant]) -> dict[bytes, list[Plant]]:
    found: dict[bytes, list[Plant]] = {}
    for plant in plants:
        found.setdefault(plant.hotkey, []).append(plant)
    return found
