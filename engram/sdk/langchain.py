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
from engram.sdk.ranking import Ranking


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

    def update_documents(self, ids: list[str], documents: list[Text]) -> None:
        """Store documents in place of those with these ids, which stay until they are deleted but are no longer found.

        Raises NodeRefused naming the one that does not fit, ValueError for lists of other lengths.
        """
        if len(ids) != len(documents):
            raise ValueError("ids and documents must be of the same length")
        vectors = self._embedding.embed_documents([text.page_content for text in documents])
        self._documents.update(
            [
                (Document(given, text.page_content, text.metadata), vector)
                for given, text, vector in zip(ids, documents, vectors, strict=True)
            ]
        )

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Text]:
        """Return the k documents (1 to 100) nearest to a query; `filter` keeps those whose metadata meet it.

        `mode` is `vector`, `words` or `hybrid`; `diversity` (0 to 1), `recency_s` (a half-life) and `history` rank as
        in NodeClient.query. Raises ValueError for another k and for what a node does not understand.
        """
        return [text for text, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Text, float]]:
        """Return the same documents with their cosines."""
        return [
            (_text(found.document), found.score)
            for found in self._search(self._embedding.embed_query(query), k, query, **kwargs)
        ]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Text]:
        """Return the k documents nearest to a vector, with the options of `similarity_search` but words."""
        return [_text(found.document) for found in self._search(embedding, k, None, **kwargs)]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Text]:
        """Return k documents that are near to a query and differ from one another, by maximal marginal relevance.

        `lambda_mult` is 1 for relevance alone, 0 for variety alone. The node chooses among its own number of candidates
        (60 to 200), so `fetch_k` has no effect.
        """
        options = {**kwargs, "diversity": 1.0 - lambda_mult}
        return [
            _text(found.document) for found in self._search(self._embedding.embed_query(query), k, query, **options)
        ]

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Text]:
        """Return the same for a vector."""
        options = {**kwargs, "diversity": 1.0 - lambda_mult}
        return [_text(found.document) for found in self._search(embedding, k, None, **options)]

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

    def _search(self, vector: list[float], k: int, query: str | None, **kwargs: Any) -> list[Found]:
        if unknown := kwargs.keys() - {"filter", *_RANKING}:
            raise ValueError(f"a node does not know the search options {', '.join(sorted(unknown))}")
        where = kwargs.pop("filter", None)
        if where is not None and not isinstance(where, dict):
            raise ValueError(f"filter must be a dict of conditions on metadata, not {type(where).__name__}")
        ranking = Ranking(**kwargs)
        return self._documents.search(vector, k, where, ranking, query if ranking.wants_words else None)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: min(1.0, max(0.0, (1.0 + cosine) / 2.0))


_RANKING = ("mode", "diversity", "recency_s", "history")


def _text(document: Document) -> Text:
    return Text(page_content=document.text, metadata=document.metadata, id=document.id)
