"""What is asked in a round and what it brought, in the ledger: the statements that run for every miner of a round.

Functions run inside `ledger.write` or `ledger.read`.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, update

from engram import wire
from engram.ledger import Prepared
from engram.ledger.sql import one_of
from engram.validator.corpus import Family
from engram.validator.model import SEEDS, Answer, Held, Holding, Kind, Outcome, PlantState, Question, Sheet
from engram.validator.tables import families, miners, planted, questions, round_miners, signers

_SIGNERS: Final = 16
"""Signers of a miner that its queries are drawn from: the newest."""

_RECORD: Final = (planted.c.cid, planted.c.vector, planted.c.family_id, planted.c.planted_round)
_HELD: Final = Prepared(
    select(*_RECORD)
    .where(
        planted.c.hotkey == bindparam("hotkey"),
        one_of(planted.c.state, (PlantState.HELD,)),
        planted.c.family_id != bindparam("seeds"),
        planted.c.delete_round >= bindparam("round_id"),
    )
    .order_by(planted.c.id)
)
_UNCERTAIN: Final = Prepared(
    select(*_RECORD).where(
        planted.c.hotkey == bindparam("hotkey"),
        one_of(planted.c.state, (PlantState.SENDING, PlantState.DELETING))
        | (one_of(planted.c.state, (PlantState.LOST, PlantState.REFUSED)) & planted.c.vector.is_not(None))
        | (one_of(planted.c.state, (PlantState.HELD,)) & (planted.c.delete_round < bindparam("round_id")))
        | (
            one_of(planted.c.state, (PlantState.READY,))
            & (planted.c.attempts == bindparam("attempts"))
            & (planted.c.plant_at < bindparam("until"))
        ),
    )
)
_SEEDED: Final = Prepared(
    select(planted.c.cid).where(
        planted.c.hotkey == bindparam("hotkey"),
        one_of(planted.c.state, (PlantState.HELD,)),
        planted.c.family_id == bindparam("seeds"),
    )
)
_MATTERS: Final = Prepared(select(families.c.id, families.c.matter).where(families.c.hotkey == bindparam("hotkey")))
_SEEDS: Final = Prepared(
    select(signers.c.seed)
    .where(signers.c.hotkey == bindparam("hotkey"))
    .order_by(signers.c.created_at.desc())
    .limit(bindparam("most"))
    .offset(bindparam("skipped"))
)
_REGISTERED_ONLY: Final = Prepared(select(miners.c.registered_only).where(miners.c.hotkey == bindparam("hotkey")))
_OPEN: Final = Prepared(
    select(round_miners.c.hotkey, round_miners.c.url).where(
        round_miners.c.round_id == bindparam("round_id"),
        round_miners.c.done == bindparam("done"),
        round_miners.c.url.is_not(None),
    )
)
COLUMNS: Final = (
    questions.c.id,
    questions.c.hotkey,
    questions.c.kind,
    questions.c.family_id,
    questions.c.text,
    questions.c.vector,
    questions.c.truth,
    questions.c.planted,
    questions.c.own_key,
)
_QUESTIONS: Final = Prepared(
    select(*COLUMNS).where(questions.c.round_id == bindparam("round_id")).order_by(questions.c.id)
)
_PUT: Final = Prepared(
    insert(questions),
    ["round_id", "hotkey", "kind", "family_id", "text", "vector", "truth", "planted", "own_key"],
)
_DONE: Final = Prepared(
    update(round_miners)
    .where(
        round_miners.c.round_id == bindparam("of_round"),
        round_miners.c.hotkey == bindparam("of_hotkey"),
        round_miners.c.done == bindparam("was_done"),
    )
    .values(done=bindparam("done"))
)
_ANSWER: Final = Prepared(
    update(questions)
    .where(questions.c.id == bindparam("question_id"))
    .values({name: bindparam(name) for name in ("outcome", "recall", "proved", "latency_ms", "detail")})
)
_ANSWERS: Final = Prepared(
    select(
        questions.c.id,
        questions.c.hotkey,
        questions.c.kind,
        questions.c.outcome,
        questions.c.recall,
        questions.c.proved,
        questions.c.latency_ms,
    ).where(questions.c.round_id == bindparam("round_id"))
)
_FORGET_VECTORS: Final = Prepared(
    update(questions).where(questions.c.round_id == bindparam("of_round")).values(vector=bindparam("vector"))
)


def held(connection: Connection, hotkeys: Sequence[bytes], round_id: int, until: float) -> dict[bytes, Holding]:
    """Return the planted records that these miners should hold in a round, oldest first, and their matters.

    Records that are due to be deleted are uncertain, as are those that are first sent before `until`, the round's end,
    and those that are over and may be held all the same.
    """
    found = {}
    for hotkey in hotkeys:
        of_miner = {"hotkey": hotkey, "seeds": SEEDS}
        records = [Held(*row) for row in _HELD.rows(connection, of_miner | {"round_id": round_id})]
        in_round = {"hotkey": hotkey, "round_id": round_id, "until": until, "attempts": 0}
        uncertain = [Held(*row) for row in _UNCERTAIN.rows(connection, in_round)]
        seeded = frozenset(cid for (cid,) in _SEEDED.rows(connection, of_miner))
        about = {each.family_id for each in records}
        matters = _MATTERS.rows(connection, {"hotkey": hotkey})
        found[hotkey] = Holding(
            records, {id_: wire.decode(matter, Family) for id_, matter in matters if id_ in about}, seeded, uncertain
        )
    return found


def put_questions(connection: Connection, round_id: int, drawn: Sequence[Question]) -> None:
    """Write what will be asked in a round."""
    _PUT.apply_each(
        connection,
        [
            {
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
            for each in drawn
        ],
    )


def sheets(connection: Connection, round_id: int) -> list[Sheet]:
    """Return what the miners of a round are asked that have not been asked yet."""
    urls = dict(_OPEN.rows(connection, {"round_id": round_id, "done": 0}))
    by_miner: dict[bytes, list[Question]] = {hotkey: [] for hotkey in urls}
    for row in _QUESTIONS.rows(connection, {"round_id": round_id}):
        if row[1] in by_miner:
            by_miner[row[1]].append(question(row))
    return [Sheet(hotkey, url, by_miner[hotkey], _seeds(connection, hotkey)) for hotkey, url in urls.items()]


def _seeds(connection: Connection, hotkey: bytes) -> list[bytes]:
    """Return secret seeds of the signers that a miner may see queries of; none where it admits registered keys only."""
    known = _REGISTERED_ONLY.values(connection, {"hotkey": hotkey})
    if known is not None and known[0]:
        return []
    return [seed for (seed,) in _SEEDS.rows(connection, {"hotkey": hotkey, "most": _SIGNERS, "skipped": 0})]


def answered(connection: Connection, round_id: int, hotkey: bytes, answers: Sequence[Answer]) -> bool:
    """Write what a miner answered, all of it at once; False when it was written before, which stands."""
    if not _DONE.change(connection, {"of_round": round_id, "of_hotkey": hotkey, "was_done": 0, "done": 1}):
        return False
    _ANSWER.apply_each(
        connection,
        [
            {
                "question_id": each.question_id,
                "outcome": str(each.outcome),
                "recall": each.recall,
                "proved": int(each.proved),
                "latency_ms": each.latency_ms,
                "detail": each.detail or None,
            }
            for each in answers
        ],
    )
    return True


def answers_of(connection: Connection, round_id: int) -> dict[bytes, list[tuple[Kind, Answer]]]:
    """Return what the questions of a round brought, by hotkey, without details.

    One without an outcome counts as late. A miner that our own deadline kept from some of its questions is left out:
    what it did answer is no whole score.
    """
    found: dict[bytes, list[tuple[Kind, Answer]]] = {}
    cut_off: set[bytes] = set()
    for id_, hotkey, kind, outcome, recall, proved, latency_ms in _ANSWERS.rows(connection, {"round_id": round_id}):
        if outcome == Outcome.UNASKED:
            cut_off.add(hotkey)
        answer = Answer(
            question_id=id_,
            outcome=Outcome(outcome) if outcome else Outcome.LATE,
            recall=recall or 0.0,
            proved=bool(proved),
            latency_ms=latency_ms,
        )
        found.setdefault(hotkey, []).append((Kind(kind), answer))
    return {hotkey: answers for hotkey, answers in found.items() if hotkey not in cut_off}


def forget_vectors(connection: Connection, round_id: int) -> None:
    """Remove the vectors of a round that is over: its texts, truths and answers are what explains a score."""
    _FORGET_VECTORS.apply(connection, {"of_round": round_id, "vector": None})


def question(row: Sequence[Any]) -> Question:
    """Return a question of the columns that COLUMNS names."""
    id_, hotkey, kind, family_id, text, vector, truth, planted_, own_key = row
    return Question(
        id=id_,
        hotkey=hotkey,
        kind=Kind(kind),
        family_id=family_id,
        text=text or "",
        vector=vector or b"",
        truth=tuple(wire.decode(truth, list[str])),
        planted=planted_,
        own_key=bool(own_key),
    )
