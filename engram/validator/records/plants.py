"""Planted records, their matters and signers in the ledger. Functions run inside `ledger.write` or `ledger.read`."""

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, bindparam, case, delete, func, insert, select, update

from engram import wire
from engram.ledger import Prepared
from engram.ledger.sql import one_of
from engram.validator.corpus import Family
from engram.validator.model import (
    SEEDS,
    Plant,
    PlantState,
    RoundState,
)
from engram.validator.planting import Signing
from engram.validator.tables import (
    families,
    planted,
    round_miners,
    rounds,
    signers,
)

OVER: Final = (PlantState.DELETED, PlantState.REFUSED, PlantState.LOST)
LIVE: Final = tuple(state for state in PlantState if state not in OVER)
ENDED_ROUNDS: Final = 100
"""Rounds for which a record that is over is kept for `engram validator explain`."""
UNSURE_ROUNDS: Final = 5_000
"""Rounds for which one is kept, with its vector, that the miner may hold all the same: a month of the default's."""
_MAY_BE_THERE: Final = one_of(planted.c.state, LIVE) | planted.c.vector.is_not(None)
_WAITED_LONGEST: Final = 60
_LONGEST_WAIT_S: Final = 3_600
"""Deletions wait for the square of their attempts in seconds, an hour from the 60th on, which is after a day."""
UNSURE_MOST: Final = 200
"""Records of one miner that count as uncertain after their rounds, at most: twice what it is given to hold."""
DELETIONS: Final = 208
"""Attempts after which a deletion is given up: a week."""


_CIDS: Final = Prepared(
    select(planted.c.cid).where(planted.c.hotkey == bindparam("hotkey"), planted.c.cid.is_not(None))
)


def live_families(connection: Connection, hotkey: bytes, round_id: int) -> dict[int, Family]:
    """Return the matters about which records may still be planted at a miner, by id."""
    query = select(families).where(families.c.hotkey == hotkey, families.c.until_round > round_id)
    return {row["id"]: _family(row["matter"]) for row in connection.execute(query).mappings()}


def add_family(connection: Connection, hotkey: bytes, matter: Family, until_round: int) -> int:
    """Add a matter; returns its id."""
    text = msgspec.json.encode(matter).decode()
    made = connection.execute(insert(families).values(hotkey=hotkey, matter=text, until_round=until_round))
    return int(made.inserted_primary_key[0])  # type: ignore[index]  # an INSERT of one row has it


def add_signer(connection: Connection, hotkey: bytes, public_key: bytes, seed: bytes, plan: Signing, at: float) -> None:
    """Add a throw-away signer that only this miner sees."""
    connection.execute(
        insert(signers).values(
            public_key=public_key,
            seed=seed,
            hotkey=hotkey,
            records_left=plan.left,
            mean_gap_s=plan.mean_gap_s,
            created_at=at,
        )
    )


def signers_under_way(connection: Connection, hotkey: bytes) -> list[tuple[bytes, Signing]]:
    """Return the signers that still have records to leave at a miner, the oldest first."""
    query = (
        select(signers)
        .where(signers.c.hotkey == hotkey, signers.c.records_left > 0)
        .order_by(signers.c.created_at)
        .limit(32)
    )
    return [
        (row["public_key"], Signing(row["records_left"], row["mean_gap_s"]))
        for row in connection.execute(query).mappings()
    ]


def use_signer(connection: Connection, public_key: bytes, records: int) -> None:
    """Count records of a signer off those it has left."""
    left = case((signers.c.records_left > records, signers.c.records_left - records), else_=0)
    connection.execute(update(signers).where(signers.c.public_key == public_key).values(records_left=left))


def seed_of(connection: Connection, public_key: bytes) -> bytes | None:
    """Return the secret seed of a signer; None when it is not one of ours."""
    seed: bytes | None = connection.scalar(select(signers.c.seed).where(signers.c.public_key == public_key))
    return seed


