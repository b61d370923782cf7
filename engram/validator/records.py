"""The validator's facts in the ledger. Functions run inside `ledger.write` or `ledger.read` and own no transaction."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, RowMapping, and_, delete, func, insert, select, update

from engram import wire
from engram.ledger.sql import one_of, upsert
from engram.validator.corpus import Family
from engram.validator.model import (
    Answer,
    Kind,
    Known,
    Look,
    Miner,
    Outcome,
    Plant,
    PlantState,
    Question,
    Result,
    Round,
    RoundState,
    Sent,
    SentState,
)
from engram.validator.planting import Signing
from engram.validator.standing import Standing
from engram.validator.tables import (
    families,
    looks,
    miners,
    planted,
    questions,
    round_miners,
    rounds,
    signers,
    weights_sent,
)

MAY_HAVE_ARRIVED: Final = (SentState.INTENT, SentState.SET, SentState.UNKNOWN)
"""States of weights that are on the chain, or may be."""


# ------------------------------------------------------------------------------------------------------------ miners


def known(connection: Connection, hotkey: bytes) -> Known | None:
    """Return what is kept of a miner."""
    row = connection.execute(select(miners).where(miners.c.hotkey == hotkey)).mappings().first()
    return None if row is None else _known(row)


def all_known(connection: Connection) -> dict[bytes, Known]:
    """Return what is kept of every miner, by hotkey."""
    return {row["hotkey"]: _known(row) for row in connection.execute(select(miners)).mappings()}


def keep(connection: Connection, each: Known, at: float) -> None:
    """Write what is kept of a miner."""
    standing = msgspec.structs.asdict(each.standing)
    values = {
        **standing,
        "hotkey": each.hotkey,
        "uid": each.uid,
        "registered_only": int(each.registered_only),
        "lengths": msgspec.json.encode(each.lengths).decode(),
        "updated_at": at,
    }
    written = upsert(miners).values(values)
    connection.execute(written.on_conflict_do_update(index_elements=["hotkey"], set_=values))


def mark_registered_only(connection: Connection, hotkey: bytes, at: float) -> None:
    """Note that a miner takes registered keys only: it gets its records by the validator's own key."""
    connection.execute(update(miners).where(miners.c.hotkey == hotkey).values(registered_only=1, updated_at=at))


def set_lengths(connection: Connection, hotkey: bytes, lengths: Sequence[int], at: float) -> None:
    """Keep the lengths of a miner's public texts."""
    text = msgspec.json.encode(list(lengths)).decode()
    connection.execute(update(miners).where(miners.c.hotkey == hotkey).values(lengths=text, updated_at=at))


def _known(row: RowMapping) -> Known:
    return Known(
        hotkey=row["hotkey"],
        uid=row["uid"],
        standing=Standing(
            ema=row["ema"],
            rounds=row["rounds"],
            reputation=row["reputation"],
            challenges=row["challenges"],
            proved=row["proved"],
            slashes=row["slashes"],
            slashed_until_block=row["slashed_until_block"],
        ),
        registered_only=bool(row["registered_only"]),
        lengths=tuple(wire.decode(row["lengths"], list[int])) if row["lengths"] else (),
    )


# ----------------------------------------------------------------------------------------------------------- planted


def live_families(connection: Connection, hotkey: bytes, round_id: int) -> dict[int, Family]:
    """Return the matters about which records may still be planted at a miner, by id."""
    query = select(families).where(families.c.hotkey == hotkey, families.c.until_round > round_id)
    return {row["id"]: _family(row["matter"]) for row in connection.execute(query).mappings()}


def families_of(connection: Connection, hotkey: bytes) -> dict[int, Family]:
    """Return all matters of a miner, by id."""
    query = select(families).where(families.c.hotkey == hotkey)
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
    left = func.max(0, signers.c.records_left - records)
    connection.execute(update(signers).where(signers.c.public_key == public_key).values(records_left=left))


