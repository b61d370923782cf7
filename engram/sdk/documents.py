"""Documents under the caller's own ids, in one private namespace of a node: the base of the vector-store adapters.

A document is one record: its vector, its text, and as metadata

| key | |
|---|---|
| `_ref` | SHA-256 over namespace and id: a document is found by it, encrypted or not |
| `_group` | the same over what it is a part of |
| `_doc` | id and metadata as JSON, so that types come back as they were |
| others | metadata that is text, a number, a truth value or null, for the node to filter by |
| `_enc` | with a cipher instead of the last two and of the text: all of it, encrypted |

So a node that guesses an id sees whether it holds it, and which documents have a group in common; nothing else of an
encrypted one but its vector. There is no public form: a client without a namespace is refused.
"""

import hashlib
import secrets
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias, TypeVar, final

import msgspec

from engram import wire
from engram.api.node_model import Hit, Listing, Reference, References, known
from engram.hotkeys.python_json import JsonObject, JsonValue
from engram.memory.rules import MAX_BATCH, MAX_TOP_K
from engram.sdk import encryption
from engram.sdk.encryption import Cipher, Undecryptable
from engram.sdk.errors import MalformedAnswer, NodeRefused
from engram.sdk.node import NodeClient
from engram.sdk.node_calls import Call, Where, floats
from engram.sdk.ranking import BY_COSINE, Ranking
from engram.sdk.walk_rules import CursorCheck

T = TypeVar("T")
Pages = TypeVar("Pages", References, Listing)

BATCH: Final = 128
"""Documents stored in one request, so that even the largest ones fit into its 10 MiB."""
_DOCUMENTS: Final[Where] = {"_ref": {"$exists": True}}
"""Selects documents in a search and in `clear`; other memories of the namespace are left alone."""


class Document(msgspec.Struct, frozen=True):
    """A text and its metadata (JSON values) under an id; `group` names the source it is a part of."""

    id: str
    text: str
    metadata: dict[str, object] = {}
    group: str | None = None


class Found(msgspec.Struct, frozen=True):
    """A document found by a search, with its cosine similarity."""

    document: Document
    score: float


_Batch: TypeAlias = Sequence[tuple[Document, Sequence[float]]]


class _Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    metadata: dict[str, object] = {}
    group: str | None = None
    blank: str = ""
    """A text of whitespace alone, which a node treats as no text."""
    again: str = ""
    """Makes a record differ from an otherwise equal one."""


