"""Searches with a mode and facts that change, by both clients, against a real node."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from engram.clock import SystemClock
from engram.sdk import AsyncNodeClient, HybridCipher, Impostor, NodeClient, NodeRefused
from engram.sdk.node_calls import NodeCalls
from engram.sdk.ranking import Ranking
from engram.sdk.transport import Answer
from tests.miner.nodes import CONTROLLER, NODE, NodeProcess, node
from tests.sdk.doubles import Asked, Told, scripted

pytestmark = pytest.mark.serial


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with node(tmp_path_factory.mktemp("node")) as made:
        yield made


def client(running: NodeProcess, namespace: str, **more: Any) -> NodeClient:
    return NodeClient(f"http://127.0.0.1:{running.port}", CONTROLLER, namespace=namespace, **more)


def test_a_fact_is_found_as_it_is_now_and_shown_as_it_was(running: NodeProcess) -> None:
    with client(running, "facts") as mine:
        paris = mine.ingest("home is Paris", key="home")
        rome = mine.ingest("home is Rome", key="home")
        oslo = mine.update(rome, "home is Oslo", key="home")
        mine.ingest("home is a word", expires_at=4e9)
        assert {hit.text for hit in mine.query("home is Paris")} == {"home is Oslo", "home is a word"}
        assert [(each.cid, each.superseded_by) for each in mine.history("home")] == [
            (paris, rome),
            (rome, oslo),
            (oslo, None),
        ]
        assert len(mine.query("home is Paris", history=True)) == 4
        assert mine.list()[-1].expires_at == 4e9
        with pytest.raises(NodeRefused, match="no record of yours"):
            mine.update("v1::" + "0" * 64, "home is nowhere")
        assert mine.delete(oslo)
        assert {hit.text for hit in mine.query("home is Paris")} == {"home is a word"}


def test_a_client_searches_by_words_variety_and_age(running: NodeProcess) -> None:
    with client(running, "words") as mine:
        for text in ("the ZX81 computer", "a pond of otters", "a pond of otters in june"):
            mine.ingest(text)
        [only] = mine.query("zx81", mode="words")
        assert (only.text, only.relevance) == ("the ZX81 computer", 1.0)
        [best, *_] = mine.query("zx81", mode="hybrid", recency_s=3_600)
        assert best.text == "the ZX81 computer"
        assert {hit.text for hit in mine.query("a pond of otters", top_k=2, diversity=0.9)} != {
            "a pond of otters",
            "a pond of otters in june",
        }
        [plain, *_] = mine.query("zx81")
        assert plain.relevance is None
        with pytest.raises(ValueError, match="a vector has none"):
            mine.query_vector([1.0] * 384, mode="words")
        assert len(mine.query_vector([1.0] * 384, mode="vector")) == 3


def test_the_client_for_trio_does_the_same(running: NodeProcess) -> None:
    async def use() -> None:
        async with AsyncNodeClient(f"http://127.0.0.1:{running.port}", CONTROLLER, namespace="trio") as mine:
            first = await mine.ingest("tea is green", key="tea")
            second = await mine.update(first, "tea is black", key="tea")
            assert [each.cid for each in await mine.history("tea")] == [first, second]
            assert [hit.text for hit in await mine.query("tea", mode="hybrid")] == ["tea is black"]
            assert len(await mine.query_vector([1.0] * 384, history=True)) == 2

    trio.run(use)


def test_what_is_stored_and_deleted_has_a_receipt_that_the_client_checks(running: NodeProcess) -> None:
    with client(running, "receipts") as mine:
        receipt = mine.ingest_with_receipt("otters", NODE.public_key, key="otters")
        assert (receipt.searchable, receipt.count) == (True, 1)
        gone = mine.delete_with_receipt(receipt.cid, NODE.public_key)
        assert gone is not None
        assert gone.count == 0
        assert mine.delete_with_receipt(receipt.cid, NODE.public_key) is None
        with pytest.raises(Impostor):
            mine.ingest_with_receipt("otters", CONTROLLER.public_key)
    with NodeClient(f"http://127.0.0.1:{running.port}") as anybody, pytest.raises(NodeRefused, match=r"text is empty"):
        anybody.ingest_with_receipt(" ", NODE.public_key)


def test_the_words_of_encrypted_memories_are_asked_of_no_node_and_keys_are_hidden(running: NodeProcess) -> None:
    cipher, _, _ = HybridCipher.generate()
    with client(running, "sealed", cipher=cipher, embed=lambda text: [float(len(text)), 1.0, *[0.0] * 382]) as sealed:
        sealed.ingest("my secret address", key="address")
        sealed.ingest("my new address", key="address")
        with pytest.raises(ValueError, match="encrypted: the node cannot search their words"):
            sealed.query("secret", mode="hybrid")
        assert [hit.text for hit in sealed.query("my new address", mode="vector")] == ["my new address"]
        assert len(sealed.history("address")) == 2
    with client(running, "sealed") as without:
        assert "address" not in str(without.list(limit=200))


def test_a_miner_that_ranks_by_nothing_but_vectors_is_not_believed_to() -> None:
    calls = NodeCalls(SystemClock())
    answer = Answer(200, {}, b'{"results": [{"cid": "v1::0", "score": 1.0}]}')
    assert calls.query("x", 1, None, Ranking(history=True)).read(answer)
    with pytest.raises(NodeRefused, match="neither mode, diversity nor recency"):
        calls.query("x", 1, None, Ranking("hybrid")).read(answer)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mode": "meaning"}, "mode must be"),
        ({"diversity": 2}, "from 0 to 1"),
        ({"recency_s": 0.5}, "at least 1 second"),
    ],
)
def test_a_ranking_that_every_node_refuses_is_not_sent(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Ranking(**options)


def test_a_miner_that_ignores_what_a_fact_is_about_is_noticed() -> None:
    """One of before answers as ever, and would find the old version beside the new one."""
    cid = "v1::" + "1" * 64

    def old(asked: Asked) -> Told:
        if asked.path == "/list":
            return Told(body=json.dumps({"records": [{"cid": cid, "metadata": {}}], "count": 1}).encode())
        one = {"cid": cid, "error": None, "owner": CONTROLLER.ss58}
        return Told(body=json.dumps(one).encode())

    with scripted(old) as url, NodeClient(url, CONTROLLER, namespace="me") as mine:
        assert mine.ingest("home is Paris") == cid
        for validity in ({"key": "home"}, {"expires_at": 4e9}, {"supersedes": cid}):
            made: Any = validity
            with pytest.raises(NodeRefused, match="without its key, supersedes and expires_at") as raised:
                mine.ingest("home is Paris", **made)
            assert (raised.value.code, raised.value.cid) == ("not_understood", cid)
        with pytest.raises(NodeRefused, match="does not know keys"):
            mine.history("home")
