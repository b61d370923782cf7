"""A node as LangChain's vector store: `pip install 'engram[langchain]'`.

    store = EngramVectorStore(NodeClient(url, keypair, namespace="notes"), embedding)
    store.add_texts(["Otters hold hands while they sleep."])
    [best] = store.similarity_search("Which animals nap together?", k=1)

Documents are in the client's private namespace, encrypted when the client has a cipher; a client without a namespace is
refused. Scores are cosines, -1 to 1. The embedding must have the node's dimension. Async methods run in threads.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, final

try:
    from langchain_core.documents import Document as Text
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
except ImportError as error:
    raise ImportError("engram.sdk.langchain needs LangChain: pip install 'engram[langchain]'") from error

from engram.sdk.documents import Document, Documents, Found, new_id
from engram.sdk.node import NodeClient


@final
class EngramVectorStore(VectorStore):
    """LangChain documents in a private namespace of a node."""

    def __init__(self, client: NodeClient, embedding: Embeddings) -> None:
        """Take a client, which the caller must close. Raises ValueError for one without a namespace."""
        self._documents = Documents(client)
        self._embedding = embedding

    @property
    def embeddings(self) -> Embeddings:
        """The embedding that makes the vectors."""
        return self._embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        client: NodeClient | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store and add texts. Raises ValueError without `client`, and like `add_texts`."""
        if client is None:
            raise ValueError("name the node: from_texts(..., client=NodeClient(url, keypair, namespace=...))")
        store = cls(client, embedding)
        store.add_texts(texts, metadatas, ids=ids, **kwargs)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str | None] | list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Store texts and return their ids; those under a given id replace what was there.

        A record holds 8,192 characters of text and 4,096 bytes of metadata, or about 2,900 bytes in total when
        encrypted. Raises NodeRefused naming the one that does not fit, ValueError for lists of other lengths.
        """
        listed = list(texts)
        named = [*ids] if ids is not None else [None] * len(listed)
        details = metadatas if metadatas is not None else [{} for _ in listed]
        if not len(listed) == len(named) == len(details):
            raise ValueError("texts, metadatas and ids must be of the same length")
        vectors = self._embedding.embed_documents(listed)
        made = [
            (Document(given or new_id(), text, metadata), vector)
            for given, text, metadata, vector in zip(named, listed, details, vectors, strict=True)
        ]
        if ids is None:
            self._documents.add(made)
        else:
            self._documents.put(made)
        return [document.id for document, _ in made]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Text]:
        """Return the k documents (1 to 100) nearest to a query; `filter` keeps those with equal metadata.

        Raises ValueError for another k and for a filter that a node does not understand.
        """
        return [text for text, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Text, float]]:
        """Return the same documents with their cosines."""
        return [
            (_text(found.document), found.score)
            for found in self._search(self._embedding.embed_query(query), k, **kwargs)
        ]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Text]:
        """Return the k documents nearest to a vector; `filter` keeps those with equal metadata."""
        return [_text(found.document) for found in self._search(embedding, k, **kwargs)]

    def max_marginal_relevance_search(self, *args: Any, **kwargs: Any) -> list[Text]:
        """Not offered. Raises NotImplementedError."""
        raise NotImplementedError(_NO_MMR)

    def max_marginal_relevance_search_by_vector(self, *args: Any, **kwargs: Any) -> list[Text]:
        """Not offered. Raises NotImplementedError."""
        raise NotImplementedError(_NO_MMR)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Text]:
        """Return the documents with these ids; unknown ids are skipped."""
        return [_text(document) for document in self._documents.get(ids)]

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Delete these documents, or all of them; unknown ids are ignored."""
        if ids is None:
            self._documents.clear()
        else:
            self._documents.delete(ids)
        return True

    def _search(self, vector: list[float], k: int, **kwargs: Any) -> list[Found]:
        if unknown := kwargs.keys() - {"filter"}:
            raise ValueError(f"a node does not know the search options {', '.join(sorted(unknown))}")
        where = kwargs.get("filter")
        if where is not None and not isinstance(where, dict):
            raise ValueError(f"filter must be a dict of metadata that are equal, not {type(where).__name__}")
        return self._documents.search(vector, k, where)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: min(1.0, max(0.0, (1.0 + cosine) / 2.0))


_NO_MMR = "a node does not rank by maximal marginal relevance: use similarity_search, or search_type='similarity'"


def _text(document: Document) -> Text:
    return Text(page_content=document.text, metadata=document.metadata, id=document.id)
