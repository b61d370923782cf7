"""The LangChain adapter: LangChain's own tests against a real node, plain and encrypted, and what it never does."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from engram.sdk import NodeClient, NodeRefused, Undecryptable
from engram.sdk.langchain import EngramVectorStore
from tests.adapters.conftest import NewClient, ciphers
from tests.miner.nodes import CONTROLLER, NodeProcess

EMBEDDING = DeterministicFakeEmbedding(size=384)


class TestPlain(VectorStoreIntegrationTests):
    """Everything that LangChain asks of a vector store, blocking and async."""

    @pytest.fixture
    def vectorstore(self, new_client: NewClient) -> Iterator[VectorStore]:
        store = EngramVectorStore(new_client(), self.get_embeddings())
        yield store
        store.delete()

    @staticmethod
    def get_embeddings() -> Embeddings:
        return EMBEDDING


class TestEncrypted(VectorStoreIntegrationTests):
    """The same, encrypted for a recipient."""

    @pytest.fixture
    def vectorstore(self, new_client: NewClient) -> Iterator[VectorStore]:
        store = EngramVectorStore(new_client(ciphers()["hybrid"]), self.get_embeddings())
        yield store
        store.delete()

    @staticmethod
    def get_embeddings() -> Embeddings:
        return EMBEDDING


def test_metadata_comes_back_with_its_types_and_filters(new_client: NewClient) -> None:
    store = EngramVectorStore(new_client(), EMBEDDING)
    details = [{"n": 1, "deep": {"a": [True, None]}, "_ref": "x"}, {"n": 2, "text": "kept", "cid": "kept"}]
    store.add_texts(["otters", "badgers"], details)
    assert [text.metadata for text in store.similarity_search("otters", k=2)] == details
    [only] = store.similarity_search("otters", k=2, filter={"n": 2})
    assert only.page_content == "badgers"
    (best, score), _ = store.similarity_search_with_score("otters", k=2)
    assert (best.page_content, round(score, 3)) == ("otters", 1.0)
    [(_, relevance)] = store.similarity_search_with_relevance_scores("otters", k=1)
    assert 0.99 < relevance <= 1.0
    with pytest.raises(ValueError, match="fetch_k"):
        store.similarity_search("otters", fetch_k=3)
    long = "é" * 8_000
    store.add_texts([long, ""], ids=["long", "empty"])
    assert [text.page_content for text in store.get_by_ids(["empty", "none", "long"])] == ["", long]
    with pytest.raises(NodeRefused, match="'big'"):
        store.add_texts(["x"], [{"a": "y" * 5_000}], ids=["big"])


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"n": 1}, ["one"]),
        ({"n": 1.0}, ["one"]),
        ({"n": True}, ["true"]),
        ({"n": None}, ["none"]),
        ({"n": "1"}, ["one"]),
        ({"n": 2.5, "kind": "x"}, ["two"]),
        ({"n": {"$exists": True}, "kind": "x"}, ["two"]),
        ({"m": None}, []),
        ({"n": {"$gt": 1}}, ["two"]),
        ({"n": {"$in": [2.5, True]}, "kind": "x"}, ["two"]),
    ],
)
def test_a_filter_is_applied_by_the_search(new_client: NewClient, wanted: dict[str, object], found: list[str]) -> None:
    client = new_client()
    store = EngramVectorStore(client, EMBEDDING)
    details: list[dict[str, Any]] = [{"n": 1}, {"n": 2.5, "kind": "x"}, {"n": True}, {"n": None}, {}]
    store.add_texts(["1", "2", "3", "4", "5"], details, ids=["one", "two", "true", "none", "without"])
    for number in range(10):
        client.ingest_vector([x + number / 1e6 for x in EMBEDDING.embed_query("1")], {"n": 1, "kind": "x"})
    assert [text.id for text in store.similarity_search("1", k=1, filter=wanted)] == found


@pytest.mark.parametrize("wanted", [{"n": {"$ne": 0}}, {"n": [1]}, {"n": float("nan")}, lambda document: True])
def test_what_no_filter_is_understood_by_is_refused_with_what_is(new_client: NewClient, wanted: object) -> None:
    store = EngramVectorStore(new_client(), EMBEDDING)
    with pytest.raises(ValueError, match=r"must be a (text, a number, true, false, null or|dict)"):
        store.similarity_search("1", filter=wanted)


async def test_what_a_node_cannot_do_is_said(new_client: NewClient) -> None:
    store = EngramVectorStore(new_client(), EMBEDDING)
    with pytest.raises(ValueError, match=r"150 documents .* 1 to 100"):
        store.similarity_search("1", k=150)
    with pytest.raises(ValueError, match="a text to take words from"):
        store.similarity_search_by_vector([1.0] * 384, mode="hybrid")
    with pytest.raises(ValueError, match="mode must be"):
        store.similarity_search("1", mode="meaning")


async def test_variety_is_chosen_by_the_node(new_client: NewClient) -> None:
    store = EngramVectorStore(new_client(), EMBEDDING)
    store.add_texts(["1", "1", "1", "2"], [{"n": number} for number in range(4)])
    for relevant in (store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "lambda_mult": 0.3}).invoke("1"),):
        assert sorted(text.page_content for text in relevant) == ["1", "2"]
    assert len(await store.amax_marginal_relevance_search("1", k=4)) == 4
    found = store.max_marginal_relevance_search_by_vector(EMBEDDING.embed_query("1"), k=2, lambda_mult=0.3)
    assert sorted(text.page_content for text in found) == ["1", "2"]


def test_words_are_searched_and_a_document_is_updated(new_client: NewClient) -> None:
    store = EngramVectorStore(new_client(), EMBEDDING)
    store.add_texts(["the ZX81 computer", "a pond of otters"], ids=["zx", "pond"])
    [best] = store.similarity_search("zx81", k=1, mode="words")
    assert best.id == "zx"
    for version in ("the ZX81 has 1 kB", "the ZX81 has 16 kB"):
        store.update_documents(["zx"], [Document(page_content=version)])
    assert [text.page_content for text in store.similarity_search("zx81", mode="words")] == ["the ZX81 has 16 kB"]
    assert len(store.similarity_search("zx81", mode="words", history=True)) == 3
    [now] = store.get_by_ids(["zx"])
    assert now.page_content == "the ZX81 has 16 kB"
    with pytest.raises(ValueError, match="same length"):
        store.update_documents(["zx"], [])
    store.delete(["zx"])
    assert store.similarity_search("zx81", mode="words", history=True) == []


def test_a_retriever_and_from_texts_work(new_client: NewClient) -> None:
    store = EngramVectorStore.from_texts(["a", "b"], EMBEDDING, ids=["1", "2"], client=new_client())
    assert store.as_retriever(search_kwargs={"k": 1}).invoke("b") == [Document(page_content="b", id="2")]
    with pytest.raises(ValueError, match="NodeClient"):
        EngramVectorStore.from_texts(["a"], EMBEDDING)
    with pytest.raises(ValueError, match="same length"):
        store.add_texts(["a", "b"], ids=["1"])


def test_nothing_is_ever_kept_in_public_and_nothing_encrypted_in_plain(
    new_client: NewClient, running: NodeProcess
) -> None:
    url = f"http://127.0.0.1:{running.port}"
    for public in (NodeClient(url), NodeClient(url, CONTROLLER)):
        with public, pytest.raises(ValueError, match="namespace"):
            EngramVectorStore(public, EMBEDDING)
    for cipher in (ciphers()["namespace"], ciphers()["hybrid"]):
        store = EngramVectorStore(new_client(cipher), EMBEDDING)
        store.add_texts(["a secret", "another secret"], [{"secret": "secret"}, {}], ids=["secret id", "2"])
        with pytest.raises(ValueError, match="encrypted"):
            store.similarity_search("a secret", filter={"secret": "secret"})
        plain = new_client()
        assert "secret" not in str(plain.list()) + str(plain.query_vector(EMBEDDING.embed_query("a secret")))
        assert "secret" not in str(plain.ask(plain.calls.walk(None, None)))
        with pytest.raises(Undecryptable, match="cipher"):
            EngramVectorStore(plain, EMBEDDING).similarity_search("a secret")
        assert [text.page_content for text in store.get_by_ids(["secret id"])] == ["a secret"]
        store.delete()
    EngramVectorStore(plain, EMBEDDING).add_texts(["put there by somebody"])
    with pytest.raises(Undecryptable, match="not encrypted"):
        store.similarity_search("a secret")
    assert running.get("/stats")["vectors"] == 0
    with NodeClient(url) as anybody:
        assert anybody.list() == []
