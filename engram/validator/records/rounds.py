"""Rounds, their questions and results in the ledger. Functions run inside `ledger.write` or `ledger.read`."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, bindparam, func, insert, select, update

from engram.ledger import Prepared
from engram.ledger.sql import one_of
from engram.validator.model import (
    SEEDS,
    Answer,
    Miner,
    Offers,
    Outcome,
    PlantState,
    Question,
    Result,
    Round,
    RoundState,
)
from engram.validator.records import admissions, asking
from engram.validator.tables import (
    miners,
    planted,
    questions,
    round_miners,
    rounds,
)

SCORES: Final = ("recall", "latency_ms", "proof_rate", "score", "shared_score", "group_of")
"""Columns of a miner's result that are written when its round ends."""
OFFER_ROUNDS: Final = 3
"""Rounds over which it is counted what a miner takes and refuses."""
_MAY_BE_UNDELETED: Final = (PlantState.DELETING, PlantState.REFUSED, PlantState.LOST)
UNDELETED_ATTEMPTS: Final = 3
"""Deletions of one record that a miner answers with anything else before it counts as refused."""
SHARED_ROUNDS: Final = 12
"""Newest rounds in which a miner that has proved at an address is held to be there."""
_SCORE: Final = Prepared(
    update(round_miners)
    .where(round_miners.c.round_id == bindparam("of_round"), round_miners.c.hotkey == bindparam("of_hotkey"))
    .values({name: bindparam(name) for name in (*SCORES, "done")})
)