def some_seeds(connection: Connection, hotkey: bytes) -> list[bytes]:
    """Return secret seeds of the newest signers of a miner, at most 16."""
    query = select(signers.c.seed).where(signers.c.hotkey == hotkey).order_by(signers.c.created_at.desc()).limit(16)
    return list(connection.execute(query).scalars())


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
    query = select(planted.c.id).where(planted.c.hotkey == hotkey, planted.c.planted_round == round_id).limit(1)
    return connection.execute(query).first() is not None


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


def due_plants(connection: Connection, now: float, limit: int) -> list[Plant]:
    """Return records that are to be sent now; those `sending` were under way when the process ended."""
    query = (
        select(planted)
        .where(one_of(planted.c.state, (PlantState.READY, PlantState.SENDING)), planted.c.plant_at <= now)
        .order_by(planted.c.plant_at)
        .limit(limit)
    )
    return [_plant(row) for row in connection.execute(query).mappings()]


def outlived(connection: Connection, limit: int) -> list[Plant]:
    """Return records that are to be deleted now: the rounds that they were planted for are over."""
    held = one_of(planted.c.state, (PlantState.HELD, PlantState.DELETING))
    newest = select(func.coalesce(func.max(rounds.c.id), 0)).where(rounds.c.state != str(RoundState.OPEN))
    query = (
        select(planted)
        .where(held, planted.c.delete_round <= newest.scalar_subquery())
        .order_by(planted.c.id)
        .limit(limit)
    )
    return [_plant(row) for row in connection.execute(query).mappings()]


def count_planted(connection: Connection, hotkey: bytes | None = None) -> dict[str, int]:
    """Return how many records were planted, by state; those of one miner, or all."""
    query = select(planted.c.state, func.count()).group_by(planted.c.state)
    if hotkey is not None:
        query = query.where(planted.c.hotkey == hotkey)
    return {row[0]: row[1] for row in connection.execute(query)}


def set_plant(
    connection: Connection, plant_id: int, leaves: Iterable[PlantState], state: PlantState, at: float, **more: object
) -> bool:
    """Move a planted record to `state`; False when it is in none of the states that it may leave."""
    done = connection.execute(
        update(planted)
        .where(planted.c.id == plant_id, one_of(planted.c.state, leaves))
        .values(state=str(state), updated_at=at, **more)
    )
    return done.rowcount == 1


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


# ------------------------------------------------------------------------------------------------------------ rounds


def open_round(
    connection: Connection,
    netuid: int,
    block: int,
    boot: str,
    at: float,
    found: Sequence[Miner],
    drawn: Sequence[Question],
) -> Round:
    """Begin a round with all that will be asked in it: after a crash it goes on with the same questions."""
    made = connection.execute(
        insert(rounds).values(netuid=netuid, block=block, state=str(RoundState.OPEN), boot=boot, opened_at=at)
    )
    round_id = int(made.inserted_primary_key[0])  # type: ignore[index]
    if found:
        connection.execute(
            insert(round_miners),
            [
                {
                    "round_id": round_id,
                    "hotkey": each.hotkey,
                    "uid": each.uid,
                    "coldkey": each.coldkey,
                    "url": each.url,
                    "reason": each.reason or None,
                    "done": int(each.url is None),
                }
                for each in found
            ],
        )
    if drawn:
        connection.execute(insert(questions), [_question_row(round_id, each) for each in drawn])
    return Round(id=round_id, netuid=netuid, block=block, state=RoundState.OPEN, boot=boot, opened_at=at)


def last_round(connection: Connection, netuid: int, state: RoundState | None = None) -> Round | None:
    """Return the newest round, or the newest in a state."""
    query = select(rounds).where(rounds.c.netuid == netuid)
    if state is not None:
        query = query.where(rounds.c.state == str(state))
    row = connection.execute(query.order_by(rounds.c.id.desc()).limit(1)).mappings().first()
    return None if row is None else _round(row)


