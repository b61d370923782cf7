"""The LlamaIndex adapter under LlamaIndex's own index, against a real node, plain and encrypted."""

import pytest
from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from engram.sdk import NodeClient, Undecryptable
from engram.sdk.documents import Document as Kept
from engram.sdk.documents import Documents
from engram.sdk.errors import MalformedAnswer
from engram.sdk.llama_index import EngramVectorStore
from tests.adapters.conftest import NewClient, ciphers
from tests.miner.nodes import CONTROLLER, NodeProcess

_GTE, _LT = FilterOperator.GTE, FilterOperator.LT
of_each_cipher = pytest.mark.parametrize("cipher", ["plain", "namespace", "hybrid"])


class Letters(MockEmbedding):
    """A vector of how often each character is in a text."""

    def _get_vector(self) -> list[float]:
        raise NotImplementedError

    def _get_text_embedding(self, text: str) -> list[float]:
        return [float(text.count(chr(number))) + 0.01 for number in range(384)]

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embedding(text)


LETTERS: BaseEmbedding = Letters(embed_dim=384)


def node_of(identity: str, text: str, document: str = "doc", **metadata: object) -> TextNode:
    made = TextNode(id_=identity, text=text, metadata=metadata, embedding=LETTERS.get_text_embedding(text))
    made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
    return made


@of_each_cipher
def test_an_index_stores_finds_and_deletes_documents(new_client: NewClient, cipher: str) -> None:
    store = EngramVectorStore(new_client(ciphers()[cipher]))
    documents = [Document(text=text, id_=text, metadata={"n": 1}) for text in ("otters", "badgers")]
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex.from_documents(documents, storage_context=context, embed_model=LETTERS)
    [best] = index.as_retriever(similarity_top_k=1).retrieve("otter")
    assert (best.node.get_content(), best.node.metadata, best.node.ref_doc_id) == ("otters", {"n": 1}, "otters")
    assert 0.5 < (best.score or 0) <= 1
    index.delete_ref_doc("otters")
    again = VectorStoreIndex.from_vector_store(store, embed_model=LETTERS)
    assert [each.node.get_content() for each in again.as_retriever(similarity_top_k=5).retrieve("otter")] == ["badgers"]


@of_each_cipher
async def test_nodes_are_what_they_were_and_replace_one_another(new_client: NewClient, cipher: str) -> None:
    store = EngramVectorStore(new_client(ciphers()[cipher]))
    nodes = [node_of("1", "one", n=1, deep={"a": [None]}), node_of("2", "two", "other")]
    assert await store.async_add(nodes) == ["1", "2"]
    newer = node_of("1", "uno", n=2)
    store.add([newer])
    got = await store.aget_nodes(["1", "2", "3"])
    assert [(each.node_id, each.get_content(), each.metadata, each.ref_doc_id) for each in got] == [
        ("1", "uno", {"n": 2}, "doc"),
        ("2", "two", {}, "other"),
    ]
    result = await store.aquery(VectorStoreQuery(query_embedding=newer.embedding, similarity_top_k=5))
    assert result.ids == ["1", "2"]
    await store.adelete_nodes(["1"])
    assert await store.aget_nodes(["1"]) == []
    await store.adelete("other")
    store.add(nodes)
    await store.aclear()
    assert store.get_nodes(["1", "2"]) == []


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"_node_content": 5},
        {"_node_content": "{", "_node_type": "TextNode"},
        {"_node_content": '{"text": 5}', "_node_type": "TextNode"},
        {"_node_content": "[" * 1_500, "_node_type": "TextNode"},
        {"_node_content": '{"id_": "other", "text": ""}', "_node_type": "TextNode"},
    ],
)
def test_what_is_no_node_is_said_to_be_none(new_client: NewClient, metadata: dict[str, object]) -> None:
    client = new_client()
    documents = Documents(client)
    documents.put([(Kept("one", "text", metadata), LETTERS.get_text_embedding("text"))])
    store = EngramVectorStore(client)
    with pytest.raises(MalformedAnswer):
        store.get_nodes(["one"])
    with pytest.raises(MalformedAnswer):
        store.query(VectorStoreQuery(query_embedding=LETTERS.get_text_embedding("text")))


