"""Asks all miners of an open round within one deadline, and writes down what each of them answered."""

from collections.abc import Sequence
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
from engram.validator import planting, scoring
from engram.validator.miner_client import MinerClient, MinerReply
from engram.validator.model import Answer, Kind, Outcome, Question, Round, Sheet
from engram.validator.records import asking as asking_records
from engram.validator.records import standings as miner_records
from engram.validator.turns import Turns

LISTED_EVERY: Final = 8
"""Rounds from one look at the lengths of a miner's public texts to the next; the first is in the first round."""

UNANSWERED: Final = 2
"""Questions of a round that a miner may leave without an answer; it is asked no more of them."""
FAIR_SHARE: Final = 0.5
"""A miner whose turn begins within this share of a round's time is late if it does not end in it."""

_log = structlog.get_logger("engram.validator")


@final
class Asker:
    """Asks miners, each its questions one after the other; `concurrency` of them at once, slow ones aside."""

    def __init__(
        self, ledger: Ledger, client: MinerClient, keypair: Keypair, clock: Clock, rng: Random, concurrency: int
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._keypair = keypair
        self._clock = clock
        self._rng = rng
        self._concurrency = concurrency
        self._unwritten: list[tuple[bytes, list[Answer]]] = []
        self._writing = trio.Lock()

    async def ask(self, opened: Round, deadline_s: float) -> None:
        """Ask every miner of the round that has not been asked yet. Raises LedgerUnavailable.

        Questions for which the deadline left a miner no time are `unasked`: they say nothing of it. Cancelled from
        outside, it leaves miners that have not answered everything to whoever resumes the round.
        """
        sheets = await self._ledger.read(lambda c: asking_records.sheets(c, opened.id))
        in_time = trio.current_time() + deadline_s * FAIR_SHARE
        with trio.move_on_after(deadline_s) as patience:
            async with trio.open_nursery() as nursery:
                turns = Turns(nursery, self._concurrency)
                for sheet in sheets:
                    nursery.start_soon(self._ask, turns, patience, opened, sheet, in_time)
        if patience.cancelled_caught:
            _log.warning("round_deadline", round=opened.id, after_s=deadline_s)

    async def _ask(self, turns: Turns, patience: trio.CancelScope, opened: Round, sheet: Sheet, in_time: float) -> None:
        answers: list[Answer] = []
        left = Outcome.UNASKED
        try:
            async with turns.turn():
                if trio.current_time() <= in_time:
                    left = Outcome.LATE
                for question in sheet.questions:
                    answers.append(await self._put(question, sheet))
                    if _is_silent(answers):
                        left = Outcome.UNREACHABLE
                        break
        finally:
            # The deadline takes nothing away that was answered in time.
            over = len(answers) == len(sheet.questions) or left is Outcome.UNREACHABLE
            if patience.cancel_called or over:
                rest = [Answer(question_id=each.id, outcome=left) for each in sheet.questions[len(answers) :]]
                with trio.CancelScope(shield=True):
                    await self._write(opened.id, sheet.hotkey, answers + rest)
        kill_points.point("round:answered")
        if opened.id % LISTED_EVERY == 1 and not _is_silent(answers):
            async with turns.turn():
                await self._note_lengths(sheet)

    async def _write(self, round_id: int, hotkey: bytes, answers: list[Answer]) -> None:
        """Return when the answers are committed. What comes in during one commit goes into the next, all at once."""
        self._unwritten.append((hotkey, answers))
        async with self._writing:
            batch, self._unwritten = self._unwritten, []

            def write(connection: Connection) -> None:
                for miner, found in batch:
                    asking_records.answered(connection, round_id, miner, found)

            if batch:  # else whoever wrote last has written ours
                await self._ledger.write(write)

    async def _put(self, question: Question, sheet: Sheet) -> Answer:
        if question.kind in (Kind.CHALLENGE, Kind.DECOY_CHALLENGE):
            (cid,) = question.truth
            tried = await self._client.challenge(sheet.url, self._keypair, cid, question.vector, sheet.hotkey)
            if question.kind is Kind.DECOY_CHALLENGE:  # no vector is known here to hold the proof against
                tried = msgspec.structs.replace(tried, proved=False, detail="")
            return _answer(question, tried, recall=0.0)
        signer = self._keypair if question.own_key else self._signer(sheet.seeds)
        tried = await self._client.query(sheet.url, signer, question.vector)
        return _answer(question, tried, recall=scoring.recall(tried.cids, question.truth))

    def _signer(self, seeds: Sequence[bytes]) -> Keypair:
        return Keypair.from_seed(self._rng.choice(seeds)) if seeds else self._keypair

    async def _note_lengths(self, sheet: Sheet) -> None:
        """Keep the lengths of a miner's public texts; those of before where it does not say, or says too little.

        It is signed by a key of its own: the validator's would tell the miner who is asking, and one that has planted
        would tell it what is planted.
        """
        signer = Keypair.from_seed(self._rng.randbytes(32)) if sheet.seeds else self._keypair
        texts = await self._client.public_texts(sheet.url, signer)
        lengths, at = planting.length_sample(texts or ()), self._clock.now()
        if not lengths:
            return
        await self._ledger.write(lambda c: miner_records.set_lengths(c, sheet.hotkey, lengths, at))


def _is_silent(answers: Sequence[Answer]) -> bool:
    return sum(each.outcome is Outcome.UNREACHABLE for each in answers) >= UNANSWERED


def _answer(question: Question, tried: MinerReply, recall: float) -> Answer:
    answered = tried.outcome is Outcome.ANSWERED
    return Answer(
        question_id=question.id,
        outcome=tried.outcome,
        recall=recall if answered else 0.0,
        proved=tried.proved,
        latency_ms=tried.latency_ms if answered else None,
        detail=tried.detail,
    )
