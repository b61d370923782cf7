"""What an archive needs of the place where it lies: the same of a folder and of a bucket."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from engram.archive.bucket_place import BucketPlace
from engram.archive.errors import AlreadyThere, Damaged, Missing, PlaceUnavailable
from engram.archive.folder_place import FolderPlace
from engram.archive.place import Place
from engram.archive.sigv4 import Credentials, signed_headers
from engram.http.client import HttpClient
from tests.fakes.bucket import ACCESS, REGION, SECRET, Bucket
from tests.fakes.responder import Responder


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
async def over_http(bucket: Bucket, nursery: trio.Nursery) -> AsyncIterator[BucketPlace]:
    url = await nursery.start(Responder(bucket.answer).run)
    client = HttpClient()
    credentials = Credentials(ACCESS, SECRET, REGION)
    yield BucketPlace(url, bucket.name, "my archives/one", credentials, client, lambda: bucket.now)
    await client.aclose()


@pytest.fixture(params=["folder", "bucket"])
async def place(request: pytest.FixtureRequest, tmp_path: Path, over_http: BucketPlace) -> Place:
    return FolderPlace(tmp_path / "archive") if request.param == "folder" else over_http


async def test_a_part_is_stored_once_and_read_as_it_was(place: Place) -> None:
    for content in (b"", b"content", bytes(70_000)):
        name = f"segments/{len(content)}"
        await place.put(name, content)
        await place.put(name, content)
        assert await place.get(name, 70_000) == content


async def test_a_part_is_never_replaced(place: Place) -> None:
    await place.put("manifests/1", b"first")
    for other in (b"other", b"first and more", b"1"):
        with pytest.raises(AlreadyThere, match="manifests/1 is there and has other bytes"):
            await place.put("manifests/1", other)
    assert await place.get("manifests/1", 100) == b"first"


async def test_a_missing_part_is_named(place: Place) -> None:
    with pytest.raises(Missing, match="segments/none is missing"):
        await place.get("segments/none", 100)
    await place.delete("segments/none")


async def test_a_part_larger_than_expected_is_not_read(place: Place) -> None:
    await place.put("keys/1", bytes(200_000))
    with pytest.raises(Damaged, match="more than 4096 bytes"):
        await place.get("keys/1", 4_096)


async def test_names_are_those_below_a_folder(place: Place) -> None:
    assert await place.names("segments") == []
    for name in ("segments/b", "segments/a", "segments/c & <d>", "segments/e", "segments/f", "keys/1"):
        await place.put(name, b"x")
    assert await place.names("segments") == ["segments/a", "segments/b", "segments/c & <d>", "segments/e", "segments/f"]
    await place.delete("segments/a")
    await place.delete("keys/1")
    assert await place.names("keys") == []


async def test_a_folder_that_cannot_be_used_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = FolderPlace(tmp_path / "file")
    for use in (place.put("keys/1", b""), place.get("keys/1", 1), place.names("keys"), place.delete("keys/1")):
        with pytest.raises(PlaceUnavailable, match=r"file/keys.* cannot be (written|read|listed|removed)"):
            await use


async def test_a_bucket_that_fails_is_unavailable(over_http: BucketPlace, bucket: Bucket) -> None:
    bucket.fails_with = 503
    for use in (
        over_http.put("keys/1", b""),
        over_http.get("keys/1", 1),
        over_http.names("keys"),
        over_http.delete("keys/1"),
    ):
        with pytest.raises(PlaceUnavailable, match="answered 503 SlowDown"):
            await use


async def test_an_answer_that_is_lost_leaves_the_part_to_be_found(over_http: BucketPlace, bucket: Bucket) -> None:
    bucket.loses_answers = True
    with pytest.raises(PlaceUnavailable, match="does not answer"):
        await over_http.put("keys/1", b"x")
    bucket.loses_answers = False
    await over_http.put("keys/1", b"x")
    assert bucket.objects == {"my archives/one/keys/1": b"x"}


async def test_a_service_that_ignores_conditions_replaces_neither_manifests_nor_keys(
    over_http: BucketPlace, bucket: Bucket
) -> None:
    bucket.ignores_conditions = True
    for name in ("header", "manifests/1", "keys/1"):
        await over_http.put(name, b"first")
        await over_http.put(name, b"first")
        with pytest.raises(AlreadyThere, match="other bytes"):
            await over_http.put(name, b"second")
        assert await over_http.get(name, 100) == b"first"


async def test_a_part_that_another_replaced_meanwhile_is_noticed(over_http: BucketPlace, bucket: Bucket) -> None:
    bucket.ignores_conditions = True
    bucket.after_put = lambda: bucket.objects.update({"my archives/one/manifests/1": b"another writer's"})
    with pytest.raises(AlreadyThere, match="other bytes"):
        await over_http.put("manifests/1", b"mine")


async def test_an_interrupted_part_is_there_or_not(place: Place) -> None:
    assert not await place.resume("segments/a")
    await place.put("segments/a", b"x")
    assert await place.resume("segments/a")
    assert await place.price([1, 2]) == 0


async def test_a_wrong_clock_or_key_is_said(over_http: BucketPlace, bucket: Bucket) -> None:
    now = bucket.now
    over_http._now = lambda: now - 3_600
    with pytest.raises(PlaceUnavailable, match="403 RequestTimeTooSkewed"):
        await over_http.put("keys/1", b"x")
    over_http._now = lambda: now
    over_http._credentials = Credentials(ACCESS, "another", REGION)
    with pytest.raises(PlaceUnavailable, match="403 SignatureDoesNotMatch"):
        await over_http.get("keys/1", 1)
    assert "another" not in repr(over_http._credentials)


async def test_a_listing_without_end_is_given_up(over_http: BucketPlace, bucket: Bucket) -> None:
    bucket.objects = {f"my archives/one/keys/{at:05}": b"" for at in range(2_001)}
    with pytest.raises(PlaceUnavailable, match="more than 1000 pages"):
        await over_http.names("keys")


EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "content", "signature"),
    [
        (
            "GET", "/test.txt", {}, {"Range": "bytes=0-9"}, b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT", "/test%24file.text", {},
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET", "/", {"max-keys": "2", "prefix": "J"}, {}, b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)  # fmt: skip
def test_a_signature_is_that_of_the_specifications_examples(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], content: bytes, signature: str
) -> None:
    host, now = "examplebucket.s3.amazonaws.com", 1_369_353_600.0
    sent = signed_headers(EXAMPLE, method, host, path, query, headers, content, now)
    assert sent["authorization"].endswith(f"Signature={signature}")


def test_a_session_token_is_sent_and_signed() -> None:
    credentials = Credentials("A", "s", "r", "token")
    sent = signed_headers(credentials, "GET", "h", "/", {}, {}, b"", 0.0)
    assert sent["x-amz-security-token"] == "token"
    assert "x-amz-security-token" in sent["authorization"]
