"""A node as LlamaIndex's vector store: `pip install 'engram[llamaindex]'`.

    store = EngramVectorStore(NodeClient(url, keypair, namespace="notes"))
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)

Nodes are in the client's private namespace, encrypted when the client has a cipher; a client without a namespace is
refused. Similarities are cosines. The embedding model must have the node's dimension. Text and metadata have room in a
record (8,192 characters and 4,096 bytes, encrypted about 2,900 bytes in all): choose the chunk size for that.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, final

try:
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import BaseNode, MetadataMode, TextNode
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        FilterCondition,
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
except ImportError as error:
    raise ImportError("engram.sdk.llama_index needs LlamaIndex: pip install 'engram[llamaindex]'") from error

from engram.sdk.documents import Document, Documents
from engram.sdk.errors import MalformedAnswer
from engram.sdk.node import NodeClient
from engram.sdk.ranking import BY_COSINE, Ranking


@final
class EngramVectorStore(BasePydanticVectorStore):
    """LlamaIndex nodes in a private namespace of a node."""

    stores_text: bool = True
    flat_metadata: bool = False
    _client: NodeClient = PrivateAttr()
    _documents: Documents = PrivateAttr()

    def __init__(self, client: NodeClient) -> None:
        """Take a client, which the caller must close. Raises ValueError for one without a namespace."""
        documents = Documents(client)
        super().__init__(stores_text=True)
        self._client = client
        self._documents = documents

    @property
    def client(self) -> NodeClient:
        """The client of the node."""
        return self._client

    @classmethod
    def class_name(cls) -> str:
        """Its name where an index is saved."""
        return "EngramVectorStore"

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store nodes with their embeddings, replacing those with their ids. Raises NodeRefused."""
        self._documents.put([(_document(node), node.get_embedding()) for node in nodes])
        return [node.node_id for node in nodes]

    def update(self, nodes: Sequence[BaseNode]) -> list[str]:
        """Store nodes in place of those with their ids, which stay until they are deleted but are no longer found.

        Raises NodeRefused.
        """
        self._documents.update([(_document(node), node.get_embedding()) for node in nodes])
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete all nodes of a document."""
        self._documents.delete_group(ref_doc_id)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by id. Raises ValueError for filters, which are not supported."""
        if filters is not None:
            raise ValueError("nodes are deleted by id here, not by filters")
        self._documents.delete(node_ids or [])

    def clear(self) -> None:
        """Delete all nodes."""
        self._documents.clear()

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Return nodes by id. Raises ValueError for filters, which are not supported."""
        if filters is not None:
            raise ValueError("nodes are looked up by id here, not by filters")
        return [_node(document) for document in self._documents.get(node_ids or [])]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the nearest nodes, in the modes `default`, `mmr`, `hybrid` and `text_search` (by words).

        `hybrid` adds words with a weight of its own, so `alpha` must be left out. Raises ValueError for what a node
        cannot do, instead of ignoring it.
        """
        ranking = _ranking(query)
        if ranking is None or query.query_embedding is None:
            raise ValueError(
                "a node searches by an embedding in the modes 'default', 'mmr', 'hybrid' and 'text_search', not"
                f" {query.mode.value!r}"
            )
        if query.alpha is not None:
            raise ValueError("a node weighs words and vectors itself: leave alpha out")
        if query.doc_ids or query.node_ids:
            raise ValueError("a node cannot search among given documents or nodes only")
        where = _conditions(query.filters)
        words = query.query_str if ranking.wants_words else None
        found = self._documents.search(query.query_embedding, query.similarity_top_k, where, ranking, words)
        return VectorStoreQueryResult(
            nodes=[_node(each.document) for each in found],
            similarities=[each.score for each in found],
            ids=[each.document.id for each in found],
        )

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """`add`, in a thread."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """`delete`, in a thread."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """`delete_nodes`, in a thread."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aclear(self) -> None:
        """`clear`, in a thread."""
        await asyncio.to_thread(self.clear)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """`get_nodes`, in a thread."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """`query`, in a thread."""
        return await asyncio.to_thread(self.query, query, **kwargs)


def _document(node: BaseNode) -> Document:
    kept = {
        key: value
        for key, value in node_to_metadata_dict(node, remove_text=True).items()
        if key not in ("document_id", "doc_id", "ref_doc_id")
    }
    return Document(node.node_id, node.get_content(MetadataMode.NONE), kept, node.ref_doc_id)


def _node(document: Document) -> BaseNode:
    try:
        node = metadata_dict_to_node(document.metadata)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MalformedAnswer(f"document {document.id!r} is none of LlamaIndex's: {error}") from error
    if node.node_id != document.id:
        raise MalformedAnswer(f"document {document.id!r} says that it is node {node.node_id!r}")
    if isinstance(node, TextNode):
        node.text = document.text
    else:
        node.set_content(document.text)
    return node


_MODES = {
    VectorStoreQueryMode.DEFAULT: BY_COSINE,
    VectorStoreQueryMode.HYBRID: Ranking("hybrid"),
    VectorStoreQueryMode.TEXT_SEARCH: Ranking("words"),
}
_RANGES = {
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
}


def _ranking(query: VectorStoreQuery) -> Ranking | None:
    if query.mode is VectorStoreQueryMode.MMR:
        return Ranking(diversity=0.5 if query.mmr_threshold is None else 1.0 - query.mmr_threshold)
    return _MODES.get(query.mode)


def _conditions(filters: MetadataFilters | None) -> dict[str, Any] | None:
    if filters is None or not filters.filters:
        return None
    if filters.condition is not FilterCondition.AND:
        raise ValueError("a node applies all conditions of a filter: the condition must be 'and'")
    conditions: dict[str, Any] = {}
    for each in filters.filters:
        if not isinstance(each, MetadataFilter):
            raise ValueError("a node applies conditions on metadata, and no filters within a filter")  # noqa: TRY004
        value = _condition(each, conditions.get(each.key))
        if each.operator not in _RANGES and str(conditions.get(each.key, value)) != str(value):
            raise ValueError(f"nothing has two values of {each.key!r} at once")
        conditions[each.key] = value
    return conditions


def _condition(wanted: MetadataFilter, before: object) -> object:
    """Return a condition as a node takes it; `before` is what another one on the same key says."""
    match wanted.operator:
        case FilterOperator.EQ:
            return wanted.value
        case FilterOperator.IN:
            return {"$in": wanted.value}
        case operator if operator in _RANGES:
            if before is not None and not (isinstance(before, dict) and "$in" not in before):
                raise ValueError(f"a node takes values of {wanted.key!r} or a range, not both")
            return {**(before or {}), _RANGES[operator]: wanted.value}
        case operator:
            raise ValueError(f"a node filters by the operators ==, in, >, >=, < and <=, not by {operator.value!r}")
