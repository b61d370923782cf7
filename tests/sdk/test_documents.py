"""Documents under ids of one's own: what stays when several put one id, and what a node that lies achieves."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from config.model import MinerSettings
from engram.clock import Clock, ManualClock, SystemClock
from engram.sdk import NamespaceCipher, NodeClient
from engram.sdk.documents import Document, Documents
from engram.sdk.encryption import Cipher
from engram.sdk.errors import MalformedAnswer
from tests.miner.nodes import CONTROLLER, NodeProcess, node
from tests.sdk.doubles import Asked, Told, scripted

pytestmark = pytest.mark.serial

UP = [1.0] + [0.0] * 383
CIPHERS = [None, NamespaceCipher("vault", "0123456789abcdef")]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with node(tmp_path_factory.mktemp("node"), miner=MinerSettings(private_bucket_ms=0)) as made:
        yield made


def client(of: NodeProcess, namespace: str, cipher: Cipher | None = None, clock: Clock | None = None) -> NodeClient:
    return named(f"http://127.0.0.1:{of.port}", namespace, cipher, clock)


def named(url: str, namespace: str, cipher: Cipher | None = None, clock: Clock | None = None) -> NodeClient:
    return NodeClient(url, CONTROLLER, namespace=namespace, cipher=cipher, clock=clock)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_two_who_put_one_id_at_once_do_not_take_out_each_others(
    running: NodeProcess, cipher: Cipher | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_see_both = threading.Barrier(2)
    met = threading.local()
    ask = NodeClient.ask

    def meeting(self: NodeClient, call: Any) -> Any:
        answer = ask(self, call)
        if call.path == "/list" and not hasattr(met, "once"):
            met.once = both_see_both.wait(10)
        return answer

    monkeypatch.setattr(NodeClient, "ask", meeting)
    name = f"race{cipher is None}"

    def put(text: str, clock: Clock) -> None:  # one clock would sign two equal requests of one millisecond
        with client(running, name, cipher, clock) as mine:
            Documents(mine).put([(Document("one", text), UP)])

    clocks = (SystemClock(), ManualClock(time.time() + 5))
    threads = [threading.Thread(target=put, args=each) for each in zip(("left", "right"), clocks, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    with client(running, name, cipher) as mine:
        [kept] = Documents(mine).get(["one"])
        assert kept.text in ("left", "right")


def test_of_two_with_one_id_the_last_is_kept(running: NodeProcess) -> None:
    with client(running, "twice") as mine:
        documents = Documents(mine)
        for _ in range(5):
            documents.put([(Document("one", f"text {number}"), UP) for number in range(8)])
            assert [kept.text for kept in documents.get(["one"])] == ["text 7"]
        assert len(mine.list()) == 1


@pytest.mark.parametrize("cipher", CIPHERS)
def test_putting_again_mends_what_was_interrupted(running: NodeProcess, cipher: Cipher | None) -> None:
    with client(running, f"mended{cipher is None}", cipher) as mine:
        documents = Documents(mine)
        older, newer = Document("one", "older"), Document("one", "newer")
        documents.add([(older, UP)])
        documents.add([(newer, UP)])
        assert documents.get(["one"]) == [newer]
        documents.put([(older, UP)])
        assert documents.get(["one"]) == [older]
        assert documents.delete(["one"]) == 1


def test_texts_of_space_and_keys_that_are_no_text_come_back(running: NodeProcess) -> None:
    with client(running, "odd") as mine:
        documents = Documents(mine)
        metadata: dict[Any, object] = {5: "five", "": "none", "big": 10**30, 'a"b\\\n\u2028': "é😀"}
        documents.put([(Document(" \U0001f600\n", " \n\t", metadata), UP), (Document("", ""), UP)])
        blank, empty = documents.get([" \U0001f600\n", ""])
        assert (blank.text, empty.text) == (" \n\t", "")
        assert blank.metadata == {"5": "five", "": "none", "big": 10**30, 'a"b\\\n\u2028': "é😀"}


def test_a_node_that_gives_another_document_is_not_believed(running: NodeProcess) -> None:
    with client(running, "true") as mine:
        documents = Documents(mine)
        documents.put([(Document("one", "of one"), UP), (Document("two", "of two"), UP)])
        one, two = sorted((memory.metadata for memory in mine.list()), key=lambda metadata: str(metadata["_doc"]))
    record = {"cid": "v1::" + "0" * 64, "text": "of two"}
    lies = [{**two, "_ref": one["_ref"]}, {**one, "_ref": two["_ref"]}, {**one, "_doc": "[" * 100_000}]
    for metadata in lies:
        answer = {"records": [{**record, "metadata": metadata}], "results": [{**record, "metadata": metadata}]}
        told = Told(body=json.dumps(answer).encode())
        with scripted(lambda asked, told=told: told) as url, named(url, "true") as mine:  # type: ignore[misc]
            lied_to = Documents(mine)
            with pytest.raises(MalformedAnswer):
                lied_to.search(UP, 1)
            if metadata["_ref"] == one["_ref"]:
                with pytest.raises(MalformedAnswer):
                    lied_to.get(["one"])


def test_a_node_that_gives_what_was_not_looked_up_makes_nobody_delete_it() -> None:
    deleted: list[str] = []

    def script(asked: Asked) -> Told:
        if asked.path == "/DeleteBatch":
            deleted.append(asked.path)
            return Told(body=b'{"results": [{"deleted": true}]}')
        if asked.path == "/IngestBatch":
            return Told(body=b'{"results": [{"cid": "v1::new"}]}')
        found = [{"cid": f"v1::{number}", "value": "of another"} for number in range(3)]
        return Told(body=json.dumps({"records": found}).encode())

    with scripted(script) as url, named(url, "notes") as mine:
        documents = Documents(mine)
        documents.put([(Document("one", "text"), UP)])
        documents.delete(["one"])
        documents.delete_group("group")
    assert deleted == []


def test_a_node_whose_pages_never_end_is_left() -> None:
    def script(asked: Asked) -> Told:
        listed = [{"cid": "v1::1", "value": "x", "embedding_hash": "00", "metadata": {"_ref": "r"}}]
        return Told(body=json.dumps({"records": listed, "next": "00"}).encode())

    with scripted(script) as url, named(url, "notes") as mine:
        documents = Documents(mine)
        for act in (documents.clear, lambda: documents.get(["one"]), lambda: documents.delete(["one"])):
            with pytest.raises(MalformedAnswer, match="circle"):
                act()


def test_a_search_finds_documents_however_near_other_memories_are(running: NodeProcess) -> None:
    with client(running, "among_others") as mine:
        for number in range(12):
            mine.ingest_vector([1.0, number / 1_000, *[0.0] * 382], {"n": number})
        documents = Documents(mine)
        documents.put([(Document("one", "text", {"n": 1}), [-1.0, *[0.0] * 383])])
        for where in (None, {"n": 1}, {"n": 1.0}):
            assert [found.document.id for found in documents.search(UP, 4, where)] == ["one"]
        assert documents.search(UP, 4, {"n": True}) == []
        assert documents.clear() == 1
        assert len(mine.list()) == 12


def test_many_documents_take_few_requests(running: NodeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ask = NodeClient.ask

    def counting(self: NodeClient, call: Any) -> Any:
        asked.append(call.path)
        return ask(self, call)

    monkeypatch.setattr(NodeClient, "ask", counting)
    with client(running, "few") as mine:
        documents = Documents(mine)
        made = [(Document(str(number), "text", group="book"), UP) for number in range(256)]
        documents.put(made)
        assert asked == ["/IngestBatch", "/LookupBatch"] * 2
        asked.clear()
        assert len(documents.get([str(number) for number in range(256)])) == 256
        assert asked == ["/LookupBatch"]
        asked.clear()
        assert documents.delete_group("book") == 256
        assert asked == ["/LookupBatch", "/DeleteBatch"]


@pytest.mark.parametrize("k", [0, 101, 150])
def test_how_many_a_search_finds_is_said(running: NodeProcess, k: int) -> None:
    with client(running, "bounds") as mine, pytest.raises(ValueError, match=f"^{k} documents .* 1 to 100"):
        Documents(mine).search(UP, k)
