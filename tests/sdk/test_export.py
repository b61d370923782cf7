"""Taking a memory along from a real node, and from nodes that break off, repeat themselves or send without end."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from config.model import MinerSettings
from engram.clock import SystemClock
from engram.sdk import (
    ApiError,
    AsyncNodeClient,
    Exported,
    Impostor,
    MalformedAnswer,
    NodeClient,
    NotReached,
    OutcomeUnknown,
)
from engram.sdk.export_rules import RECONNECTS, ExportWalk
from engram.sdk.node_calls import NodeCalls
from engram.sdk.shamir import Share
from tests.gateway.surface import PHONE
from tests.miner.nodes import CONTROLLER, NODE, STRANGER, NodeProcess, node
from tests.sdk.doubles import Asked, Told, scripted

Take = Callable[..., list[Exported]]


def taken(url: str, **options: object) -> list[Exported]:
    with NodeClient(url, CONTROLLER, sleep=lambda _: None) as client:
        return list(client.export(**options))  # type: ignore[arg-type]  # each test names what it takes


def taken_for_trio(url: str, **options: object) -> list[Exported]:
    async def take() -> list[Exported]:
        async with (
            AsyncNodeClient(url, CONTROLLER) as client,
            client.export(**options) as documents,  # type: ignore[arg-type]  # each test names what it takes
        ):
            return [document async for document in documents]

    return trio.run(take)


take_ways = pytest.mark.parametrize("take", [taken, taken_for_trio], ids=["blocking", "trio"])


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with node(tmp_path_factory.mktemp("node"), miner=MinerSettings(private_bucket_ms=0)) as made:
        with NodeClient(url_of(made), CONTROLLER, namespace="vault") as mine:
            mine.ingest_batch([(f"text {number} " + "x" * 7_000, {"n": number}) for number in range(120)])
            mine.put_share(Share(1, b"x"), 2, 3)
        made.post("/IngestSynapse", text="for everybody")
        yield made


def url_of(of: NodeProcess) -> str:
    return f"http://127.0.0.1:{of.port}"


@pytest.mark.serial
@take_ways
def test_a_phone_takes_everything_of_its_own_along(filled: NodeProcess, take: Take) -> None:
    documents = take(url_of(filled), node=NODE.public_key)
    assert [document.kind for document in documents] == ["record"] * 121 + ["key_share"]
    texts = [str(document.fields["text"]).split()[1] for document in documents[:-1]]
    assert sorted(texts) == sorted([*map(str, range(120)), "everybody"])
    assert take(url_of(filled), after=documents[100]) == documents[101:]
    with pytest.raises(Impostor):
        take(url_of(filled), node=STRANGER.public_key)


@pytest.mark.serial
def test_what_was_taken_is_stored_again_under_the_same_ids(filled: NodeProcess, tmp_path: Path) -> None:
    documents = [document.fields for document in taken(url_of(filled)) if document.kind == "record"][:20]
    items = [(str(each["text"]), msgspec.convert(each["metadata"], dict[str, str])) for each in documents]
    with (
        node(tmp_path, miner=MinerSettings(private_bucket_ms=0)) as other,
        NodeClient(url_of(other), CONTROLLER, namespace="vault") as mine,
    ):
        assert mine.ingest_batch(items) == [each["cid"] for each in documents]


@pytest.mark.serial
def test_nobody_else_takes_it(filled: NodeProcess) -> None:
    with NodeClient(url_of(filled), STRANGER) as client, pytest.raises(ApiError, match="403"):
        next(client.export())
    with NodeClient(url_of(filled)) as client, pytest.raises(ValueError, match="keypair"):
        next(client.export())


@pytest.mark.serial
async def test_leaving_in_the_middle_frees_the_connection(filled: NodeProcess) -> None:
    async with AsyncNodeClient(url_of(filled), CONTROLLER) as client:
        for _ in range(4):  # a node gives two at once
            async with client.export() as documents:
                async for document in documents:
                    assert document.kind == "record"
                    break
        with trio.move_on_after(0) as gave_up:
            async with client.export() as documents:
                async for _ in documents:
                    pass
        assert gave_up.cancelled_caught
    with NodeClient(url_of(filled), CONTROLLER) as blocking:
        for _ in range(4):
            assert next(blocking.export()).kind == "record"


def lines(*documents: dict[str, object]) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


RECORDS: list[dict[str, object]] = [{"kind": "record", "id": number, "cid": f"c{number}"} for number in range(1, 7)]


@take_ways
def test_a_lost_connection_is_made_again_behind_the_last_document(take: Take) -> None:
    asked: list[tuple[str, int]] = []

    def script(request: Asked) -> Told:
        body = json.loads(request.body)
        asked.append((body["kind"], body["after"]))
        if len(asked) == 2:
            return Told(503, b'{"error": "two exports are on their way", "code": "busy"}')
        behind = [document for document in RECORDS if int(str(document["id"])) > body["after"]]
        whole = lines(*behind, {"kind": "end", "count": len(behind)})
        return Told(body=whole, cut=90 if len(asked) == 1 else None)

    with scripted(script) as url:
        assert [document.id for document in take(url)] == [1, 2, 3, 4, 5, 6]
    assert asked == [("record", 0), ("record", 2), ("record", 2)]


def test_a_node_that_breaks_off_again_and_again_is_given_up() -> None:
    asked: list[int] = []

    def script(request: Asked) -> Told:
        asked.append(json.loads(request.body)["after"])
        return Told(body=lines(*RECORDS[:2]) if asked[-1] == 0 else b"")

    with scripted(script) as url, pytest.raises(OutcomeUnknown, match="the last document was record 2"):
        taken(url)
    assert asked == [0] + [2] * RECONNECTS
    with pytest.raises(NotReached):
        taken("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (lines(*RECORDS[:2], RECORDS[0]), "went back: record 1"),
        (lines({"kind": "key_share", "id": 1}, RECORDS[0]), "went back: record 1"),
        (lines(RECORDS[0], {"kind": "end", "count": 2}), "sent 2 documents, 1 came"),
        (lines({"kind": "end", "count": 0}, RECORDS[0]), "behind its end"),
        (lines({"kind": "secret", "id": 1}), "kind is one of"),
        (lines({"kind": "record"}), "could not be read"),
        (b"[" * 50_000 + b"\n", "could not be read"),
        (b"\xff\n", "could not be read"),
        (b"x" * 9_000_000, "more than 8388608 bytes"),
    ],
    ids=["again", "back", "count", "behind the end", "kind", "no id", "deep", "no text", "long"],
)
@take_ways
def test_a_stream_that_cannot_be_right_is_refused(take: Take, body: bytes, why: str) -> None:
    with scripted(lambda _: Told(body=body)) as url, pytest.raises(MalformedAnswer, match=why):
        take(url)


@given(st.integers(1, 40), st.lists(st.integers(1, 6), unique=True).map(sorted))
def test_documents_are_the_same_however_the_answer_is_cut(size: int, ids: list[int]) -> None:
    whole = lines(*({"kind": "record", "id": each} for each in ids), {"kind": "end", "count": len(ids)})
    export = ExportWalk(NodeCalls(SystemClock(), PHONE), None, lambda _: None)
    export.request()
    parts = [whole[start : start + size] for start in range(0, len(whole), size)]
    assert [document.id for part in parts for document in export.take(part)] == ids
    assert export.done


def test_memory_stays_bounded_however_long_the_export_is() -> None:
    export = ExportWalk(NodeCalls(SystemClock(), PHONE), None, lambda _: None)
    export.request()
    tracemalloc.start()
    try:
        for number in range(1, 2_001):  # 40 MB
            for document in export.take(lines({"kind": "record", "id": number, "text": "x" * 20_000})):
                assert document.id == number
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
