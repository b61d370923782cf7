"""What the validator's own hotkey asks about besides planted records: customers' public ones, and their answers earn
nothing.

All can read on the chain which hotkey a validator's is. Were all that it asks about planted, a miner could keep what is
near that and let the rest go. So it asks about records, too, that the miner lists of its customers to a key that has
planted nothing. A miner sees neither for what its list was read nor which of its answers count.

Only what anyone may list is read. Of a text a few words are held, in memory, until they are asked about.
"""

from collections.abc import Sequence
from random import Random
from typing import Final, final

import msgspec
import trio

from engram.hotkeys import Keypair
from engram.ledger import Ledger
from engram.validator import corpus
from engram.validator.corpus import Vocabulary
from engram.validator.garden import Embeds
from engram.validator.miner_client import PAGE, SMALLEST_PAGE, MinerClient, PublicRecord
from engram.validator.model import Kind, Miner, Question
from engram.validator.records import plants as plant_records
from engram.validator.records import standings as miner_records
from engram.validator.turns import Turns

READING_S: Final = 30.0
"""For a page of every miner; one that is slower is asked about what it listed before."""
HELD_MOST: Final = 24
"""Records of one miner that are held to be asked about."""
OF_A_PAGE: Final = 8
"""Records of one page that are held: the next page is from another place."""
FURTHEST: Final = 100_000
"""Records from the beginning of a list that a page begins at most."""


class Decoy(msgspec.Struct, frozen=True):
    """A public record of a customer: its CID and a few words of its text."""

    cid: str
    excerpt: str


@final
class Decoys:
    """Reads a page of each miner's public records, from any place of its list, and draws from what was read."""

    def __init__(
        self,
        ledger: Ledger,
        client: MinerClient,
        keypair: Keypair,
        rng: Random,
        embeds: Embeds,
        words: Vocabulary,
        *,
        at_once: int,
        a_round: int,
    ) -> None:
        """Take the ports. Miners that admit registered keys alone are read by `keypair`, the validator's own; so many
        are read `at_once`. `a_round` searches and as many challenges are drawn for each."""
        self._ledger = ledger
        self._client = client
        self._keypair = keypair
        self._rng = rng
        self._embeds = embeds
        self._words = words
        self._at_once = at_once
        self._a_round = a_round
        self._held: dict[bytes, list[Decoy]] = {}
        self._ends: dict[bytes, int] = {}
        self._drawn: dict[bytes, list[Question]] = {}

    async def prepare(self, miners: Sequence[Miner]) -> None:
        """Read a page of every miner that may be asked, and draw what each is asked in the next round.

        Raises EmbeddingFailed. A miner that lists nothing is asked nothing of this kind.
        """
        self._drawn = {}
        if not self._a_round:
            return
        urls = {each.hotkey: each.url for each in miners if each.url is not None}
        self._held = {hotkey: held for hotkey, held in self._held.items() if hotkey in urls}
        self._ends = {hotkey: end for hotkey, end in self._ends.items() if hotkey in urls}
        known = await self._ledger.read(miner_records.all_known)
        with trio.move_on_after(READING_S):
            async with trio.open_nursery() as nursery:
                turns = Turns(nursery, self._at_once)
                for hotkey, url in urls.items():
                    closed = hotkey in known and known[hotkey].registered_only
                    nursery.start_soon(self._read, turns, hotkey, url, self._keypair if closed else self._stranger())
        await self._draw(list(urls))

    def take(self, hotkey: bytes) -> list[Question]:
        """Return what was drawn for a miner, once."""
        return self._drawn.pop(hotkey, [])

    def _stranger(self) -> Keypair:
        """Return a key for nothing else: one that has planted would tell what is planted."""
        return Keypair.from_seed(self._rng.randbytes(32))

    async def _read(self, turns: Turns, hotkey: bytes, url: str, signer: Keypair) -> None:
        async with turns.turn():
            records = await self._page(hotkey, url, signer)
        if not records:
            return
        planted = await self._ledger.read(lambda c: plant_records.cids(c, hotkey))
        fresh = [
            Decoy(each.cid, excerpt)
            for each in self._rng.sample(records, len(records))
            if each.cid not in planted and (excerpt := corpus.excerpt(self._rng, each.text))
        ]
        self._held[hotkey] = (fresh[:OF_A_PAGE] + self._held.get(hotkey, []))[:HELD_MOST]

    async def _page(self, hotkey: bytes, url: str, signer: Keypair) -> list[PublicRecord]:
        """Read a page from any place of the miner's list, whose length is not known: it is looked for by doubling."""
        end = self._ends.get(hotkey, 0)
        for offset in (self._rng.randint(0, min(FURTHEST, 2 * end + PAGE)), self._rng.randint(0, end), 0):
            page = await self._client.page(url, signer, offset, PAGE)
            if page.too_large:
                page = await self._client.page(url, signer, offset, SMALLEST_PAGE)
            if page.records is None:
                return []
            if page.records:
                self._ends[hotkey] = max(end, offset + len(page.records) - 1)
                return page.records
            end = min(end, offset)
        return []

    async def _draw(self, hotkeys: Sequence[bytes]) -> None:
        searched: list[tuple[bytes, str]] = []
        for hotkey in hotkeys:
            drawn = self._some(hotkey)
            texts = (corpus.question_about(self._rng, each.excerpt, self._words) for each in drawn)
            searched += [(hotkey, text) for text in texts]
            self._drawn[hotkey] = [
                _decoy(hotkey, Kind.DECOY_CHALLENGE, (each.cid,), b"") for each in self._some(hotkey)
            ]
        if not searched:
            return
        vectors = (await self._embeds([text for _, text in searched], [])).vectors
        for (hotkey, _), vector in zip(searched, vectors, strict=True):
            self._drawn[hotkey].append(_decoy(hotkey, Kind.DECOY_QUERY, (), vector))

    def _some(self, hotkey: bytes) -> list[Decoy]:
        """Take records of a miner out of what is held."""
        held = self._held.get(hotkey, [])
        self._rng.shuffle(held)
        self._held[hotkey] = held[self._a_round :]
        return held[: self._a_round]


def _decoy(hotkey: bytes, kind: Kind, truth: tuple[str, ...], vector: bytes) -> Question:
    return Question(
        hotkey=hotkey,
        kind=kind,
        family_id=None,
        text="",
        vector=vector,
        truth=truth,
        planted=0,
        own_key=True,
    )
