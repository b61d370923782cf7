"""One round: open it with all its questions, ask every miner within one deadline, close it with the scores.

The three commits are the facts; whatever the process was doing when it was killed, it goes on from the last of them. A
round that is found open is carried to its end with the same questions; miners that have answered are left alone.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, final

import msgspec
import structlog
import trio
from sqlalchemy import Connection

from engram import kill_points
from engram.chain.model import Metagraph
from engram.clock import Clock
from engram.hotkeys import Keypair
from engram.ledger import Ledger
from engram.validator import corpus, peers, planting, round_rules, scoring
from engram.validator.corpus import Family
from engram.validator.gardening import Embeds, Gardener
from engram.validator.miner_client import MinerClient, MinerReply
from engram.validator.model import Answer, Kind, Miner, Outcome, Plant, PlantState, Question, Result, Round, RoundState
from engram.validator.records import plants as plant_records
from engram.validator.records import rounds as round_records
from engram.validator.records import standings as miner_records
from engram.validator.standing import is_slashed
from engram.validator.workbench import Candidate, Draft, Truth

ABANDON_S: Final = 900.0
"""A round that was left open for longer than this says nothing of the miners as they are now."""
LISTED_EVERY: Final = 8
"""Rounds from one look at the lengths of a miner's public texts to the next."""

_log = structlog.get_logger("engram.validator")


class RoundTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How rounds are held."""

    netuid: int
    queries: int
    challenges: int
    least_planted: int
    """Records about a matter that a miner must hold before it is asked about it: so many answers are planted."""
    concurrency: int
    deadline_s: float
    """For the whole round."""
    keep_rounds: int
    share_scores: bool
    private_allowed: bool
    blacklist: frozenset[bytes]


@final
class Rounds:
    """Holds rounds, one at a time."""

    def __init__(
        self,
        terms: RoundTerms,
        ledger: Ledger,
        client: MinerClient,
        keypair: Keypair,
        clock: Clock,
        rng: Random,
        gardener: Gardener,
        embeds: Embeds,
        boot: str,
        closed: Callable[[Round, float], None],
    ) -> None:
        """Take the ports; `boot` names this start of the process, `closed` is called with each round and its length."""
        self._terms = terms
        self._ledger = ledger
        self._client = client
        self._keypair = keypair
        self._clock = clock
        self._rng = rng
        self._gardener = gardener
        self._embeds = embeds
        self._boot = boot
        self._closed = closed

    async def recover(self) -> None:
        """Bring a round that was left open to its end."""
        terms = self._terms
        left = await self._ledger.read(lambda c: round_records.last_round(c, terms.netuid, RoundState.OPEN))
        if left is None:
            return
        if self._clock.now() - left.opened_at > ABANDON_S:
            at = self._clock.now()
            await self._ledger.write(lambda c: round_records.close_round(c, left.id, [], RoundState.ABANDONED, at))
            _log.warning("round_abandoned", round=left.id, reason=f"left open for more than {ABANDON_S:.0f} s")
            return
        await self._ask_and_close(left)

    async def prepare(self, metagraph: Metagraph) -> None:
        """Draft and embed what is planted until the next round. Raises EmbeddingFailed."""
        await self._gardener.draft(self._miners(metagraph), await self._next_id())

    async def hold(self, metagraph: Metagraph) -> Round:
        """Hold one round from beginning to end. Raises EmbeddingFailed before anything is opened."""
        miners = self._miners(metagraph)
        questions = await self._questions(miners)
        at = self._clock.now()
        opened = await self._ledger.write(
            lambda c: round_records.open_round(
                c, self._terms.netuid, metagraph.block, metagraph.block_hash, self._boot, at, miners, questions
            )
        )
        kill_points.point("round:opened")
        return await self._ask_and_close(opened)

    def _miners(self, metagraph: Metagraph) -> list[Miner]:
        terms = self._terms
        return peers.miners(
            metagraph,
            self._keypair.public_key,
            blacklist=terms.blacklist,
            private_allowed=terms.private_allowed,
        )

    async def _next_id(self) -> int:
        last = await self._ledger.read(lambda c: round_records.last_round(c, self._terms.netuid))
        return 1 if last is None else last.id + 1

    async def _questions(self, miners: Sequence[Miner]) -> list[Question]:
        """Draw the questions and find their truths."""
        terms, round_id = self._terms, await self._next_id()
        drawn: list[Question] = []
        wanted: list[Draft] = []
        for miner in miners:
            if miner.url is None:
                continue
            held, matters = await self._ledger.read(lambda c, m=miner: _held(c, m.hotkey))  # type: ignore[misc]
            candidates = [Candidate(plant.cid, plant.vector) for plant in held]
            for asking in round_rules.matters_to_ask(
                self._rng, held, round_id, queries=terms.queries, least_held=terms.least_planted
            ):
                text = corpus.question(self._rng, matters[asking.family_id])
                wanted.append(Draft(text, candidates))
                drawn.append(
                    Question(
                        hotkey=miner.hotkey,
                        kind=Kind.QUERY,
                        family_id=asking.family_id,
                        text=text,
                        vector=b"",
                        truth=(),
                        planted=0,
                        own_key=asking.own_key,
                    )
                )
            if drawn and drawn[-1].hotkey == miner.hotkey:
                drawn += [_challenge(plant) for plant in round_rules.to_challenge(self._rng, held, terms.challenges)]
        truths = iter((await self._embeds([], wanted)).truths) if wanted else iter(())
        return [question if question.kind is Kind.CHALLENGE else _found(question, next(truths)) for question in drawn]

    async def _ask_and_close(self, opened: Round) -> Round:
        terms, began = self._terms, trio.current_time()
        to_ask = await self._ledger.read(lambda c: round_records.to_ask(c, opened.id))
        room = trio.CapacityLimiter(terms.concurrency)
        with trio.move_on_after(terms.deadline_s) as patience:
            async with trio.open_nursery() as nursery:
                for result in to_ask:
                    if result.url is not None:
                        nursery.start_soon(self._ask, room, opened, result.hotkey, result.url)
        if patience.cancelled_caught:
            _log.warning("round_deadline", round=opened.id, after_s=terms.deadline_s)
        kill_points.point("round:asked")
        closed = await self._close(opened)
        self._closed(closed, trio.current_time() - began)
        return closed

    async def _ask(self, room: trio.CapacityLimiter, opened: Round, hotkey: bytes, url: str) -> None:
        async with room:
            questions, vectors, signers = await self._ledger.read(lambda c: _of_miner(c, opened.id, hotkey))
            answers: list[Answer] = []
            try:
                for question in questions:
                    signer = self._keypair if question.own_key else self._signer(signers)
                    answers.append(await self._put(question, url, hotkey, signer, vectors))
            finally:
                # The deadline takes nothing away that was answered in time.
                with trio.CancelScope(shield=True):
                    await self._ledger.write(lambda c: round_records.answered(c, opened.id, hotkey, answers))
            kill_points.point("round:answered")
            if opened.id % LISTED_EVERY == 0:
                await self._note_lengths(hotkey, url, vectors)

    def _signer(self, seeds: Sequence[bytes]) -> Keypair:
        return Keypair.from_seed(self._rng.choice(seeds)) if seeds else self._keypair

    async def _put(
        self, question: Question, url: str, hotkey: bytes, signer: Keypair, vectors: dict[str, bytes]
    ) -> Answer:
        if question.kind is Kind.QUERY:
            tried = await self._client.query(url, signer, question.vector, hotkey)
            if tried.not_admitted and signer is not self._keypair:
                tried = await self._client.query(url, self._keypair, question.vector, hotkey)
            return _answer(question, tried, recall=scoring.recall(tried.cids, question.truth))
        cid = question.truth[0]
        tried = await self._client.challenge(url, self._keypair, cid, vectors.get(cid, b""), hotkey)
        return _answer(question, tried, recall=0.0)

    async def _note_lengths(self, hotkey: bytes, url: str, own: dict[str, bytes]) -> None:
        lengths = planting.length_sample(await self._client.public_texts(url, self._keypair))
        at = self._clock.now()
        await self._ledger.write(lambda c: miner_records.set_lengths(c, hotkey, lengths, at))

    async def _close(self, opened: Round) -> Round:
        """Score and close in one transaction."""
        terms, at = self._terms, self._clock.now()

        def close(connection: Connection) -> None:
            results = round_records.results(connection, opened.id)
            held = miner_records.all_known(connection)
            scored = round_rules.closing(
                results,
                round_records.answers_of(connection, opened.id),
                held,
                round_records.refusing(connection, opened.id),
                self.groups_of(results) if terms.share_scores else [],
                opened.block,
            )
            if round_records.close_round(connection, opened.id, scored.results, RoundState.CLOSED, at):
                for known in scored.standings:
                    miner_records.keep(connection, known, at)
                    before = held.get(known.hotkey)
                    if is_slashed(known.standing, opened.block) and (
                        before is None or known.standing.slashes > before.standing.slashes
                    ):
                        _log.warning("miner_slashed", uid=known.uid, until_block=known.standing.slashed_until_block)
                round_records.purge(connection, terms.netuid, terms.keep_rounds)

        await self._ledger.write(close)
        return msgspec.structs.replace(opened, state=RoundState.CLOSED, closed_at=at)

    @staticmethod
    def groups_of(results: Sequence[Result]) -> list[frozenset[int]]:
        """Return the uids of a round that share one score."""
        return peers.groups(
            Miner(hotkey=each.hotkey, uid=each.uid, coldkey=each.coldkey, url=each.url) for each in results
        )


def _held(connection: Connection, hotkey: bytes) -> tuple[list[Plant], dict[int, Family]]:
    return plant_records.plants(connection, hotkey, (PlantState.HELD,)), plant_records.families_of(connection, hotkey)


def _of_miner(
    connection: Connection, round_id: int, hotkey: bytes
) -> tuple[list[Question], dict[str, bytes], list[bytes]]:
    """Return what a miner is asked, the vectors of its planted records by CID, and seeds of its signers."""
    kept = plant_records.plants(connection, hotkey, (PlantState.HELD, PlantState.DELETING, PlantState.DELETED))
    known = miner_records.known(connection, hotkey)
    seeds = [] if known is not None and known.registered_only else plant_records.some_seeds(connection, hotkey)
    vectors = {plant.cid: plant.vector for plant in kept}
    return round_records.questions_of(connection, round_id, hotkey), vectors, seeds


def _challenge(plant: Plant) -> Question:
    return Question(
        hotkey=plant.hotkey,
        kind=Kind.CHALLENGE,
        family_id=plant.family_id,
        text="",
        vector=b"",
        truth=(plant.cid,),
        planted=1,
        own_key=True,
    )


def _found(question: Question, truth: Truth) -> Question:
    return msgspec.structs.replace(question, vector=truth.vector, truth=tuple(truth.cids), planted=truth.planted)


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
