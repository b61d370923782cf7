"""Documents with ids of the caller's own, in one private namespace of a node: what vector-store adapters are made of.

A document is one record: its vector, its text, and as metadata

| key | |
|---|---|
| `_ref` | SHA-256 over namespace and id: a document is found by it, encrypted or not |
| `_group` | the same over what it is a part of |
| `_doc` | id and metadata as JSON, so that types come back as they were |
| others | metadata that is text, a number or a truth value, for the node to filter by |
| `_enc` | with a cipher instead of the last two and of the text: all of it, encrypted |

So a node that guesses an id sees whether it holds it, and which documents have a group in common; nothing else of an
encrypted one but its vector. There is no public form: a client without a namespace is refused.
"""

import hashlib
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar, final

import msgspec

from engram import wire
from engram.hotkeys.python_json import JsonObject, JsonValue
from engram.sdk import encryption
from engram.sdk.encryption import Cipher, Undecryptable
from engram.sdk.errors import MalformedAnswer, NodeRefused
from engram.sdk.node import NodeClient
from engram.sdk.node_calls import Call, StoredText, floats

T = TypeVar("T")

BATCH: Final = 64
_PAGE: Final = 200


class Document(msgspec.Struct, frozen=True):
    """A text and its metadata (JSON values) under an id; `group` is what it is a part of."""

    id: str
    text: str
    metadata: dict[str, object] = {}
    group: str | None = None


class Found(msgspec.Struct, frozen=True):
    """A document that was searched for, with the cosine similarity."""

    document: Document
    score: float


class _Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    metadata: dict[str, object] = {}
    group: str | None = None
    blank: str = ""
    """A text of nothing but space, which a node takes for none."""
    again: str = ""
    """Makes a record another one than an equal one."""


