"""Our items and payments at a bundler of npm's arbundles and x402 (tests/node/bundler.mjs), with its faults."""

import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypedDict, Unpack

import msgspec
import pytest

from engram.archive import arweave_place
from engram.archive.archiver import Archiver
from engram.archive.arweave_place import ArweavePlace, SplitPlace
from engram.archive.bundler import Bundler
from engram.archive.errors import Missing, NotAccepted, PaymentUnknown, PaymentWanted, PlaceUnavailable, TooDear
from engram.archive.folder_place import FolderPlace
from engram.archive.item_keys import EthereumKey
from engram.archive.journal import Journal
from engram.archive.model import HEADER
from engram.archive.reading import header_at, open_archive
from engram.archive.restorer import restore
from engram.archive.signing import sign_header
from engram.archive.upload_payment import UploadWallet
from engram.http.client import HttpClient
from engram.payments.evidence import Finding, Question, Unused
from engram.payments.networks import BASE
from tests.archive.nodes import OWNER, Node, content, entry
from tests.archive.test_crashes import HEADING, SECRET
from tests.evm import node as npm

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(
        shutil.which("node") is None or not (npm.FOLDER / "node_modules" / "@dha-team" / "arbundles").is_dir(),
        reason="npm's arbundles is not installed (scripts/setup-node)",
    ),
]
KEY = EthereumKey(b"\x05" * 32)


class Switches(TypedDict, total=False):
    loses: int
    fails: int
    slow_ms: int
    hides: bool
    sells: bool


class Other:
    """The bundler, as the test turns its switches and asks what it has seen."""

    def __init__(self, url: str, client: HttpClient, folder: Path) -> None:
        self.url = url
        self._client = client
        self._folder = folder

    async def set(self, **switches: Unpack[Switches]) -> None:
        await self._client.request("PUT", f"{self.url}/switches", json=switches)

    async def seen(self) -> dict[str, Any]:
        answer = await self._client.request("GET", f"{self.url}/seen")
        found: dict[str, Any] = msgspec.json.decode(answer.content)
        return found

    def bundler(self) -> Bundler:
        return Bundler(self._client, self.url, self.url, self.url)

    def place(self, *, buys: bool = False, most: int = 1_000_000, name: str = "aa") -> ArweavePlace:
        """A place as a new process finds it."""
        wallet = UploadWallet(KEY, BASE, _never_used, most, time.time) if buys else None
        return ArweavePlace(self.bundler(), KEY, name, self._folder / "spool", most, wallet)


async def _never_used(question: Question) -> Finding:
    return Unused(0.0)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with subprocess.Popen(["node", "bundler.mjs"], cwd=npm.FOLDER, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@pytest.fixture
async def other(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Other]:
    monkeypatch.setattr(arweave_place, "_LOOK_EVERY_S", 0.0)
    client = HttpClient()
    made = Other(url, client, tmp_path)
    await made.set(loses=0, fails=0, slow_ms=0, hides=False, sells=False)
    yield made
    await client.aclose()


@pytest.mark.parametrize("buys", [False, True])
async def test_a_memory_is_archived_there_and_comes_back(other: Other, tmp_path: Path, buys: bool) -> None:
    await other.set(sells=buys)
    before = await other.seen()
    node = Node(tmp_path / "node")
    node.put(*(entry(number) for number in range(30)))
    place = SplitPlace(FolderPlace(tmp_path / "keys"), other.place(buys=buys, name=f"memory-{buys}"))
    await place.put(HEADER, sign_header(OWNER, HEADING))
    archiver = Archiver(place, HEADING, OWNER, Journal(tmp_path / "journal"), lambda: 1.0)
    await archiver.update(node.folder)
    node.put(entry(40))
    node.delete(entry(0))
    await archiver.update(node.folder)
    opened = await open_archive(place, await header_at(place), SECRET)
    await restore(place, opened, tmp_path / "restored", "11111111-0000-4000-8000-000000000000")
    assert content(tmp_path / "restored") == content(node.folder)
    after = await other.seen()
    taken, settled = (len(after[name]) - len(before[name]) for name in ("taken", "settled"))
    assert taken >= 6
    assert settled == (taken if buys else 0)
    assert len(after["payments"]) - len(before["payments"]) == settled


@pytest.mark.parametrize("buys", [False, True])
async def test_a_lost_answer_is_looked_for_and_nothing_is_paid_twice(other: Other, buys: bool) -> None:
    name = f"lost-{buys}"
    before = await other.seen()
    await other.set(loses=1, sells=buys)
    with pytest.raises(PlaceUnavailable, match="does not answer"):
        await other.place(buys=buys, name=name).put("segments/one", b"content")
    await other.place(buys=buys, name=name).put("segments/one", b"content")
    after = await other.seen()
    assert len(after["taken"]) == len(before["taken"]) + 1
    assert len(after["settled"]) == len(before["settled"]) + buys
    assert after["repeats"] == before["repeats"]


async def test_a_payment_that_is_used_up_is_not_replaced_while_its_time_runs(other: Other) -> None:
    await other.set(sells=True, loses=1)
    with pytest.raises(PlaceUnavailable):
        await other.place(buys=True, name="used").put("segments/one", b"content")
    held = (await other.seen())["payments"]
    with pytest.raises(PaymentUnknown, match="nonce already used"):
        await other.bundler().pay(b"whatever", held[-1])


@pytest.mark.parametrize(
    ("switches", "raised", "says"),
    [
        ({"fails": 402}, PaymentWanted, "wants to be paid for"),
        ({"fails": 500}, PlaceUnavailable, "answered 500"),
        ({"fails": 400}, NotAccepted, "answered 400"),
        ({"hides": True}, PlaceUnavailable, "was taken and is not shown yet"),
    ],
)
async def test_each_fault_is_told_from_the_others(
    other: Other, switches: Switches, raised: type[Exception], says: str
) -> None:
    name = "-".join(map(str, switches.items())).translate(str.maketrans("", "", "(), '"))
    await other.set(**switches)
    with pytest.raises(raised, match=says):
        await other.place(name=name).put("segments/one", b"content")
    await other.set(fails=0, hides=False, slow_ms=20)
    await other.place(name=name).put("segments/one", b"content")
    assert await other.place(name=name).get("segments/one", 100) == b"content"
    with pytest.raises(Missing):
        await other.place(name=name).get("segments/two", 100)


async def test_what_is_asked_is_held_against_the_limit(other: Other) -> None:
    await other.set(sells=True)
    assert await other.place(buys=True).price([100, 5_000]) == 2 * 1_514
    before = await other.seen()
    with pytest.raises(TooDear, match=r"at most 0\.001513 are paid at once"):
        await other.place(buys=True, most=1_513, name="dear").put("segments/one", b"content")
    assert await other.seen() == before


async def test_bytes_that_are_no_item_are_refused_there_as_here(other: Other) -> None:
    with pytest.raises(NotAccepted):
        await other.bundler().send(bytes(2_000))
