"""What an operator is shown of a validator. Functions run inside `ledger.read`."""

from collections.abc import Mapping
from typing import Final

import msgspec
from sqlalchemy import Connection

from engram.hotkeys import ss58
from engram.validator.model import Answer, Kind, Known, Look, PlantState, Question, Result, Round, RoundState, Sent
from engram.validator.records import plants as plant_records
from engram.validator.records import rounds as round_records
from engram.validator.records import sent as weight_records
from engram.validator.records import standings as miner_records
from engram.validator.standing import Standing

PLANTS_SHOWN: Final = 200
OF_A_CUSTOMER: Final = "a public record of a customer"


class RoundRow(msgspec.Struct, frozen=True, kw_only=True):
    """A round as it is shown. Times are unix seconds."""

    id: int
    netuid: int
    block: int
    block_hash: str
    """0x and hex."""
    state: str
    opened_at: float
    closed_at: float | None


class ValidatorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a validator stands."""

    hotkey: str
    netuid: int
    look: Look | None
    """The last look at the chain; None before the first."""
    last_round: RoundRow | None
    rounds: int
    planted: Mapping[str, int]
    """Planted records by state."""
    weights: Sent | None
    """The newest weights."""


class MinerScore(msgspec.Struct, frozen=True, kw_only=True):
    """A miner's standing and its result in the last round."""

    uid: int
    hotkey: str
    score: float | None
    """Of the last round; None where it was not scored."""
    shared_score: float | None
    recall: float | None
    latency_ms: float | None
    proof_rate: float | None
    ema: float
    rounds: int
    reliability: float
    slashed_until_block: int | None
    group_of: int | None
    url: str | None
    reason: str | None
    """Why it was not asked."""


class ExplainedQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """One question and what it brought."""

    kind: str
    about: str
    """The text of a query; the CID of a challenge; OF_A_CUSTOMER of a decoy search, whose words are not kept."""
    truth: int
    """How many records are right."""
    planted: int
    own_key: bool
    outcome: str
    recall: float | None
    proved: bool | None
    latency_ms: float | None
    detail: str


class PlantRow(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a planted record."""

    cid: str
    """Empty while it has no vector."""
    state: str
    planted_round: int
    delete_round: int
    """Round after which it is deleted."""
    sent_at: float
    """When it was last sent, or is to be sent."""
    reason: str


class ExplainedRound(msgspec.Struct, frozen=True, kw_only=True):
    """A round of one miner."""

    id: int
    block: int
    state: str
    opened_at: float
    score: MinerScore
    questions: list[ExplainedQuestion]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a miner has the score that it has."""

    uid: int
    hotkey: str
    standing: Standing
    registered_only: bool
    planted: Mapping[str, int]
    """How many records, by state."""
    plants: list[PlantRow]
    """The newest PLANTS_SHOWN of them, newest first."""
    rounds: list[ExplainedRound]
    """Newest first."""


def status(connection: Connection, netuid: int, hotkey: bytes) -> ValidatorStatus:
    """Return where the validator stands."""
    newest = weight_records.sent_weights(connection, netuid, hotkey, 1)
    last = round_records.last_round(connection, netuid, RoundState.CLOSED)
    return ValidatorStatus(
        hotkey=ss58.encode(hotkey),
        netuid=netuid,
        look=weight_records.last_look(connection, netuid, hotkey),
        last_round=None if last is None else _round(last),
        rounds=round_records.count_rounds(connection, netuid),
        planted={str(state): 0 for state in PlantState} | plant_records.count_planted(connection),
        weights=newest[0] if newest else None,
    )


def last_status(connection: Connection, netuid: int) -> ValidatorStatus | None:
    """Return the status of the validator that looked last; None when none has run on this ledger."""
    hotkey = weight_records.own_hotkey(connection, netuid)
    return None if hotkey is None else status(connection, netuid, hotkey)


def rounds(connection: Connection, netuid: int, limit: int) -> list[RoundRow]:
    """Return the newest rounds, newest first."""
    return [_round(each) for each in round_records.some_rounds(connection, netuid, limit)]


def scores(connection: Connection, netuid: int) -> list[MinerScore]:
    """Return all miners of the last round, the best first."""
    last = round_records.last_round(connection, netuid, RoundState.CLOSED)
    if last is None:
        return []
    known = miner_records.all_known(connection)
    found = [_score(result, known) for result in round_records.results(connection, last.id)]
    return sorted(found, key=lambda each: (-each.ema, each.uid))


def explain(connection: Connection, netuid: int, uid: int, limit: int) -> Explanation | None:
    """Return why the miner that holds a uid has its score, by its last `limit` rounds; None when no round had it."""
    hotkey = round_records.hotkey_of(connection, netuid, uid)
    if hotkey is None:
        return None
    known = miner_records.all_known(connection)
    held = known.get(hotkey)
    shown = []
    for each in round_records.some_rounds(connection, netuid, limit):
        results = [result for result in round_records.results(connection, each.id) if result.hotkey == hotkey]
        if not results:
            continue
        shown.append(
            ExplainedRound(
                id=each.id,
                block=each.block,
                state=str(each.state),
                opened_at=each.opened_at,
                score=_score(results[0], known),
                questions=[
                    _explained(question, answer)
                    for question, answer in round_records.questions_with_answers(connection, each.id, hotkey)
                ],
            )
        )
    return Explanation(
        uid=uid,
        hotkey=ss58.encode(hotkey),
        standing=Standing() if held is None else held.standing,
        registered_only=held is not None and held.registered_only,
        planted=plant_records.count_planted(connection, hotkey),
        plants=[PlantRow(**row) for row in plant_records.fates(connection, hotkey, PLANTS_SHOWN)],
        rounds=shown,
    )


def _round(each: Round) -> RoundRow:
    return RoundRow(
        id=each.id,
        netuid=each.netuid,
        block=each.block,
        block_hash="0x" + each.block_hash.hex(),
        state=str(each.state),
        opened_at=each.opened_at,
        closed_at=each.closed_at,
    )


def _score(result: Result, known: Mapping[bytes, Known]) -> MinerScore:
    held = known.get(result.hotkey)
    standing = Standing() if held is None else held.standing
    return MinerScore(
        uid=result.uid,
        hotkey=ss58.encode(result.hotkey),
        score=result.score,
        shared_score=result.shared_score,
        recall=result.recall,
        latency_ms=result.latency_ms,
        proof_rate=result.proof_rate,
        ema=standing.ema,
        rounds=standing.rounds,
        reliability=standing.reliability,
        slashed_until_block=standing.slashed_until_block,
        group_of=result.group_of,
        url=result.url,
        reason=result.reason,
    )


def _explained(question: Question, answer: Answer) -> ExplainedQuestion:
    is_query = question.kind is Kind.QUERY
    is_challenge = question.kind is Kind.CHALLENGE
    return ExplainedQuestion(
        kind=str(question.kind),
        about=question.text or next(iter(question.truth), OF_A_CUSTOMER),
        truth=len(question.truth),
        planted=question.planted,
        own_key=question.own_key,
        outcome=str(answer.outcome),
        recall=answer.recall if is_query else None,
        proved=answer.proved if is_challenge else None,
        latency_ms=answer.latency_ms,
        detail=answer.detail,
    )