def round_of(connection: Connection, round_id: int) -> Round | None:
    """Return a round by its id."""
    row = connection.execute(select(rounds).where(rounds.c.id == round_id)).mappings().first()
    return None if row is None else _round(row)


def closed_rounds(connection: Connection, netuid: int, boot: str) -> int:
    """Return how many whole rounds this start of the process has seen from beginning to end."""
    query = select(func.count()).where(
        rounds.c.netuid == netuid, rounds.c.boot == boot, rounds.c.state == str(RoundState.CLOSED)
    )
    return connection.scalar(query) or 0


def count_rounds(connection: Connection, netuid: int) -> int:
    """Return how many rounds are kept."""
    return connection.scalar(select(func.count()).where(rounds.c.netuid == netuid)) or 0


def hotkey_of(connection: Connection, netuid: int, uid: int) -> bytes | None:
    """Return the hotkey that held a uid in the newest round that has it."""
    query = (
        select(round_miners.c.hotkey)
        .join(rounds, rounds.c.id == round_miners.c.round_id)
        .where(rounds.c.netuid == netuid, round_miners.c.uid == uid)
        .order_by(round_miners.c.round_id.desc())
        .limit(1)
    )
    found: bytes | None = connection.scalar(query)
    return found


def some_rounds(connection: Connection, netuid: int, limit: int) -> list[Round]:
    """Return the newest rounds, newest first."""
    query = select(rounds).where(rounds.c.netuid == netuid).order_by(rounds.c.id.desc()).limit(limit)
    return [_round(row) for row in connection.execute(query).mappings()]


def to_ask(connection: Connection, round_id: int) -> list[Result]:
    """Return the miners of a round that have not been asked yet."""
    query = select(round_miners).where(round_miners.c.round_id == round_id, round_miners.c.done == 0)
    return [_result(row) for row in connection.execute(query).mappings()]


def refusing(connection: Connection, round_id: int) -> frozenset[bytes]:
    """Return the miners of a round that took none of the records that they were offered."""
    over, held = (PlantState.REFUSED,), (PlantState.HELD, PlantState.DELETING, PlantState.DELETED)
    of_round = select(round_miners.c.hotkey).where(round_miners.c.round_id == round_id)
    refused = select(planted.c.hotkey).where(one_of(planted.c.state, over), planted.c.hotkey.in_(of_round)).distinct()
    taken = select(planted.c.hotkey).where(one_of(planted.c.state, held)).distinct()
    return frozenset(connection.execute(refused.except_(taken)).scalars())


def results(connection: Connection, round_id: int) -> list[Result]:
    """Return the miners of a round, by uid."""
    query = select(round_miners).where(round_miners.c.round_id == round_id).order_by(round_miners.c.uid)
    return [_result(row) for row in connection.execute(query).mappings()]


def questions_of(connection: Connection, round_id: int, hotkey: bytes) -> list[Question]:
    """Return what a miner is asked in a round."""
    query = select(questions).where(questions.c.round_id == round_id, questions.c.hotkey == hotkey)
    return [_question(row) for row in connection.execute(query.order_by(questions.c.id)).mappings()]


def answers_of(connection: Connection, round_id: int) -> dict[bytes, list[tuple[Kind, Answer]]]:
    """Return what the questions of a round brought, by hotkey; a question never asked counts as late."""
    found: dict[bytes, list[tuple[Kind, Answer]]] = {}
    for row in connection.execute(select(questions).where(questions.c.round_id == round_id)).mappings():
        found.setdefault(row["hotkey"], []).append((Kind(row["kind"]), _answer(row)))
    return found


def questions_with_answers(connection: Connection, round_id: int, hotkey: bytes) -> list[tuple[Question, Answer]]:
    """Return each question of a round to one miner with what it brought."""
    query = select(questions).where(questions.c.round_id == round_id, questions.c.hotkey == hotkey)
    return [(_question(row), _answer(row)) for row in connection.execute(query.order_by(questions.c.id)).mappings()]