@final
class Documents:
    """Stores, finds and deletes documents with a blocking client; calls from several threads run one at a time.

    Every method raises ApiError, NotReached, OutcomeUnknown; what is read, Undecryptable and MalformedAnswer.
    """

    def __init__(self, client: NodeClient) -> None:
        """Take a client, whose cipher encrypts all documents. Raises ValueError for a client without a namespace."""
        if client.namespace is None:
            raise ValueError(
                "documents are kept in a private namespace: make the client with keypair= and namespace=; "
                "without them everybody could read them"
            )
        self._client = client
        self._namespace = client.namespace
        self._cipher = client.calls.cipher
        self._one_at_a_time = threading.Lock()

    def add(self, documents: Sequence[tuple[Document, Sequence[float]]]) -> None:
        """Store documents under new ids. Raises NodeRefused naming a document; those before it are kept."""
        for start in range(0, len(documents), BATCH):
            self._store(documents[start : start + BATCH])

    def put(self, documents: Sequence[tuple[Document, Sequence[float]]]) -> None:
        """Store documents, replacing those with their ids; of two with one id the last is stored. Raises like `add`.

        After an interruption an id may have both for a while: the newer one is returned, and storing it again cleans
        up. Of several clients that store one id at once, one wins.
        """
        named = list({document.id: (document, vector) for document, vector in documents}.values())
        for start in range(0, len(named), BATCH):
            batch = named[start : start + BATCH]
            overtaken = self._overtaken(batch, self._store(batch))
            if overtaken:  # by a concurrent put, or by the rest of an interrupted one
                self._overtaken(overtaken, self._store(overtaken, again=True))

    def update(self, documents: Sequence[tuple[Document, Sequence[float]]]) -> None:
        """Store documents in place of those with their ids, which searches then no longer find; of two with one id the
        last is stored. Raises like `add`.

        Unlike `put` it deletes nothing: what was there before stays until the document is deleted, and at no moment
        does a search find both or neither.
        """
        named = list({document.id: (document, vector) for document, vector in documents}.values())
        for start in range(0, len(named), BATCH):
            batch = named[start : start + BATCH]
            refs = [self._ref("id", document.id) for document, _ in batch]
            before = {str(each.value): each.cid for each in self._references("_ref", refs)}
            self._store(batch, supersedes=before)

    def get(self, ids: Sequence[str]) -> list[Document]:
        """Return the documents with these ids, in their order; unknown ids are skipped."""
        newest: dict[str, Reference] = {}
        refs = [self._ref("id", each) for each in ids]
        for some in _in_batches(dict.fromkeys(refs)):
            for page in self._pages(partial(self._client.calls.look_up_texts, "_ref", some)):
                newest |= {str((known(record.metadata) or {}).get("_ref")): record for record in page.records}
        return [self._read(newest[ref]) for ref in refs if ref in newest]

    def delete(self, ids: Sequence[str]) -> int:
        """Delete documents; return how many there were."""
        return self._delete("_ref", [self._ref("id", each) for each in ids])

    def delete_group(self, group: str) -> int:
        """Delete all documents of a group; return how many there were."""
        return self._delete("_group", [self._ref("group", group)])

    def clear(self) -> int:
        """Delete all documents of the namespace; other memories in it stay."""
        pages = self._pages(partial(self._client.calls.walk, where=_DOCUMENTS, readable=True))
        return self._take_out([record.cid for page in pages for record in page.records if "_ref" in record.metadata])

    def search(
        self,
        vector: Sequence[float],
        k: int,
        where: Where | None = None,
        ranking: Ranking = BY_COSINE,
        words: str | None = None,
    ) -> list[Found]:
        """Return the k documents (at most 100) nearest to a vector whose metadata meet a filter, best first.

        `words` is the text whose words count, where `ranking` looks at words. Raises ValueError for any other k, for an
        unsupported filter, and with a cipher for a filter and for words: the node cannot read what is encrypted.
        """
        if not 1 <= k <= MAX_TOP_K:
            raise ValueError(f"{k} documents were asked for: a search finds 1 to {MAX_TOP_K}")
        if where and self._cipher is not None:
            raise ValueError("metadata is encrypted: the node cannot filter by it")
        if ranking.wants_words and (self._cipher is not None or not words):
            reason = "texts are encrypted" if self._cipher is not None else "a text to take words from is missing"
            raise ValueError(f"{reason}: the node cannot search by words, as mode {ranking.mode!r} does")
        conditions = {**(where or {}), **_DOCUMENTS}
        hits = self._ask(lambda: self._client.calls.query_texts(vector, k, conditions, ranking, words))
        return [Found(self._read(hit), hit.score) for hit in hits[:k]]

    def _store(self, batch: _Batch, *, again: bool = False, supersedes: Mapping[str, str] | None = None) -> list[str]:
        items = [self._item(document, vector, secrets.token_hex(8) if again else "") for document, vector in batch]
        for item, (document, _) in zip(items, batch, strict=True):
            ref = self._ref("id", document.id)
            if supersedes is not None:
                item |= {"key": ref, "supersedes": supersedes.get(ref)}
        results = self._ask(lambda: self._client.calls.ingest_items(items))
        cids = [result for result in results if isinstance(result, str)]
        for (document, _), result in zip(batch, results, strict=True):
            if isinstance(result, NodeRefused):
                raise NodeRefused(f"document {document.id!r} was not kept: {result}")
        return cids

    def _overtaken(self, batch: _Batch, cids: Sequence[str]) -> _Batch:
        """Delete older records under the documents' ids; return the documents that newer records have overtaken.

        Newer records are never deleted: otherwise two concurrent puts would delete each other's.
        """
        put = {self._ref("id", document.id): cid for (document, _), cid in zip(batch, cids, strict=True)}
        kept: dict[str, list[str]] = {ref: [] for ref in put}
        for each in self._references("_ref", list(put)):
            kept[str(each.value)].append(each.cid)
        older = [kept[ref][: kept[ref].index(cid)] for ref, cid in put.items() if cid in kept[ref]]
        self._take_out([cid for each in older for cid in each])
        prevail = [kept[ref][-1:] == [cid] for ref, cid in put.items()]
        return [each for each, prevails in zip(batch, prevail, strict=True) if not prevails]

    def _item(self, document: Document, vector: Sequence[float], again: str) -> JsonObject:
        clear: JsonObject = {"_ref": self._ref("id", document.id)}
        if document.group is not None:
            clear["_group"] = self._ref("group", document.group)
        blank = "" if document.text.strip() else document.text
        kept = msgspec.json.encode(_Kept(document.id, document.metadata, document.group, blank, again)).decode()
        if self._cipher is not None:
            return {"raw_embedding": floats(vector), "metadata": clear | _sealed(self._cipher, document.text, kept)}
        # A record's id covers vector and metadata; with the text's digest in them it also covers the text.
        clear |= {"_doc": kept, "_sha256": hashlib.sha256(document.text.encode()).hexdigest()}
        metadata = {key: _plain(value) for key, value in document.metadata.items() if _filterable(key, value)}
        item: JsonObject = {"raw_embedding": floats(vector), "metadata": metadata | clear}
        return item if blank or not document.text else item | {"text": document.text}

    def _read(self, record: Hit | Reference) -> Document:
        metadata, text = known(record.metadata) or {}, known(record.text) or ""
        sealed = metadata.get(encryption.FIELD)
        if isinstance(sealed, str):
            if self._cipher is None:
                raise Undecryptable("the documents here are encrypted: make the client with their cipher")
            memory = encryption.decrypt(self._cipher, sealed)
            document = _document(str(memory.metadata.get("_doc")), memory.text)
        elif self._cipher is not None:
            raise Undecryptable("a document here is not encrypted, so whoever made it had not the cipher")
        else:
            document = _document(str(metadata.get("_doc")), text)
        if metadata.get("_ref") != self._ref("id", document.id):
            raise MalformedAnswer(f"the node gave document {document.id!r} as another one, or as one of this namespace")
        return document

    def _delete(self, key: str, values: Sequence[str]) -> int:
        return self._take_out([each.cid for each in self._references(key, values)])

    def _references(self, key: str, values: Sequence[str]) -> Iterator[Reference]:
        """Yield the records marked with these values, oldest first. Other records that a node returns are skipped."""
        for some in _in_batches(dict.fromkeys(values)):
            for page in self._pages(partial(self._client.calls.look_up, key, some)):
                yield from (each for each in page.records if each.value in some)

    def _pages(self, make: Callable[[str | None], Call[Pages]]) -> Iterator[Pages]:
        """Yield all pages. Raises MalformedAnswer for pages that never end."""
        cursors = CursorCheck()
        while not cursors.ended:
            page = self._ask(lambda: make(cursors.after))
            cursors.follow(known(page.next))
            yield page

    def _take_out(self, cids: Iterable[str]) -> int:
        """Delete records and return how many there were."""
        gone = 0
        for some in _in_batches(dict.fromkeys(cids)):
            outcomes = self._ask(partial(self._client.calls.delete_batch, some))
            for outcome in outcomes:
                if isinstance(outcome, NodeRefused):
                    raise outcome
            gone += outcomes.count(True)
        return gone

    def _ref(self, kind: str, name: str) -> str:
        parts = msgspec.json.encode(["engram-document", kind, self._namespace, name])
        return hashlib.sha256(parts).hexdigest()

    def _ask(self, make: Callable[[], Call[T]]) -> T:
        with self._one_at_a_time:
            return self._client.ask(make())


def new_id() -> str:
    """Return a new id for a document without one."""
    return str(uuid.uuid4())


def _document(kept: str, text: str) -> Document:
    try:
        read = wire.decode(kept, _Kept)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedAnswer(f"a record is not as documents are stored: {error}") from None
    return Document(read.id, text or read.blank, read.metadata, read.group)


def _in_batches(values: Iterable[str]) -> Iterator[list[str]]:
    listed = list(values)
    for start in range(0, len(listed), MAX_BATCH):
        yield listed[start : start + MAX_BATCH]


def _sealed(cipher: Cipher, text: str, kept: str) -> JsonObject:
    return {encryption.FIELD: encryption.encrypt(cipher, text, {"_doc": kept})}


def _filterable(key: object, value: object) -> bool:
    return isinstance(key, str) and not key.startswith("_") and (value is None or isinstance(value, str | int | float))


def _plain(value: object) -> JsonValue:
    return str(value)
