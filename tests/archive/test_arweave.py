"""An archive on Arweave: the same bytes whatever happens, paid for once, counted only when they were read back."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

from engram.archive import arweave_place
from engram.archive.archiver import Archiver
from engram.archive.arweave_place import ArweavePlace, SplitPlace
from engram.archive.bundler import Bundler
from engram.archive.errors import (
    AlreadyThere,
    CannotErase,
    Damaged,
    Missing,
    NotAccepted,
    PaymentWanted,
    PlaceUnavailable,
    TooDear,
)
from engram.archive.folder_place import FolderPlace
from engram.archive.item_keys import EthereumKey
from engram.archive.journal import Journal
from engram.archive.model import HEADER
from engram.archive.place import Place
from engram.archive.reading import header_at, open_archive
from engram.archive.restorer import restore
from engram.archive.signing import sign_header
from engram.http.client import HttpClient
from tests.archive.nodes import OWNER, Node, content, entry
from tests.archive.test_crashes import HEADING, SECRET
from tests.fakes.bundler import Arweave
from tests.fakes.responder import Responder

KEY = EthereumKey(b"\x05" * 32)
Opened = Callable[..., ArweavePlace]


@pytest.fixture
def arweave() -> Arweave:
    return Arweave()


@pytest.fixture
async def opened(
    arweave: Arweave, nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Opened]:
    url = await nursery.start(Responder(arweave.answer).run)
    client = HttpClient()
    monkeypatch.setattr(arweave_place, "_LOOK_EVERY_S", 0.0)

    def open_(key: EthereumKey | str = KEY, archive: str = "aa", most: int = 10_000_000) -> ArweavePlace:
        """A place as a new process finds it."""
        return ArweavePlace(Bundler(client, url, url, url), key, archive, tmp_path / archive, most)

    yield open_
    await client.aclose()


def spooled(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("aa/*/*"))


async def test_a_part_is_stored_once_found_again_and_never_replaced(opened: Opened, arweave: Arweave) -> None:
    for name in ("segments/one", "segments/two", "manifests/1"):
        await opened().put(name, name.encode())
        await opened().put(name, name.encode())
    assert len(arweave.charged) == 3
    assert await opened().names("segments") == ["segments/one", "segments/two"]
    assert await opened().get("segments/two", 100) == b"segments/two"
    with pytest.raises(AlreadyThere, match="other bytes"):
        await opened().put("segments/one", b"other")
    with pytest.raises(Missing):
        await opened().get("segments/three", 100)
    with pytest.raises(Damaged, match="more than 5 bytes"):
        await opened().get("segments/two", 5)
    await opened().delete("segments/two")
    assert await opened().get("segments/two", 100) == b"segments/two"


async def test_parts_of_another_archive_or_key_are_not_mine(opened: Opened) -> None:
    await opened().put("segments/one", b"mine")
    assert await opened(archive="bb").names("segments") == []
    assert await opened(key=EthereumKey(b"\x06" * 32)).names("segments") == []
    with pytest.raises(Missing):
        await opened(archive="bb").get("segments/one", 100)


async def test_an_answer_that_is_lost_costs_nothing(opened: Opened, arweave: Arweave, tmp_path: Path) -> None:
    arweave.loses_answers, arweave.indexes = 1, False
    with pytest.raises(PlaceUnavailable, match="does not answer"):
        await opened().put("segments/one", b"content")
    assert spooled(tmp_path) == ["segments-one", "segments-one.sent"]
    await opened().put("segments/one", b"content")
    assert (len(arweave.charged), arweave.sent) == (1, 1)
    assert spooled(tmp_path) == ["segments-one.id"]


async def test_what_was_taken_and_is_not_shown_does_not_count(
    opened: Opened, arweave: Arweave, tmp_path: Path, autojump_clock: object
) -> None:
    arweave.shows = arweave.indexes = False
    with pytest.raises(PlaceUnavailable, match="was taken and is not shown yet"):
        await opened().put("segments/one", b"content")
    assert "segments-one" in spooled(tmp_path)
    arweave.shows = True  # the index lags still
    await opened().put("segments/one", b"content")
    assert len(arweave.charged) == 1
    assert spooled(tmp_path) == ["segments-one.id"]


async def test_a_gateway_that_shows_other_bytes_is_not_believed(opened: Opened, arweave: Arweave) -> None:
    arweave.lies = True
    with pytest.raises(Damaged, match="other bytes are shown"):
        await opened().put("segments/one", b"content")


async def test_what_was_begun_with_other_bytes_is_not_mixed_up(opened: Opened, arweave: Arweave) -> None:
    arweave.loses_answers, arweave.indexes = 1, False
    with pytest.raises(PlaceUnavailable):
        await opened().put("manifests/1", b"content")
    with pytest.raises(AlreadyThere, match="was sent with other bytes"):
        await opened().put("manifests/1", b"another")


async def test_nothing_is_sent_above_the_price_that_was_set(opened: Opened, arweave: Arweave) -> None:
    with pytest.raises(TooDear, match="at most 100 are paid"):
        await opened(most=100).put("segments/one", b"content")
    assert arweave.charged == []


@pytest.mark.parametrize(
    ("fault", "raised", "says"),
    [
        ({"wants_payment": True}, PaymentWanted, "wants to be paid for .* Insufficient balance"),
        ({"winc_a_byte": -1}, PlaceUnavailable, "names the price -"),
    ],
)
async def test_what_a_bundler_wants_is_said(
    opened: Opened, arweave: Arweave, fault: dict[str, int], raised: type[Exception], says: str
) -> None:
    for name, value in fault.items():
        setattr(arweave, name, value)
    with pytest.raises(raised, match=says):
        await opened().put("segments/one", b"content")


async def test_a_service_that_fails_is_unavailable(opened: Opened, arweave: Arweave) -> None:
    arweave.fails_with = 503
    place = opened()
    bundler: Bundler = place._bundler
    uses: list[Awaitable[object]] = [
        place.put("segments/one", b""),
        place.get("segments/one", 1),
        place.names("segments"),
        bundler.price(1),
        bundler.send(b""),
        bundler.read("x", 1),
    ]
    for use in uses:
        with pytest.raises(PlaceUnavailable, match="503"):
            await use


async def test_a_malformed_item_is_refused_for_good(opened: Opened) -> None:
    with pytest.raises(NotAccepted, match="truncated"):
        await opened()._bundler.send(b"x")


@pytest.mark.parametrize("fault", ["payment", "price"])
async def test_what_was_never_sent_is_forgotten_and_stands_in_nobodys_way(
    opened: Opened, arweave: Arweave, tmp_path: Path, fault: str
) -> None:
    arweave.wants_payment = fault == "payment"
    with pytest.raises((PaymentWanted, TooDear)):
        await opened(most=10_000 if fault == "payment" else 10).put("manifests/1", b"content")
    assert spooled(tmp_path) == []
    arweave.wants_payment = False  # topped up, and meanwhile the manifest has become another
    await opened().put("manifests/1", b"another")
    assert await opened().get("manifests/1", 100) == b"another"


async def test_all_parts_together_stay_within_the_limit(opened: Opened, arweave: Arweave) -> None:
    place = opened(most=2_000)
    await place.put("segments/one", bytes(100))
    with pytest.raises(TooDear, match="at most 2000 are paid at once"):
        await place.put("segments/two", bytes(300))
    assert len(arweave.charged) == 1


async def test_what_the_bundler_has_is_never_sent_twice(
    opened: Opened, arweave: Arweave, autojump_clock: object
) -> None:
    arweave.shows = arweave.indexes = False
    for _ in range(4):
        with pytest.raises(PlaceUnavailable, match="not shown yet"):
            await opened().put("segments/one", b"content")
    assert (len(arweave.charged), arweave.sent) == (1, 1)


async def test_what_the_bundler_says_has_failed_is_sent_again(
    opened: Opened, arweave: Arweave, autojump_clock: object
) -> None:
    arweave.shows = arweave.indexes = False
    with pytest.raises(PlaceUnavailable, match="not shown yet"):
        await opened().put("segments/one", b"content")
    arweave.status = "FAILED"
    with pytest.raises(PlaceUnavailable, match="not shown yet"):
        await opened().put("segments/one", b"content")
    assert (len(arweave.charged), arweave.sent) == (1, 2)


async def test_a_part_is_found_by_its_id_while_the_index_lags(opened: Opened, arweave: Arweave) -> None:
    arweave.indexes = False
    await opened().put("manifests/1", b"content")
    assert await opened().get("manifests/1", 100) == b"content"
    with pytest.raises(AlreadyThere):
        await opened().put("manifests/1", b"another")


@pytest.mark.parametrize(
    ("interrupted", "is_there", "sent"),
    [("before sending", False, 0), ("after sending", True, 1), ("never begun", False, 0)],
)
async def test_what_was_interrupted_is_brought_to_its_end(
    opened: Opened, arweave: Arweave, tmp_path: Path, interrupted: str, is_there: bool, sent: int
) -> None:
    place = opened()
    if interrupted != "never begun":
        place._kept("segments/one", b"content")
    if interrupted == "after sending":
        place._note_sent("segments/one")
    assert await opened().resume("segments/one") is is_there
    assert await opened().resume("segments/one") is is_there
    assert arweave.sent == sent
    assert spooled(tmp_path) == (["segments-one.id"] if is_there else [])


async def test_a_gateway_shows_items_below_its_own_name(opened: Opened, arweave: Arweave) -> None:
    arweave.sandbox = "/sandbox"
    await opened().put("segments/one", b"content")
    assert await opened().get("segments/one", 100) == b"content"


@pytest.mark.parametrize("location", ["https://elsewhere.example", "http://127.0.0.1:9", "http://user@127.0.0.1", ""])
async def test_a_gateway_that_sends_elsewhere_is_not_followed(opened: Opened, arweave: Arweave, location: str) -> None:
    arweave.sandbox = location or "/sandbox"
    arweave.sends_on_and_on = not location
    with pytest.raises(PlaceUnavailable, match=r"not below its own name|answered 302"):
        await opened().put("segments/one", b"content")


async def test_what_everything_will_cost_is_said_before_anything_is_sent(
    opened: Opened, arweave: Arweave, tmp_path: Path
) -> None:
    node = Node(tmp_path / "node")
    node.put(*(entry(number) for number in range(5)))
    said: list[tuple[int, int, int, int]] = []

    def work(most: int) -> Archiver:
        place = SplitPlace(FolderPlace(tmp_path / "keys"), opened(most=most))
        return Archiver(
            place, HEADING, OWNER, Journal(tmp_path / "journal"), lambda: 1.0,
            on_price=lambda parts, size, price: said.append((parts, size, price, arweave.sent)),
        )  # fmt: skip

    with pytest.raises(TooDear, match=r"2 parts of \d+ bytes cost \d+ winston credits; at most 60000 are paid at once"):
        await work(60_000).update(node.folder)  # each alone is cheaper
    assert arweave.sent == 0
    await work(200_000).update(node.folder)
    ((parts, size, price, sent),) = said
    assert (parts, sent) == (2, 0)
    paid = sum(len(item.data) for item in arweave.items.values())
    assert (size, price) == (paid, 3 * (paid + 2 * 512))


async def test_an_archive_is_found_by_its_header_and_only_read_without_its_key(
    opened: Opened, arweave: Arweave
) -> None:
    place = opened()
    for key, header in ((EthereumKey(b"\x06" * 32), b"a stranger's"), (KEY, b"mine")):
        await opened(key=key).put(HEADER, header)
    address = await arweave_place.address_of(place._bundler, "aa", lambda stored: stored == b"mine")
    assert address == place.owner
    reader = opened(key=address)
    assert await reader.get(HEADER, 100) == b"mine"
    with pytest.raises(NotAccepted, match="only read here"):
        await reader.put("segments/one", b"content")
    with pytest.raises(Missing, match="of 2 archives on Arweave that are named aa none"):
        await arweave_place.address_of(place._bundler, "aa", lambda stored: False)


async def test_keys_never_lie_on_arweave(opened: Opened) -> None:
    with pytest.raises(CannotErase, match="forever"):
        await opened().put("keys/000001", b"sealed")


async def test_a_memory_is_archived_there_shredded_and_restored(opened: Opened, tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    node.put(*(entry(number) for number in range(5)))
    node.note(1)

    def place() -> Place:
        return SplitPlace(FolderPlace(tmp_path / "keys"), opened())

    await place().put(HEADER, sign_header(OWNER, HEADING))
    journal = tmp_path / "journal"
    await Archiver(place(), HEADING, OWNER, Journal.open(journal), lambda: 1.0).update(node.folder)
    node.delete(entry(2))
    await Archiver(place(), HEADING, OWNER, Journal.open(journal), lambda: 1.0).shred(node.folder)
    assert [path.name for path in (tmp_path / "keys" / "keys").iterdir()] == ["000002"]
    there = place()
    archive = await open_archive(there, await header_at(there, bytes(OWNER.public_key)), SECRET)
    await restore(there, archive, tmp_path / "new", "11111111-0000-4000-8000-000000000000")
    assert content(tmp_path / "new") == content(node.folder)
    assert "with keys in" in there.address
