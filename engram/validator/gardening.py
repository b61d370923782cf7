"""Plants at the miners: drafts records of a round, gives them vectors, and has them sent when each is due."""

from collections.abc import Collection, Sequence
from math import inf
from pathlib import Path
from typing import Final, final

import structlog
import trio
from sqlalchemy import Connection

from engram.hotkeys import Keypair
from engram.validator import corpus, planting
from engram.validator.garden import Garden
from engram.validator.ground_truth import Entry, read_file
from engram.validator.miner_client import cid_of
from engram.validator.model import NEVER, SEEDS, Known, Miner, PlantState
from engram.validator.planting import Habits
from engram.validator.records import plants as plant_records
from engram.validator.records import standings as miner_records
from engram.validator.standing import Standing
from engram.validator.tending import Tender

FAMILIES: Final = 3
"""Matters at once for each miner."""
FAMILY_ROUNDS: Final = 5
"""Rounds for which new records about a matter are planted."""
DRAFTED_AT_ONCE: Final = 8
"""Miners whose records are drafted in one transaction: about 80 ms of CPU, in which no other write is committed."""
EMBEDDED_AT_ONCE: Final = 4_096
"""Texts that one child of the workbench embeds: it reads the model anew each time."""
VECTORS_AT_ONCE: Final = 256
"""Vectors that are written in one transaction: 400 KB."""
SEND_TICK_S: Final = 0.5
SEEDED_A_ROUND: Final = 25
"""Records of the ground-truth file that a miner is given in one round."""

_log = structlog.get_logger("engram.validator")


