"""Downloading weights: in parts, going on where it stopped, and nothing but the published files."""

import hashlib
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from engram.http.client import HttpClient
from engram.memory.embed import weights
from engram.memory.embed.minilm import MiniLmEmbedder
from engram.memory.embed.weights_hub import FOLDER, PART_BYTES, Hub, HubUnavailable
from engram.memory.errors import EmbedderUnavailable, WeightsRefused
from tests.fakes.responder import Answer, Asked, Responder

CONTENT = {weights.WEIGHTS: bytes(range(256)) * 40_000, weights.TOKENIZER: b'{"tokens": []}'}


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files stand for the published ones."""
    for name, content in CONTENT.items():
        monkeypatch.setitem(weights.PUBLISHED, name, hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(weights.SIZES, name, len(content))


async def hub(asked: Asked) -> Answer:
    """Serves the files by parts, as hubs do, behind a redirect."""
    name = asked.target.rpartition("/")[2]
    if asked.target.startswith("/resolve/"):
        return 302, {"location": f"/stored/{name}"}, b""
    return part_of(CONTENT[name], asked)


def part_of(content: bytes, asked: Asked) -> Answer:
    first, last = (int(number) for number in asked.headers["range"].removeprefix("bytes=").split("-"))
    return 206, {"content-range": f"bytes {first}-{last}/{len(content)}"}, content[first : last + 1]


async def test_files_come_in_parts_and_are_not_asked_for_again(tmp_path: Path, nursery: trio.Nursery) -> None:
    responder = Responder(hub)
    url = await nursery.start(responder.run)
    told: list[int] = []
    source = Hub(HttpClient(), f"{url}/resolve/", tmp_path)
    source.on_progress = lambda done, total: told.append(done)
    folder = await source.fetch()
    assert {name: (folder / name).read_bytes() for name in CONTENT} == CONTENT
    assert told[:3] == [PART_BYTES, 2 * PART_BYTES, len(CONTENT[weights.WEIGHTS])]
    asked = len(responder.asked)
    assert weights.find(await source.fetch()).weights == tmp_path / FOLDER / weights.WEIGHTS
    assert len(responder.asked) == asked
    assert {path.name for path in folder.iterdir()} == {*CONTENT, ".lock"}


async def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path: Path, nursery: trio.Nursery) -> None:
    broken = True

    async def breaking(asked: Asked) -> Answer | None:
        return None if broken and f"={2 * PART_BYTES}-" in asked.headers["range"] else await hub(asked)

    responder = Responder(breaking)
    url = await nursery.start(responder.run)
    with pytest.raises(HubUnavailable):
        await Hub(HttpClient(), f"{url}/stored", tmp_path).fetch()
    broken, before = False, len(responder.asked)
    await Hub(HttpClient(), f"{url}/stored", tmp_path).fetch()
    assert responder.asked[before].headers["range"].startswith(f"bytes={2 * PART_BYTES}-")


async def test_what_an_earlier_download_left_wrong_is_downloaded_anew(tmp_path: Path, nursery: trio.Nursery) -> None:
    url = await nursery.start(Responder(hub).run)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / f"{weights.WEIGHTS}.part").write_bytes(b"wrong" * 1_000)
    (tmp_path / FOLDER / weights.TOKENIZER).write_bytes(b"wrong")
    folder = await Hub(HttpClient(), f"{url}/resolve", tmp_path).fetch()
    assert {name: (folder / name).read_bytes() for name in CONTENT} == CONTENT


async def wrong_bytes(asked: Asked) -> Answer:
    return part_of(b"\0" * len(CONTENT[weights.WEIGHTS]), asked)


async def wrong_size(asked: Asked) -> Answer:
    return part_of(b"\0" * 20_000_000, asked)


async def no_parts(asked: Asked) -> Answer:
    return 200, {}, CONTENT[weights.WEIGHTS]


async def nothing_there(asked: Asked) -> Answer:
    return 404, {}, b""


@pytest.mark.parametrize(
    ("answer", "told"),
    [(wrong_bytes, "sha256"), (wrong_size, "20000000 bytes"), (no_parts, "ranges"), (nothing_there, "hub_url")],
)
async def test_what_is_not_the_published_file_is_refused_and_not_kept(
    tmp_path: Path, nursery: trio.Nursery, answer: object, told: str
) -> None:
    url = await nursery.start(Responder(answer).run)  # type: ignore[arg-type]  # each is as a Responder wants it
    with pytest.raises(WeightsRefused, match=told):
        await Hub(HttpClient(), url, tmp_path).fetch()
    assert not (tmp_path / FOLDER / weights.WEIGHTS).exists()


async def test_a_hub_that_leads_round_in_circles_is_given_up(tmp_path: Path, nursery: trio.Nursery) -> None:
    async def around(asked: Asked) -> Answer:
        return 302, {"location": "/again"}, b""

    url = await nursery.start(Responder(around).run)
    with pytest.raises(HubUnavailable, match="redirects"):
        await Hub(HttpClient(), url, tmp_path).fetch()


async def test_texts_are_told_what_they_wait_for_and_a_hub_that_is_down_is_tried_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    minilm = MiniLmEmbedder(None, tmp_path, Hub(HttpClient(), "nothing://here", tmp_path))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(minilm.run, lambda: None)
        with pytest.raises(EmbedderUnavailable, match="cannot be downloaded now"):
            await minilm.embed(["a"])
        assert minilm.state == "loading"
        nursery.cancel_scope.cancel()