@final
class Documents:
    """Keeps, finds and deletes documents over a blocking client; calls from several threads wait for one another.

    Every method raises ApiError, NotReached, OutcomeUnknown; what is read, Undecryptable and MalformedAnswer.
    """

    def __init__(self, client: NodeClient) -> None:
        """With the client's cipher all documents are encrypted. Raises ValueError for a client without a namespace."""
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
        """Keep documents under ids that are new. Raises NodeRefused naming a document; those before it are kept."""
        for start in range(0, len(documents), BATCH):
            self._store(documents[start : start + BATCH])

    def put(self, documents: Sequence[tuple[Document, Sequence[float]]]) -> None:
        """Keep documents in the place of those that have their ids; of two with one id the last. Raises like `add`.

        Interrupted, an id may have both for a while: the newer one is given, and putting it again mends it. Of several
        that put one id at once, one prevails.
        """
        named = list({document.id: (document, vector) for document, vector in documents}.values())
        for start in range(0, len(named), BATCH):
            batch = named[start : start + BATCH]
            overtaken = [
                again for again, cid in zip(batch, self._store(batch), strict=True) if not self._prevails(again[0], cid)
            ]
            if overtaken:  # by what somebody puts at this moment, or by the rest of a put that was interrupted
                for (document, _), cid in zip(overtaken, self._store(overtaken, again=True), strict=True):
                    self._prevails(document, cid)

    def get(self, ids: Sequence[str]) -> list[Document]:
        """The documents of these ids, in their order; ids that nothing is kept under are passed over."""
        found = [list(self._records({"_ref": self._ref("id", each)})) for each in ids]
        return [self._read(records[-1]) for records in found if records]

    def delete(self, ids: Sequence[str]) -> int:
        """Take documents out and return how many there were."""
        return sum(self._delete({"_ref": self._ref("id", each)}) for each in ids)

    def delete_group(self, group: str) -> int:
        """Take all documents of a group out and return how many there were."""
        return self._delete({"_group": self._ref("group", group)})

    def clear(self) -> int:
        """Take all documents of the namespace out; other memories in it stay."""
        return self._delete({})

    def search(self, vector: Sequence[float], k: int, where: Mapping[str, str] | None = None) -> list[Found]:
        """The k documents (at most 100) nearest to a vector, best first.

        Raises ValueError for a filter with a cipher: the node cannot read what it would filter by.
        """
        hits = self._ask(lambda: self._client.calls.query_texts(vector, k, where))
        return [Found(self._read(hit), hit.score) for hit in hits[:k] if "_ref" in hit.metadata]

    def _store(self, batch: Sequence[tuple[Document, Sequence[float]]], *, again: bool = False) -> list[str]:
        items = [self._item(document, vector, secrets.token_hex(8) if again else "") for document, vector in batch]
        results = self._ask(lambda: self._client.calls.ingest_items(items))
        cids = [result for result in results if isinstance(result, str)]
        for (document, _), result in zip(batch, results, strict=True):
            if isinstance(result, NodeRefused):
                raise NodeRefused(f"document {document.id!r} was not kept: {result}")
        return cids

    def _prevails(self, document: Document, cid: str) -> bool:
        """Take out what was kept under the document's id before record `cid`; False when something came after it.

        Nobody takes out what is newer than what they put: else two who put at once would take out each other's.
        """
        records = list(self._records({"_ref": self._ref("id", document.id)}))
        cids = [record.cid for record in records]
        older = cids[: cids.index(cid)] if cid in cids else []
        for each in older:
            self._take_out(each)
        return cids[-1:] == [cid]

    def _item(self, document: Document, vector: Sequence[float], again: str) -> JsonObject:
        clear: JsonObject = {"_ref": self._ref("id", document.id)}
        if document.group is not None:
            clear["_group"] = self._ref("group", document.group)
        blank = "" if document.text.strip() else document.text
        kept = msgspec.json.encode(_Kept(document.id, document.metadata, document.group, blank, again)).decode()
        if self._cipher is not None:
            return {"raw_embedding": floats(vector), "metadata": clear | _sealed(self._cipher, document.text, kept)}
        # The id of a record covers vector and metadata: with the text's digest it covers that too.
        clear |= {"_doc": kept, "_sha256": hashlib.sha256(document.text.encode()).hexdigest()}
        metadata = {key: _plain(value) for key, value in document.metadata.items() if _filterable(key, value)}
        item: JsonObject = {"raw_embedding": floats(vector), "metadata": metadata | clear}
        return item if blank or not document.text else item | {"text": document.text}

    def _read(self, record: StoredText) -> Document:
        sealed = record.metadata.get(encryption.FIELD)
        if isinstance(sealed, str):
            if self._cipher is None:
                raise Undecryptable("the documents here are encrypted: make the client with their cipher")
            memory = encryption.decrypt(self._cipher, sealed)
            document = _document(str(memory.metadata.get("_doc")), memory.text)
        elif self._cipher is not None:
            raise Undecryptable("a document here is not encrypted, so whoever made it had not the cipher")
        else:
            document = _document(str(record.metadata.get("_doc")), record.text or "")
        if record.metadata.get("_ref") != self._ref("id", document.id):
            raise MalformedAnswer(f"the node gave document {document.id!r} as another one, or as one of this namespace")
        return document

    def _delete(self, where: Mapping[str, str]) -> int:
        """What is marked with these; a page at a time, so that nothing is skipped while the list gets shorter."""
        gone, kept = set[str](), 0
        while True:
            page = self._page(kept, where)
            fresh = [record for record in page if record.cid not in gone]
            if page and not fresh:
                raise MalformedAnswer("the node goes on listing what it said that it had deleted")
            for record in fresh:
                if "_ref" in record.metadata and _holds(record, where):
                    self._take_out(record.cid)
                    gone.add(record.cid)
                else:
                    kept += 1
            if len(page) < _PAGE:
                return len(gone)

    def _records(self, where: Mapping[str, str]) -> Iterator[StoredText]:
        """Those that are marked with these, the oldest first. What a node lists besides is not touched."""
        return (record for record in self._page(0, where) if _holds(record, where))

    def _page(self, offset: int, where: Mapping[str, str]) -> list[StoredText]:
        return self._ask(lambda: self._client.calls.page_texts(_PAGE, offset, where))

    def _take_out(self, cid: str) -> None:
        self._ask(lambda: self._client.calls.delete(cid))

    def _ref(self, kind: str, name: str) -> str:
        parts = msgspec.json.encode(["engram-document", kind, self._namespace, name])
        return hashlib.sha256(parts).hexdigest()

    def _ask(self, make: Callable[[], Call[T]]) -> T:
        with self._one_at_a_time:
            return self._client.ask(make())


def new_id() -> str:
    """An id for a document that came without one."""
    return str(uuid.uuid4())


def _document(kept: str, text: str) -> Document:
    try:
        read = wire.decode(kept, _Kept)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedAnswer(f"a record is not as documents are stored: {error}") from None
    return Document(read.id, text or read.blank, read.metadata, read.group)


def _holds(record: StoredText, where: Mapping[str, str]) -> bool:
    return all(record.metadata.get(key) == value for key, value in where.items())


def _sealed(cipher: Cipher, text: str, kept: str) -> JsonObject:
    return {encryption.FIELD: encryption.encrypt(cipher, text, {"_doc": kept})}


def _filterable(key: object, value: object) -> bool:
    return isinstance(key, str) and not key.startswith("_") and isinstance(value, str | int | float)


def _plain(value: object) -> JsonValue:
    return str(value)