def answered(connection: Connection, round_id: int, hotkey: bytes, answers: Sequence[Answer]) -> bool:
    """Write what a miner answered, all of it at once; False when it was written before, which stands."""
    done = connection.execute(
        update(round_miners)
        .where(round_miners.c.round_id == round_id, round_miners.c.hotkey == hotkey, round_miners.c.done == 0)
        .values(done=1)
    )
    if done.rowcount != 1:
        return False
    for each in answers:
        connection.execute(
            update(questions)
            .where(questions.c.id == each.question_id)
            .values(
                outcome=str(each.outcome),
                recall=each.recall,
                proved=int(each.proved),
                latency_ms=each.latency_ms,
                detail=each.detail or None,
            )
        )
    return True


def close_round(
    connection: Connection,
    round_id: int,
    scored: Sequence[tuple[bytes, Mapping[str, Any]]],
    state: RoundState,
    at: float,
) -> bool:
    """End a round with the scores of its miners; False when it had ended already."""
    done = connection.execute(
        update(rounds)
        .where(rounds.c.id == round_id, rounds.c.state == str(RoundState.OPEN))
        .values(state=str(state), closed_at=at)
    )
    if done.rowcount != 1:
        return False
    for hotkey, values in scored:
        connection.execute(
            update(round_miners)
            .where(round_miners.c.round_id == round_id, round_miners.c.hotkey == hotkey)
            .values(**values, done=1)
        )
    return True


def purge(connection: Connection, netuid: int, keep_rounds: int) -> int:
    """Remove rounds but the newest `keep_rounds`, with their questions; and planted records that are over as long."""
    newest = last_round(connection, netuid)
    if newest is None:
        return 0
    before = newest.id - keep_rounds
    over = one_of(planted.c.state, (PlantState.DELETED, PlantState.REFUSED, PlantState.LOST))
    connection.execute(delete(planted).where(over, planted.c.delete_round < before))
    connection.execute(delete(questions).where(questions.c.round_id < before))
    connection.execute(delete(round_miners).where(round_miners.c.round_id < before))
    return connection.execute(delete(rounds).where(rounds.c.netuid == netuid, rounds.c.id < before)).rowcount


def _question_row(round_id: int, each: Question) -> dict[str, object]:
    return {
        "round_id": round_id,
        "hotkey": each.hotkey,
        "kind": str(each.kind),
        "family_id": each.family_id,
        "text": each.text,
        "vector": each.vector,
        "truth": msgspec.json.encode(each.truth).decode(),
        "planted": each.planted,
        "own_key": int(each.own_key),
    }


def _question(row: RowMapping) -> Question:
    return Question(
        id=row["id"],
        hotkey=row["hotkey"],
        kind=Kind(row["kind"]),
        family_id=row["family_id"],
        text=row["text"] or "",
        vector=row["vector"] or b"",
        truth=tuple(wire.decode(row["truth"], list[str])),
        planted=row["planted"],
        own_key=bool(row["own_key"]),
    )


def _answer(row: RowMapping) -> Answer:
    return Answer(
        question_id=row["id"],
        outcome=Outcome(row["outcome"]) if row["outcome"] else Outcome.LATE,
        recall=row["recall"] or 0.0,
        proved=bool(row["proved"]),
        latency_ms=row["latency_ms"],
        detail=row["detail"] or "",
    )


def _round(row: RowMapping) -> Round:
    return Round(
        id=row["id"],
        netuid=row["netuid"],
        block=row["block"],
        state=RoundState(row["state"]),
        boot=row["boot"],
        opened_at=row["opened_at"],
        closed_at=row["closed_at"],
    )


def _result(row: RowMapping) -> Result:
    return Result(
        hotkey=row["hotkey"],
        uid=row["uid"],
        coldkey=row["coldkey"],
        url=row["url"],
        reason=row["reason"],
        done=bool(row["done"]),
        recall=row["recall"],
        latency_ms=row["latency_ms"],
        proof_rate=row["proof_rate"],
        score=row["score"],
        shared_score=row["shared_score"],
        group_of=row["group_of"],
    )


