"""Our requests to a bucket of npm's s3rver, which checks signatures and ignores If-None-Match."""

import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from engram.archive.archiver import Archiver
from engram.archive.bucket_place import BucketPlace
from engram.archive.errors import AlreadyThere, Locked, Missing, PlaceUnavailable
from engram.archive.journal import Journal
from engram.archive.model import HEADER
from engram.archive.reading import header_at, open_archive
from engram.archive.restorer import restore
from engram.archive.signing import sign_header
from engram.archive.sigv4 import Credentials
from engram.http.client import HttpClient
from tests.archive.nodes import OWNER, Node, content, entry
from tests.archive.test_crashes import HEADING, SECRET
from tests.evm import node as npm

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(
        shutil.which("node") is None or not (npm.FOLDER / "node_modules" / "@20minutes" / "s3rver").is_dir(),
        reason="npm's s3rver is not installed (scripts/setup-node)",
    ),
]
A_PAGE = 1_000
Opened = Callable[..., BucketPlace]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    words = ["node", "--openssl-legacy-provider", "bucket.mjs", str(tmp_path_factory.mktemp("bucket"))]
    with subprocess.Popen(words, cwd=npm.FOLDER, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@pytest.fixture
async def opened(url: str) -> AsyncIterator[Opened]:
    client = HttpClient()

    def open_(prefix: str, secret: str = "S3RVER") -> BucketPlace:
        return BucketPlace(url, "vault", prefix, Credentials("S3RVER", secret, "us-east-1"), client, time.time)

    yield open_
    await client.aclose()


async def test_a_memory_is_archived_shredded_and_comes_back(opened: Opened, tmp_path: Path) -> None:
    place = opened("my archives/one")
    node = Node(tmp_path / "node")
    node.put(*(entry(number) for number in range(30)))
    await place.put(HEADER, sign_header(OWNER, HEADING))
    archiver = Archiver(place, HEADING, OWNER, Journal(tmp_path / "journal"), lambda: 1.0)
    await archiver.update(node.folder)
    before = await open_archive(place, HEADING, SECRET)
    node.put(entry(40))
    node.delete(entry(0))
    await archiver.shred(node.folder)
    opened_again = await open_archive(place, await header_at(place), SECRET)
    await restore(place, opened_again, tmp_path / "restored", "11111111-0000-4000-8000-000000000000")
    assert content(tmp_path / "restored") == content(node.folder)
    for ref in before.manifest.segments:
        with pytest.raises(Missing):
            await place.get(f"segments/{ref.name}", 1 << 25)
    with pytest.raises(Locked, match="the key of epoch 1 is not there"):
        await open_archive(place, HEADING, SECRET, number=1)


async def test_what_is_there_is_not_replaced_though_the_bucket_would(opened: Opened) -> None:
    place = opened("kept")
    await place.put("manifests/000000000001", b"first")
    with pytest.raises(AlreadyThere, match="other bytes"):
        await place.put("manifests/000000000001", b"other")
    assert await place.get("manifests/000000000001", 100) == b"first"


async def test_another_key_is_refused_there(opened: Opened) -> None:
    place = opened("kept", secret="S3RVES")
    for use in (place.put("keys/1", b""), place.get("keys/1", 1), place.names("keys"), place.delete("keys/1")):
        with pytest.raises(PlaceUnavailable, match="403 SignatureDoesNotMatch"):
            await use


async def test_names_are_read_over_the_end_of_a_page(opened: Opened) -> None:
    place = opened("many")
    names = [f"segments/{number:05}" for number in range(A_PAGE + 3)]
    for name in names:
        await place.put(name, b"")
    assert await place.names("segments") == names