def open_round(
    connection: Connection,
    netuid: int,
    block: int,
    block_hash: bytes,
    boot: str,
    at: float,
    found: Sequence[Miner],
    drawn: Sequence[Question],
) -> Round:
    """Begin a round with all that will be asked in it: after a crash it goes on with the same questions."""
    made = connection.execute(
        insert(rounds).values(
            netuid=netuid, block=block, block_hash=block_hash, state=str(RoundState.OPEN), boot=boot, opened_at=at
        )
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
    asking.put_questions(connection, round_id, drawn)
    return Round(
        id=round_id, netuid=netuid, block=block, block_hash=block_hash, state=RoundState.OPEN, boot=boot, opened_at=at
    )


def last_round(connection: Connection, netuid: int, state: RoundState | None = None) -> Round | None:
    """Return the newest round, or the newest in a state."""
    query = select(rounds).where(rounds.c.netuid == netuid)
    if state is not None:
        query = query.where(rounds.c.state == str(state))
    row = connection.execute(query.order_by(rounds.c.id.desc()).limit(1)).mappings().first()
    return None if row is None else _round(row)


def abandoned(connection: Connection, netuid: int, before: int, newest: int) -> int:
    """Return how many of the `newest` rounds before a round were abandoned."""
    ids = select(rounds.c.state).where(rounds.c.netuid == netuid, rounds.c.id < before)
    states = connection.execute(ids.order_by(rounds.c.id.desc()).limit(newest)).scalars()
    return sum(state == str(RoundState.ABANDONED) for state in states)


def closed_near(connection: Connection, netuid: int, block: int, blocks: int, limit: int) -> list[Round]:
    """Return the closed rounds of at most `blocks` blocks before or after a block: the newest `limit` of them."""
    near = (
        select(rounds)
        .where(
            rounds.c.netuid == netuid,
            rounds.c.state == str(RoundState.CLOSED),
            rounds.c.block.between(block - blocks, block + blocks),
        )
        .order_by(rounds.c.id.desc())
        .limit(limit)
    )
    return [_round(row) for row in connection.execute(near).mappings()]


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


def offers(connection: Connection, round_id: int) -> dict[bytes, Offers]:
    """Return what became of the records that were planted for a round and the OFFER_ROUNDS - 1 before it, by miner.

    Rounds in which no miner answered say nothing; nor do public records, which a miner can have without storing ours;
    nor keys that a miner without a score refuses, which may admit the validator's alone. Those that were refused for
    their time are told apart.
    """
    unknown, reason = select(miners.c.hotkey).where(miners.c.rounds == 0), func.coalesce(planted.c.reason, "")
    is_unclear = planted.c.hotkey.in_(unknown) & reason.startswith(admissions.NOT_ADMITTED)
    is_untimely = reason.startswith(admissions.UNTIMELY)
    void = select(rounds.c.id).where(rounds.c.state == str(RoundState.ABANDONED))
    newest = planted.c.planted_round.between(round_id - OFFER_ROUNDS + 1, round_id)
    is_new = newest & planted.c.planted_round.not_in(void)
    may_be_there = one_of(planted.c.state, _MAY_BE_UNDELETED) & planted.c.vector.is_not(None)
    is_undeleted = may_be_there & (planted.c.attempts >= UNDELETED_ATTEMPTS) & reason.startswith(admissions.NOT_DELETED)
    is_refused = is_new & one_of(planted.c.state, (PlantState.REFUSED,))
    taken = one_of(planted.c.state, (PlantState.HELD, PlantState.DELETING, PlantState.DELETED))
    query = (
        select(
            planted.c.hotkey,
            func.count().filter(is_refused, ~is_unclear, ~is_untimely),
            func.count().filter(is_new, taken),
            func.count().filter(is_refused, is_untimely),
            func.count().filter(is_undeleted, ~is_refused),
        )
        .where(
            planted.c.hotkey.in_(select(round_miners.c.hotkey).where(round_miners.c.round_id == round_id)),
            planted.c.family_id != SEEDS,
            is_new | is_undeleted,
        )
        .group_by(planted.c.hotkey)
    )
    return {hotkey: Offers(*counts) for hotkey, *counts in connection.execute(query)}


def unasked(connection: Connection, netuid: int, round_id: int, count: int) -> set[bytes]:
    """Return the miners that nothing could be asked in a round and in the `count` - 1 whole rounds before it.

    Those that were to be asked and were not, as our own deadline came before, are none of them; nor are those that
    came later.
    """
    whole = select(rounds.c.id).where(
        rounds.c.netuid == netuid, rounds.c.state == str(RoundState.CLOSED), rounds.c.id < round_id
    )
    since = list(connection.execute(whole.order_by(rounds.c.id.desc()).limit(count - 1)).scalars())
    if len(since) < count - 1:
        return set()
    questioned = select(questions.c.hotkey).where(questions.c.round_id >= since[-1])
    then = select(round_miners.c.hotkey).where(round_miners.c.round_id == since[-1])
    query = select(round_miners.c.hotkey).where(
        round_miners.c.round_id == round_id,
        round_miners.c.url.is_not(None),
        round_miners.c.hotkey.in_(then),
        round_miners.c.hotkey.not_in(questioned),
    )
    return set(connection.execute(query).scalars())


def results(connection: Connection, round_id: int) -> list[Result]:
    """Return the miners of a round, by uid."""
    query = select(round_miners).where(round_miners.c.round_id == round_id).order_by(round_miners.c.uid)
    return [_result(row) for row in connection.execute(query).mappings()]


def proved_at(connection: Connection, round_id: int) -> set[tuple[bytes, str]]:
    """Return where each miner has met a challenge, by the rounds that share an address: a hotkey with each URL.

    In more than one round, so that a miner cannot leave its group by failing to prove in the round that counts.
    """
    answered = select(questions.c.id).where(
        questions.c.round_id == round_miners.c.round_id,
        questions.c.hotkey == round_miners.c.hotkey,
        questions.c.proved == 1,
    )
    query = select(round_miners.c.hotkey, round_miners.c.url).where(
        round_miners.c.round_id.between(round_id - SHARED_ROUNDS + 1, round_id),
        round_miners.c.url.is_not(None),
        (round_miners.c.proof_rate > 0) | ((round_miners.c.round_id == round_id) & answered.exists()),
    )
    return {(hotkey, url) for hotkey, url in connection.execute(query)}


def questions_with_answers(connection: Connection, round_id: int, hotkey: bytes) -> list[tuple[Question, Answer]]:
    """Return each question of a round to one miner with what it brought."""
    query = select(questions).where(questions.c.round_id == round_id, questions.c.hotkey == hotkey)
    return [
        (asking.question([row[column] for column in asking.COLUMNS]), _answer(row))
        for row in connection.execute(query.order_by(questions.c.id)).mappings()
    ]


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
    _SCORE.apply_each(
        connection, [{**values, "done": 1, "of_round": round_id, "of_hotkey": hotkey} for hotkey, values in scored]
    )
    asking.forget_vectors(connection, round_id)
    return True


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
        block_hash=row["block_hash"],
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