def test_a_node_is_updated_in_place(new_client: NewClient) -> None:
    store = EngramVectorStore(new_client())
    store.add([node_of("1", "one"), node_of("2", "two")])
    assert store.update([node_of("1", "one more")]) == ["1"]
    found = store.query(VectorStoreQuery(query_embedding=LETTERS.get_text_embedding("one"), similarity_top_k=5))
    assert sorted(found.ids or []) == ["1", "2"]
    assert [node.get_content() for node in store.get_nodes(["1"])] == ["one more"]


def test_two_values_of_one_key_are_not_taken_for_the_last(new_client: NewClient) -> None:
    both = MetadataFilters(filters=[MetadataFilter(key="kind", value=each) for each in ("one", "two")])
    with pytest.raises(ValueError, match="two values"):
        EngramVectorStore(new_client()).query(VectorStoreQuery(query_embedding=[1.0] * 384, filters=both))


def test_filters_are_the_nodes_or_refused(new_client: NewClient) -> None:
    store = EngramVectorStore(new_client())
    store.add([node_of("1", "one", n=1), node_of("2", "one", n=2)])
    vector = LETTERS.get_text_embedding("one")

    def asked(*filters: MetadataFilter, **more: object) -> list[str]:
        condition = more.pop("condition", FilterCondition.AND)
        wanted = MetadataFilters(filters=[*filters], condition=condition)
        query = VectorStoreQuery(query_embedding=vector, similarity_top_k=5, filters=wanted, **more)
        return list(store.query(query).ids or [])

    assert asked(MetadataFilter(key="n", value=2)) == ["2"]
    assert sorted(asked()) == ["1", "2"]
    with pytest.raises(ValueError, match="operator"):
        asked(MetadataFilter(key="n", value=2, operator=FilterOperator.NE))
    assert asked(MetadataFilter(key="n", value=1, operator=FilterOperator.GT)) == ["2"]
    between = [MetadataFilter(key="n", value=value, operator=how) for value, how in ((1, _GTE), (2, _LT))]
    assert asked(*between) == ["1"]
    assert asked(MetadataFilter(key="n", value=[2, 3], operator=FilterOperator.IN)) == ["2"]
    with pytest.raises(ValueError, match="values of 'n' or a range"):
        asked(MetadataFilter(key="n", value=1), between[0])
    with pytest.raises(ValueError, match="condition"):
        asked(MetadataFilter(key="n", value=2), condition=FilterCondition.OR)
    assert sorted(asked(mode=VectorStoreQueryMode.MMR, mmr_threshold=0.2)) == ["1", "2"]
    assert asked(mode=VectorStoreQueryMode.TEXT_SEARCH, query_str="one two") != []
    assert sorted(asked(mode=VectorStoreQueryMode.HYBRID, query_str="one")) == ["1", "2"]
    with pytest.raises(ValueError, match="mode"):
        asked(mode=VectorStoreQueryMode.SVM)
    with pytest.raises(ValueError, match="alpha"):
        asked(mode=VectorStoreQueryMode.HYBRID, query_str="one", alpha=0.5)
    with pytest.raises(ValueError, match="a text to take words from"):
        asked(mode=VectorStoreQueryMode.HYBRID)
    with pytest.raises(ValueError, match="among"):
        asked(node_ids=["1"])
    with pytest.raises(ValueError, match="by id"):
        store.delete_nodes(["1"], MetadataFilters(filters=[]))


@pytest.mark.parametrize("cipher", ["namespace", "hybrid"])
def test_nothing_is_ever_kept_in_public_and_nothing_encrypted_in_plain(
    new_client: NewClient, running: NodeProcess, cipher: str
) -> None:
    url = f"http://127.0.0.1:{running.port}"
    with NodeClient(url, CONTROLLER) as public, pytest.raises(ValueError, match="namespace"):
        EngramVectorStore(public)
    store = EngramVectorStore(new_client(ciphers()[cipher]))
    store.add([node_of("secret", "secret", "secret", secret="secret")])
    plain = new_client()
    assert "secret" not in str(plain.ask(plain.calls.walk(None, None)))
    query = VectorStoreQuery(query_embedding=LETTERS.get_text_embedding("secret"), similarity_top_k=1)
    with pytest.raises(Undecryptable, match="cipher"):
        EngramVectorStore(plain).query(query)
    with pytest.raises(ValueError, match="encrypted"):
        query.filters = MetadataFilters(filters=[MetadataFilter(key="secret", value="secret")])
        store.query(query)
    assert running.get("/stats")["vectors"] == 0
