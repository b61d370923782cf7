"""One round: open it with all its questions, ask every miner within one deadline, close it with the scores.

The three commits are the facts; whatever the process was doing when it was killed, it goes on from the last of them. A
round that is found open is carried to its end with the same questions; miners that have answered are left alone.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Final, final

import msgspec
import structlog
import trio
from sqlalchemy import Connection

from engram import kill_points
from engram.chain.model import Metagraph
from engram.clock import Clock
from engram.hotkeys import Keypair, PublicKey
from engram.ledger import Ledger
from engram.validator import corpus, peers, round_rules
from engram.validator.asker import Asker
from engram.validator.commitments import Committed, no_commitments
from engram.validator.corpus import PUBLISHED, Vocabulary
from engram.validator.decoys import Decoys
from engram.validator.garden import Embeds
from engram.validator.gardening import Gardener
from engram.validator.miner_client import MinerClient
from engram.validator.model import Held, Holding, Kind, Known, Miner, Question, Round, RoundState
from engram.validator.records import asking as asking_records
from engram.validator.records import retention
from engram.validator.records import rounds as round_records
from engram.validator.records import standings as miner_records
from engram.validator.round_rules import NOTHING_SCORED
from engram.validator.standing import is_slashed
from engram.validator.workbench import Candidate, Draft, Truth

ABANDON_S: Final = 900.0
"""A round that was left open for longer than this says nothing of the miners as they are now."""
DRAWN_AT_ONCE: Final = 64
"""Miners whose planted records are held in memory at once: about 100 of 1.5 KB each."""

DRAWING_S: Final = 60.0
"""In which the questions of a round are drawn and their truths found, where the machine has its hands free."""
SPARE: Final = 3
"""Queries drawn for each that was not worth asking: one of them is to take its place."""

_log = structlog.get_logger("engram.validator")


class RoundTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How rounds are held."""

    netuid: int
    queries: int
    challenges: int
    decoys: int
    """Searches, and challenges, about records of customers that are asked beside them at most."""
    least_planted: int
    """Records about a matter that a miner must hold before it is asked about it, and right answers that must be
    planted records for a question to be asked."""
    concurrency: int
    deadline_s: float
    """For the whole round."""
    keep_rounds: int
    planted_rounds: int
    """Rounds for which a planted record is kept at most."""
    unasked_rounds: int
    """Rounds in a row in which nothing can be asked of a miner, from which on it scores 0."""
    share_scores: bool
    private_allowed: bool
    blacklist: Mapping[PublicKey, str]
    """Why each of these hotkeys is never asked."""
    words: Vocabulary = PUBLISHED


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
        committed: Committed = no_commitments,
    ) -> None:
        """Take the ports; `boot` names this start of the process, `closed` is called with each round and its length."""
        self._terms = terms
        self._ledger = ledger
        self._asker = Asker(ledger, client, keypair, clock, rng, terms.concurrency)
        self._keypair = keypair
        self._clock = clock
        self._rng = rng
        self._gardener = gardener
        self._decoys = Decoys(
            ledger, client, keypair, rng, embeds, terms.words, at_once=terms.concurrency, a_round=terms.decoys
        )
        self._embeds = embeds
        self._boot = boot
        self._closed = closed
        self._committed = committed

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
        """Draft and embed what is planted until the next round, and read what the miners list of their customers.

        Raises EmbeddingFailed.
        """
        miners = await self._miners(metagraph)
        await self._gardener.draft(miners, await self._next_id())
        await self._decoys.prepare(miners)

    async def rest(self, metagraph: Metagraph) -> None:
        """Hold no rounds for now: nothing is drafted, and what is planted is deleted when its time is over."""
        self._gardener.rest(await self._miners(metagraph))

    async def hold(self, metagraph: Metagraph) -> Round:
        """Hold one round from beginning to end. Raises EmbeddingFailed before anything is opened."""
        miners = await self._miners(metagraph)
        questions = await self._questions(miners)
        at = self._clock.now()
        opened = await self._ledger.write(
            lambda c: round_records.open_round(
                c, self._terms.netuid, metagraph.block, metagraph.block_hash, self._boot, at, miners, questions
            )
        )
        kill_points.point("round:opened")
        return await self._ask_and_close(opened)

    async def _miners(self, metagraph: Metagraph) -> list[Miner]:
        terms = self._terms
        return peers.miners(
            metagraph,
            self._keypair.public_key,
            await self._committed(),
            blacklist=terms.blacklist,
            private_allowed=terms.private_allowed,
        )

    async def _next_id(self) -> int:
        last = await self._ledger.read(lambda c: round_records.last_round(c, self._terms.netuid))
        return 1 if last is None else last.id + 1

    async def _questions(self, miners: Sequence[Miner]) -> list[Question]:
        """Draw the questions and find their truths. Raises EmbeddingFailed."""
        round_id, until = await self._next_id(), self._clock.now() + DRAWING_S + self._terms.deadline_s
        able = [miner.hotkey for miner in miners if miner.url is not None]
        found: list[Question] = []
        for start in range(0, len(able), DRAWN_AT_ONCE):
            batch = able[start : start + DRAWN_AT_ONCE]
            holdings = await self._ledger.read(
                partial(asking_records.held, hotkeys=batch, round_id=round_id, until=until)
            )
            found += await self._drawn(holdings, round_id)
        return found

    async def _drawn(self, holdings: Mapping[bytes, Holding], round_id: int) -> list[Question]:
        """Draw the questions to some miners. A query that is not worth asking is replaced by another, once."""
        terms = self._terms
        queries = {hotkey: list[Question]() for hotkey in holdings}
        for spare in (1, SPARE):
            short = [hotkey for hotkey, kept in queries.items() if len(kept) < terms.queries]
            numbers = {hotkey: spare * (terms.queries - len(queries[hotkey])) for hotkey in short}
            for query in await self._queries(holdings, numbers, round_id):
                kept = queries[query.hotkey]
                if round_rules.is_worth_asking(query, kept, most=terms.queries, least_planted=terms.least_planted):
                    kept.append(msgspec.structs.replace(query, own_key=bool(len(kept) % 2)))
        drawn: list[Question] = []
        for hotkey, kept in queries.items():
            # Without a query its score would lack the recall, through no fault of its own.
            if kept:
                proved = round_rules.to_challenge(self._rng, holdings[hotkey].records, terms.challenges)
                sheet = [*kept, *(_challenge(hotkey, each) for each in proved), *self._decoys.take(hotkey)]
                drawn += self._rng.sample(sheet, len(sheet))  # what counts is not to be told by its place
        return drawn

    async def _queries(
        self, holdings: Mapping[bytes, Holding], numbers: Mapping[bytes, int], round_id: int
    ) -> list[Question]:
        """Draw so many queries to each miner of `numbers`, and find their truths."""
        drawn: list[Question] = []
        wanted: list[Draft] = []
        for hotkey, number in numbers.items():
            holding = holdings[hotkey]
            candidates = [Candidate(each.cid, each.vector) for each in holding.records]
            uncertain = [Candidate(each.cid, each.vector) for each in holding.uncertain]
            families = round_rules.matters_to_ask(
                self._rng, holding.records, round_id, queries=number, least_held=self._terms.least_planted
            )
            for family_id in families:
                text = corpus.question(self._rng, holding.matters[family_id], self._terms.words)
                query = _query(hotkey, family_id, text)
                about = [each.cid for each in holding.records if each.family_id == family_id]
                wanted.append(Draft(query.text, candidates, about, holding.seeded, uncertain))
                drawn.append(query)
        truths = (await self._embeds([], wanted)).truths if wanted else []
        return [_found(query, truth) for query, truth in zip(drawn, truths, strict=True)]

    async def _ask_and_close(self, opened: Round) -> Round:
        began = trio.current_time()
        await self._asker.ask(opened, self._terms.deadline_s)
        kill_points.point("round:asked")
        closed = await self._close(opened)
        if closed.state is RoundState.CLOSED:
            self._closed(closed, trio.current_time() - began)
        return closed

    async def _close(self, opened: Round) -> Round:
        """Score and close in one transaction; one in which no miner answered is abandoned."""
        terms, at = self._terms, self._clock.now()

        def close(connection: Connection) -> str:
            results = round_records.results(connection, opened.id)
            operators = {each.hotkey: each.coldkey for each in results}
            answers = asking_records.answers_of(connection, opened.id)
            offers = round_records.offers(connection, opened.id)
            void = round_records.abandoned(connection, terms.netuid, opened.id, round_rules.CLOCK_WINDOW)
            why = round_rules.why_void(answers, offers, operators, void)
            state, scored, held = RoundState.ABANDONED, NOTHING_SCORED, miner_records.all_known(connection)
            if not why:
                proved_at = round_records.proved_at(connection, opened.id)
                groups = round_rules.groups(results, proved_at) if terms.share_scores else []
                offers = round_rules.counted(offers, operators)
                state = RoundState.CLOSED
                unasked = round_records.unasked(connection, terms.netuid, opened.id, terms.unasked_rounds)
                scored = round_rules.closing(results, answers, held, offers, groups, unasked, opened.block)
            if round_records.close_round(connection, opened.id, scored.results, state, at):
                miner_records.keep(connection, scored.standings, at)
                _log_slashes(held, scored.standings, opened.block)
                retention.purge(
                    connection, terms.netuid, opened.id, opened.block, terms.keep_rounds, terms.planted_rounds
                )
            return why

        why = await self._ledger.write(close)
        if why:
            _log.error("round_void", round=opened.id, reason=why)
        state = RoundState.ABANDONED if why else RoundState.CLOSED
        return msgspec.structs.replace(opened, state=state, closed_at=at)


def _log_slashes(before: Mapping[bytes, Known], after: Sequence[Known], block: int) -> None:
    for known in after:
        former = before.get(known.hotkey)
        if is_slashed(known.standing, block) and (former is None or known.standing.slashes > former.standing.slashes):
            _log.warning("miner_slashed", uid=known.uid, until_block=known.standing.slashed_until_block)


def _query(hotkey: bytes, family_id: int, text: str) -> Question:
    return Question(
        hotkey=hotkey,
        kind=Kind.QUERY,
        family_id=family_id,
        text=text,
        vector=b"",
        truth=(),
        planted=0,
        own_key=False,
    )


def _challenge(hotkey: bytes, held: Held) -> Question:
    return Question(
        hotkey=hotkey,
        kind=Kind.CHALLENGE,
        family_id=held.family_id,
        text="",
        vector=held.vector,
        truth=(held.cid,),
        planted=1,
        own_key=True,
    )


def _found(question: Question, truth: Truth) -> Question:
    return msgspec.structs.replace(question, vector=truth.vector, truth=tuple(truth.cids), planted=truth.planted)