def add_plants(connection: Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Add drafted records."""
    if rows:
        connection.execute(insert(planted), [dict(row) for row in rows])


def has_drafts(connection: Connection, hotkey: bytes, round_id: int) -> bool:
    """Return whether the records of a round were drafted for a miner."""
    query = select(planted.c.id).where(
        planted.c.hotkey == hotkey, planted.c.planted_round == round_id, planted.c.family_id != SEEDS
    )
    return connection.execute(query.limit(1)).first() is not None


def seeds_of(connection: Connection, hotkey: bytes) -> frozenset[str]:
    """Return the CIDs of the ground-truth file's records that were meant for a miner, whatever became of them."""
    query = select(planted.c.cid).where(planted.c.hotkey == hotkey, planted.c.family_id == SEEDS)
    return frozenset(connection.execute(query).scalars())


def texts(connection: Connection, hotkey: bytes) -> set[str]:
    """Return the texts of the records that are, or will be, at a miner."""
    query = select(planted.c.text).where(planted.c.hotkey == hotkey, _MAY_BE_THERE)
    return set(connection.execute(query).scalars())


def cids(connection: Connection, hotkey: bytes) -> frozenset[str]:
    """Return the CIDs of all that was planted at a miner, those of the ground-truth file among them."""
    return frozenset(cid for (cid,) in _CIDS.rows(connection, {"hotkey": hotkey}))


def plants(connection: Connection, hotkey: bytes, states: Iterable[PlantState]) -> list[Plant]:
    """Return the planted records of a miner in these states, oldest first."""
    query = select(planted).where(planted.c.hotkey == hotkey, one_of(planted.c.state, states)).order_by(planted.c.id)
    return [_plant(row) for row in connection.execute(query).mappings()]


def drafted(connection: Connection, limit: int) -> list[tuple[int, str]]:
    """Return ids and texts of records that have no vector yet, the first due first."""
    query = (
        select(planted.c.id, planted.c.text)
        .where(planted.c.state == str(PlantState.DRAFTED))
        .order_by(planted.c.plant_at)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in connection.execute(query)]


def due_plants(connection: Connection, now: float, limit: int, furthest_s: float) -> list[Plant]:
    """Return records that are to be sent now, at most `limit` of each miner; those `sending` were under way when the
    process ended.

    None is ever planned more than `furthest_s` ahead: one that seems to be was planned before the clock was set back.
    """
    is_due = (planted.c.plant_at <= now) | (planted.c.plant_at > now + furthest_s)
    unsent = one_of(planted.c.state, (PlantState.READY, PlantState.SENDING))
    return _first_of_each(connection, unsent & is_due, planted.c.plant_at, limit)


def outlived(connection: Connection, now: float, limit: int, round_s: float = inf) -> list[Plant]:
    """Return records that are to be deleted now, at most `limit` of each miner.

    Their rounds are over, or the miner may have stored what it was not known to have taken. What could not be deleted
    is due again after a time that grows with the attempts, to an hour. Each `round_s` since the newest round ended
    counts as another round.
    """
    held = one_of(planted.c.state, (PlantState.HELD, PlantState.DELETING))
    newest = _rounds_over(connection, now, round_s)
    is_unsure = one_of(planted.c.state, (PlantState.REFUSED,)) & planted.c.vector.is_not(None)
    chosen = (held & (planted.c.delete_round <= newest)) | (
        is_unsure & (planted.c.family_id != SEEDS) & (planted.c.attempts < DELETIONS)
    )
    tried = planted.c.attempts
    wait_s = case((tried >= _WAITED_LONGEST, _LONGEST_WAIT_S), else_=tried * tried)
    is_due = (planted.c.updated_at + wait_s <= now) | (planted.c.updated_at > now)
    return _first_of_each(connection, chosen & is_due, planted.c.id, limit)


def _rounds_over(connection: Connection, now: float, round_s: float) -> int:
    """Return the newest round that has ended, and those that would have by now."""
    ended = select(func.max(rounds.c.id), func.max(rounds.c.closed_at)).where(rounds.c.state != str(RoundState.OPEN))
    newest, closed_at = connection.execute(ended).one()
    since = connection.scalar(select(func.min(planted.c.plant_at))) if closed_at is None else closed_at
    return (newest or 0) + (0 if since is None else max(0, int((now - since) / round_s)))


def _first_of_each(
    connection: Connection, chosen: ColumnElement[bool], order: ColumnElement[Any], limit: int
) -> list[Plant]:
    """Return the first `limit` of each miner, so that the records of some do not keep others' from their turn."""
    place = func.row_number().over(partition_by=planted.c.hotkey, order_by=order).label("place")
    places = select(planted.c.id, place).where(chosen).subquery()
    query = select(planted).join(places, places.c.id == planted.c.id).where(places.c.place <= limit).order_by(order)
    return [_plant(row) for row in connection.execute(query).mappings()]


def count_planted(connection: Connection, hotkey: bytes | None = None) -> dict[str, int]:
    """Return how many records were planted, by state; those of one miner, or all."""
    query = select(planted.c.state, func.count()).group_by(planted.c.state)
    if hotkey is not None:
        query = query.where(planted.c.hotkey == hotkey)
    return {row[0]: row[1] for row in connection.execute(query)}


def fates(connection: Connection, hotkey: bytes, limit: int) -> list[dict[str, Any]]:
    """Return what became of a miner's newest planted records, newest first, by the names of reports.PlantRow."""
    query = (
        select(
            func.coalesce(planted.c.cid, "").label("cid"),
            planted.c.state,
            planted.c.planted_round,
            planted.c.delete_round,
            planted.c.plant_at.label("sent_at"),
            func.coalesce(planted.c.reason, "").label("reason"),
        )
        .where(planted.c.hotkey == hotkey)
        .order_by(planted.c.id.desc())
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def set_plant(
    connection: Connection,
    plant_id: int,
    leaves: Iterable[PlantState],
    state: PlantState,
    at: float,
    *,
    may_be_held: bool = False,
    **more: object,
) -> bool:
    """Move a planted record to `state`; False when it is in none of the states that it may leave.

    One that is over loses its vector, unless the miner may hold it all the same: then it counts as uncertain.
    """
    if state in OVER and not may_be_held:
        more["vector"] = None
    done = connection.execute(
        update(planted)
        .where(planted.c.id == plant_id, one_of(planted.c.state, leaves))
        .values(state=str(state), updated_at=at, **more)
    )
    return done.rowcount == 1


class Embedded(msgspec.Struct, frozen=True):
    """A drafted record's vector (f32 little-endian) and the CID that follows from it."""

    plant_id: int
    vector: bytes
    cid: str


def set_vectors(connection: Connection, made: Sequence[Embedded], at: float) -> None:
    """Move drafted records to `ready` with their vectors; those that are not drafted any more are left alone."""
    change = (
        update(planted)
        .where(planted.c.id == bindparam("plant_id"), planted.c.state == str(PlantState.DRAFTED))
        .values(state=str(PlantState.READY), updated_at=at, vector=bindparam("made_vector"), cid=bindparam("made_cid"))
    )
    rows = [{"plant_id": each.plant_id, "made_vector": each.vector, "made_cid": each.cid} for each in made]
    if rows:
        connection.execute(change, rows)


def purge(connection: Connection, round_id: int, planted_rounds: int) -> None:
    """Remove what is over: records that ended `ENDED_ROUNDS` ago, matters and signers that have no record left.

    A miner that deletes nothing does not make ever more of its records uncertain: the oldest count as gone.
    """
    unsure = (planted.c.state == str(PlantState.DELETING)) | (
        one_of(planted.c.state, (PlantState.LOST, PlantState.REFUSED)) & planted.c.vector.is_not(None)
    )
    place = func.row_number().over(partition_by=planted.c.hotkey, order_by=planted.c.id.desc()).label("place")
    places = select(planted.c.id, place).where(unsure).subquery()
    too_many = planted.c.id.in_(select(places.c.id).where(places.c.place > UNSURE_MOST))
    lost = case((planted.c.state == str(PlantState.DELETING), str(PlantState.LOST)), else_=planted.c.state)
    connection.execute(update(planted).where(too_many).values(state=lost, vector=None))
    ended = planted.c.vector.is_(None) & (planted.c.delete_round < round_id - ENDED_ROUNDS)
    forgotten = planted.c.delete_round < round_id - UNSURE_ROUNDS
    connection.execute(delete(planted).where(one_of(planted.c.state, OVER), ended | forgotten))
    connection.execute(delete(families).where(families.c.until_round < round_id - planted_rounds - ENDED_ROUNDS))
    begun = select(func.min(rounds.c.opened_at)).where(rounds.c.id >= round_id - planted_rounds).scalar_subquery()
    live = select(planted.c.id).where(
        planted.c.hotkey == signers.c.hotkey,
        _MAY_BE_THERE,
        planted.c.signer == signers.c.public_key,
    )
    there = select(round_miners.c.hotkey).where(round_miners.c.round_id == round_id)
    is_over = (signers.c.records_left <= 0) | signers.c.hotkey.not_in(there)
    connection.execute(delete(signers).where(is_over, signers.c.created_at < begun, ~live.exists()))


def _plant(row: RowMapping) -> Plant:
    return Plant(
        id=row["id"],
        hotkey=row["hotkey"],
        family_id=row["family_id"],
        signer=row["signer"],
        text=row["text"],
        vector=row["vector"] or b"",
        cid=row["cid"] or "",
        state=PlantState(row["state"]),
        plant_at=row["plant_at"],
        planted_round=row["planted_round"],
        delete_round=row["delete_round"],
        attempts=row["attempts"],
    )


def _family(matter: str) -> Family:
    return wire.decode(matter, Family)