# ----------------------------------------------------------------------------------------------------------- weights


def last_sent_epoch(connection: Connection, netuid: int, hotkey: bytes) -> int | None:
    """Return the newest epoch in which weights were sent, or may have been."""
    query = select(func.max(weights_sent.c.epoch)).where(
        weights_sent.c.netuid == netuid,
        weights_sent.c.hotkey == hotkey,
        one_of(weights_sent.c.state, MAY_HAVE_ARRIVED),
    )
    newest: int | None = connection.scalar(query)
    return newest


def intend_weights(connection: Connection, sent: Sent, hotkey: bytes) -> int | None:
    """Commit to sending weights; None when this epoch has had its weights already. `id` of `sent` is ignored."""
    last = last_sent_epoch(connection, sent.netuid, hotkey)
    if sent.state in MAY_HAVE_ARRIVED and last is not None and last >= sent.epoch:
        return None
    values = msgspec.structs.asdict(sent) | {
        "hotkey": hotkey,
        "weights": msgspec.json.encode({str(uid): weight for uid, weight in sent.weights.items()}).decode(),
        "state": str(sent.state),
    }
    values.pop("id")
    made = connection.execute(insert(weights_sent).values(values))
    return int(made.inserted_primary_key[0])  # type: ignore[index]


def settle_weights(connection: Connection, sent_id: int, state: SentState, reason: str | None) -> bool:
    """Write what became of weights; False unless they were intended, or their outcome unknown."""
    may_leave = one_of(weights_sent.c.state, (SentState.INTENT, SentState.UNKNOWN))
    done = connection.execute(
        update(weights_sent)
        .where(and_(weights_sent.c.id == sent_id, may_leave))
        .values(state=str(state), reason=reason)
    )
    return done.rowcount == 1


def sent_weights(connection: Connection, netuid: int, hotkey: bytes, limit: int = 20) -> list[Sent]:
    """Return the newest weights, newest first."""
    query = (
        select(weights_sent)
        .where(weights_sent.c.netuid == netuid, weights_sent.c.hotkey == hotkey)
        .order_by(weights_sent.c.id.desc())
        .limit(limit)
    )
    return [
        Sent(
            id=row["id"],
            netuid=row["netuid"],
            epoch=row["epoch"],
            block=row["block"],
            round_id=row["round_id"],
            weights={int(uid): value for uid, value in wire.decode(row["weights"], dict[str, float]).items()},
            state=SentState(row["state"]),
            reason=row["reason"],
            at=row["at"],
        )
        for row in connection.execute(query).mappings()
    ]


def keep_look(connection: Connection, look: Look, hotkey: bytes) -> None:
    """Write what the last look said, over the one before."""
    values = msgspec.structs.asdict(look) | {"hotkey": hotkey, "warnings": msgspec.json.encode(look.warnings).decode()}
    written = upsert(looks).values(values)
    connection.execute(written.on_conflict_do_update(index_elements=["netuid", "hotkey"], set_=values))


def own_hotkey(connection: Connection, netuid: int) -> bytes | None:
    """Return the hotkey of the validator that looked last; None before the first look."""
    query = select(looks.c.hotkey).where(looks.c.netuid == netuid).order_by(looks.c.at.desc()).limit(1)
    found: bytes | None = connection.scalar(query)
    return found


def last_look(connection: Connection, netuid: int, hotkey: bytes) -> Look | None:
    """Return what the last look said; None before the first."""
    query = select(looks).where(looks.c.netuid == netuid, looks.c.hotkey == hotkey)
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    return Look(
        netuid=row["netuid"],
        verdict=row["verdict"],
        detail=row["detail"],
        warnings=wire.decode(row["warnings"], list[str]),
        block=row["block"],
        uid=row["uid"],
        at=row["at"],
    )