@final
class Gardener:
    """Plants at the miners of the newest list that `draft` or `rest` was given."""

    def __init__(self, garden: Garden) -> None:
        self._garden = garden
        self._tender = Tender(garden)
        self._urls: dict[bytes, str] = {}
        self._registered: frozenset[bytes] = frozenset()
        self._seeds: list[Entry] | None = None
        self._habits = Habits()
        self._round_s = inf

    async def draft(self, miners: Sequence[Miner], round_id: int) -> None:
        """Draft the records of a round for every miner that may be asked and has none of this round yet.

        Raises EmbeddingFailed, GroundTruthInvalid.
        """
        self._meet(miners)
        self._round_s = inf
        if self._seeds is None and self._garden.ground_truth:
            self._seeds = await trio.to_thread.run_sync(read_file, Path(self._garden.ground_truth))
        able = [each for each in miners if each.url is not None]
        self._habits = Habits(lengths=await self._lengths(able))
        for start in range(0, len(able), DRAFTED_AT_ONCE):
            batch, at = able[start : start + DRAFTED_AT_ONCE], self._garden.clock.now()
            await self._garden.ledger.write(lambda c, b=batch, t=at: self._draft(c, b, round_id, t))  # type: ignore[misc]
        await self.embed()

    def rest(self, miners: Sequence[Miner]) -> None:
        """Take it that no rounds are held until the next draft: time stands in for them, so that records end."""
        self._meet(miners)
        self._round_s = self._garden.round_s

    def _meet(self, miners: Sequence[Miner]) -> None:
        self._urls = {each.hotkey: each.url for each in miners if each.url is not None}
        self._registered = frozenset(each.hotkey for each in miners)

    async def _lengths(self, miners: Sequence[Miner]) -> tuple[int, ...]:
        """Return the lengths of records to plant; miners of one coldkey have one say."""
        known = await self._garden.ledger.read(miner_records.all_known)
        operators: dict[bytes, list[tuple[int, ...]]] = {}
        for each in miners:
            if each.hotkey in known:
                operators.setdefault(each.coldkey, []).append(known[each.hotkey].lengths)
        return planting.common_lengths(list(operators.values()))

    def _draft(self, connection: Connection, miners: Sequence[Miner], round_id: int, at: float) -> None:
        for miner in miners:
            if miner_records.known(connection, miner.hotkey) is None:
                new = Known(hotkey=miner.hotkey, uid=miner.uid, standing=Standing())
                miner_records.keep(connection, [new], at)
            if not plant_records.has_drafts(connection, miner.hotkey, round_id):
                plant_records.add_plants(connection, self._planned(connection, miner, round_id, at))
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

    def _planned(self, connection: Connection, miner: Miner, round_id: int, at: float) -> list[dict[str, object]]:
        garden, rng = self._garden, self._garden.rng
        matters = plant_records.live_families(connection, miner.hotkey, round_id)
        while len(matters) < FAMILIES:
            matter, until = corpus.family(rng, garden.words), round_id + 1 + rng.randrange(1, 2 * FAMILY_ROUNDS)
            matters[plant_records.add_family(connection, miner.hotkey, matter, until)] = matter
        under_way = plant_records.signers_under_way(connection, miner.hotkey)
        plan = planting.plan(
            rng,
            most=garden.planted_a_round,
            families=len(matters),
            period_s=garden.round_s,
            under_way=[signing for _, signing in under_way],
            habits=self._habits,
            keep_most=garden.keep_rounds,
        )
        keys = [self._new_signer(connection, miner.hotkey, signing, at) for signing in plan.signers]
        ids, taken = list(matters), plant_records.texts(connection, miner.hotkey)
        rows: list[dict[str, object]] = []
        for each in plan.records:
            signer = keys[each.signer] if each.signer >= 0 else under_way[-1 - each.signer][0]
            plant_records.use_signer(connection, signer, 1)
            text = self._text(matters[ids[each.family]], each.length, taken)
            taken.add(text)
            rows.append(
                {
                    "hotkey": miner.hotkey,
                    "family_id": ids[each.family],
                    "signer": signer,
                    "text": text,
                    "state": str(PlantState.DRAFTED),
                    "plant_at": at + each.after_s,
                    "planted_round": round_id,
                    "delete_round": round_id + each.keep_rounds,
                    "updated_at": at,
                }
            )
        return rows

    def _text(self, matter: corpus.Family, length: int, taken: Collection[str]) -> str:
        """Draw a note that the miner does not hold yet: one text is one CID, and whoever deletes it deletes both."""
        while (text := corpus.note(self._garden.rng, matter, length, self._garden.words)) in taken:
            length += 1
        return text

    def _new_signer(self, connection: Connection, hotkey: bytes, signing: planting.Signing, at: float) -> bytes:
        seed = self._garden.seed()
        public_key = Keypair.from_seed(seed).public_key
        plant_records.add_signer(connection, hotkey, public_key, seed, signing, at)
        return public_key

    async def embed(self) -> None:
        """Give every draft its vector and CID. Raises EmbeddingFailed; drafts that are left are embedded next time."""
        garden = self._garden
        while drafts := await garden.ledger.read(lambda c: plant_records.drafted(c, EMBEDDED_AT_ONCE)):
            done = await garden.embeds([text for _, text in drafts], [])
            for start in range(0, len(drafts), VECTORS_AT_ONCE):
                await self._note_vectors(drafts[start:][:VECTORS_AT_ONCE], done.vectors[start:][:VECTORS_AT_ONCE])

    async def _note_vectors(self, drafts: Sequence[tuple[int, str]], vectors: Sequence[bytes]) -> None:
        made = [
            plant_records.Embedded(plant_id, vector, cid_of(text, vector))
            for (plant_id, text), vector in zip(drafts, vectors, strict=True)
        ]
        at = self._garden.clock.now()
        await self._garden.ledger.write(lambda c: plant_records.set_vectors(c, made, at))

    async def tend(self) -> None:
        """Send what is due and delete what has outlived its rounds, for ever."""
        while True:
            await self.tend_once()
            await trio.sleep(SEND_TICK_S)

    async def tend_once(self) -> None:
        """Send and delete what is due now."""
        await self._tender.tend(self._urls, self._registered, self._round_s)
