"""A process that archives to Arweave is killed at each of its steps: every part is sent once, and paid for once.

One that restores is killed, too: what was there is there, or what was archived, and nothing between.
"""

import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
import trio

from engram.archive.journal import Journal
from engram.archive.model import HEADER
from engram.archive.reading import open_archive
from engram.archive.restorer import restore
from engram.archive.signing import sign_header
from engram.http.client import HttpClient
from engram.miner.folder import claim
from tests.archive.mortal import place_in
from tests.archive.nodes import OWNER, Node, content, entry
from tests.archive.test_crashes import HEADING, SECRET
from tests.fakes.bundler import Arweave
from tests.fakes.evm import FakeChain
from tests.fakes.responder import Responder
from tests.warmed import WarmProgram


class Bench:
    """A node's folder and what is paid for it; `back` brings both to where they were saved."""

    def __init__(self, folder: Path, url: str, arweave: Arweave) -> None:
        self.folder = folder / "now"
        self._saved = folder / "saved"
        self._url = url
        self._arweave = arweave

    def save(self) -> None:
        shutil.copytree(self.folder, self._saved)
        self._items = dict(self._arweave.items)

    def back(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self._saved, self.folder)
        self._arweave.items = dict(self._items)
        self._arweave.charged.clear()
        self._arweave.payments.clear()
        self._arweave.chain = FakeChain()
        self._arweave.sent = 0

    async def run(self, step: int, work: str) -> int:
        program = WarmProgram(["-m", "tests.archive.mortal", str(self.folder), self._url, str(step), work])
        return await trio.to_thread.run_sync(program.wait, 60.0, abandon_on_cancel=True)

    def has_shredded(self) -> bool:
        journal = Journal.open(self.folder / "journal")
        return journal.listed_epoch == 2 and not journal.shreds

    async def steps(self, work: str) -> int:
        assert await self.run(0, work) == 0
        return int((self.folder / "steps").read_text())

    async def require_whole(self, client: HttpClient) -> None:
        place = place_in(self.folder, self._url, client)
        opened = await open_archive(place, HEADING, SECRET)
        await restore(place, opened, self.folder / "restored", "11111111-0000-4000-8000-000000000000")
        assert content(self.folder / "restored") == content(self.folder / "node")
        paid = [dict(self._arweave.items[each].tags)["Part"] for each in self._arweave.charged]
        assert max(Counter(paid).values()) == 1
        assert self._arweave.sent == len(paid)
        named = {f"segments/{ref.name}" for ref in opened.manifest.segments}
        assert {name for name in paid if name.startswith("segments/")} <= named


@pytest.mark.parametrize("work", ["update", "buy", "shred"])
@pytest.mark.parametrize("every", [23, pytest.param(1, marks=pytest.mark.nightly)])
async def test_wherever_an_archiver_is_killed_every_part_is_sent_and_paid_once(
    tmp_path: Path, nursery: trio.Nursery, work: str, every: int
) -> None:
    arweave = Arweave()
    arweave.takes_usdc = work == "buy"
    url = await nursery.start(Responder(arweave.answer).run)
    client = HttpClient()
    bench = Bench(tmp_path, url, arweave)
    bench.folder.mkdir()
    node = Node(bench.folder / "node")
    node.put(*(entry(number) for number in range(6)))
    await place_in(bench.folder, url, client).put(HEADER, sign_header(OWNER, HEADING))
    assert await bench.run(0, "update") == 0
    node.put(entry(20))
    node.delete(entry(0))
    bench.save()
    steps = await bench.steps(work)
    assert steps > 40
    for step in range(1, steps + 1, every):
        bench.back()
        assert await bench.run(step, work) == -signal.SIGKILL, step
        if work != "shred" or not bench.has_shredded():  # a second shredding archives everything again, as it must
            assert await bench.run(0, work) == 0, step
        await bench.require_whole(client)
        if work == "buy":
            assert len(arweave.chain.used) == len(arweave.charged) == len(set(arweave.payments)), step
    await client.aclose()


@pytest.mark.parametrize("every", [23, pytest.param(1, marks=pytest.mark.nightly)])
async def test_wherever_a_restore_is_killed_the_node_has_its_old_memory_or_its_new_one(
    tmp_path: Path, nursery: trio.Nursery, every: int
) -> None:
    arweave = Arweave()
    url = await nursery.start(Responder(arweave.answer).run)
    client = HttpClient()
    bench = Bench(tmp_path, url, arweave)
    bench.folder.mkdir()
    node, other = Node(bench.folder / "node"), Node(bench.folder / "other")
    node.put(*(entry(number) for number in range(6)))
    other.put(entry(100))
    await place_in(bench.folder, url, client).put(HEADER, sign_header(OWNER, HEADING))
    assert await bench.run(0, "update") == 0
    bench.save()
    before, archived = content(other.folder), content(node.folder)
    steps = await bench.steps("restore")
    assert content(other.folder) == archived
    assert steps > 40
    seen = []
    for step in range(1, steps + 1, every):
        bench.back()
        assert await bench.run(step, "restore") == -signal.SIGKILL, step
        with claim(other.folder):  # as the node does when it starts
            seen.append(content(other.folder))
        assert seen[-1] in (before, archived), step
        assert await bench.run(0, "restore") == 0, step
        assert content(other.folder) == archived, step
    assert before in seen
    await client.aclose()
