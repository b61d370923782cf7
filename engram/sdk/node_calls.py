"""What a client asks of a node and how it reads the answers; no I/O, so that both clients say the same.

A namespace is signed for in every request, and with a cipher no text leaves the client: there is no way in which
either falls back to the public namespace or to plain text.
"""

import base64
import secrets
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, Generic, Literal, TypeAlias, TypeVar, final
from urllib.parse import quote, urlencode

import msgspec

from engram import wire
from engram.clock import Clock
from engram.hotkeys import Keypair, PublicKey, miner_scheme, ss58, verify
from engram.hotkeys.python_json import JsonObject, JsonValue
from engram.memory import filters, rules
from engram.memory.errors import InvalidInput, InvalidRequest
from engram.memory.proof import keyed_tree, proofs
from engram.sdk import encryption
from engram.sdk.encryption import Cipher, Undecryptable
from engram.sdk.errors import Impostor, MalformedAnswer, NodeRefused
from engram.sdk.model import Hit, Memory
from engram.sdk.shamir import MOST_SHARES, Share
from engram.sdk.transport import Answer, error_of

T = TypeVar("T")
Seen = TypeVar("Seen", Hit, Memory)

Embed = Callable[[str], Sequence[float]]
Where: TypeAlias = Mapping[str, JsonValue]
"""Metadata that must be equal; see engram.memory.filters."""
_CHALLENGE_S = 30
_PUBLIC = "__public__"
_MOST_SHARE_BYTES: Final = 65_536


class Call(msgspec.Struct, Generic[T], frozen=True):
    """A request and how to read its answer."""

    method: str
    path: str
    body: bytes | None
    read: Callable[[Answer], T]


class Commitment(msgspec.Struct, frozen=True):
    """A signed root over a namespace. `built_at` is unix seconds."""

    root_hex: str
    count: int
    built_at: float
    hotkey: str
    signed: str
    signature: str


class _Ingested(msgspec.Struct, frozen=True):
    cid: str | None = None
    error: str | None = None
    text_kept: bool = True
    owner: str | None = None
    owner_reason: str | None = None
    """Miners that do not say whose a record is say no reason either."""

    def outcome(self, item: JsonObject, sender: str | None) -> str | NodeRefused:
        """The content id of what was stored of an item, or why it was not; metadata are always kept whole.

        `sender` is whose it must be; None: anybody's.
        """
        metadata = item.get("metadata")
        if not self.cid:
            return NodeRefused(self.error or "the node stored nothing and did not say why")
        if sender is not None and (self.owner_reason is not None or self.owner not in (None, sender)):
            reason = self.owner_reason or "stored_first_by_other"
            return NodeRefused(
                f"{self.cid} is stored, and belongs to {self.owner or 'nobody'} ({reason}), so you cannot delete it:"
                " sign anew with the clock set right, or store it with metadata of your own. strict=False takes it so",
                code="not_owner",
                cid=self.cid,
                owner=self.owner,
            )
        if self.text_kept or (isinstance(metadata, dict) and metadata.get("text") == item.get("text")):
            return self.cid
        return NodeRefused(
            f"the text was not kept: {self.cid} is there with another text that has the same vector and metadata;"
            " add metadata that tells the two apart"
        )


class _Batch(msgspec.Struct, frozen=True):
    results: list[_Ingested]


class _Found(msgspec.Struct, frozen=True):
    results: list[Hit] = []
    error: str | None = None


class StoredText(msgspec.Struct, frozen=True):
    """A record with the text that it was made from; `score` when it was searched for. Nothing is decrypted."""

    cid: str
    metadata: dict[str, object] = {}
    text: str | None = None
    score: float = 0.0


class _FoundTexts(msgspec.Struct, frozen=True):
    results: list[StoredText] = []
    error: str | None = None


class _Page(msgspec.Struct, frozen=True):
    records: list[Memory]


class Reference(msgspec.Struct, frozen=True):
    """A record that was looked up, and the value by which it was found."""

    cid: str
    value: str


class References(msgspec.Struct, frozen=True):
    """A page of them; `next` is the cursor behind it."""

    records: list[Reference]
    next: str | None = None


class Texts(msgspec.Struct, frozen=True):
    """A page of whole records; `next` is the cursor behind it."""

    records: list[StoredText]
    next: str | None = None


class Listed(msgspec.Struct, frozen=True):
    """A record of a walk. `embedding_hash` is the SHA-256 (hex) of its vector, which the root covers."""

    cid: str
    embedding_hash: str
    metadata: dict[str, object] = {}
    text: str | None = None


class Walked(msgspec.Struct, frozen=True):
    """A page of a walk, and the root that its namespace had; None where it changed faster than it was read."""

    records: list[Listed]
    next: str | None = None
    commitment: Commitment | None = None


class _Share(msgspec.Struct, frozen=True):
    share_index: Annotated[int, msgspec.Meta(ge=1, le=MOST_SHARES)]
    share_hex: Annotated[str, msgspec.Meta(min_length=2, max_length=2 * _MOST_SHARE_BYTES)]
    threshold: Annotated[int, msgspec.Meta(ge=2, le=MOST_SHARES)]
    total: int


class _Deleted(msgspec.Struct, frozen=True):
    deleted: bool


class _DeletedOne(msgspec.Struct, frozen=True):
    deleted: bool
    error: str | None = None
    code: str = ""

    def outcome(self) -> bool | NodeRefused:
        if self.deleted or self.code == "not_found":
            return self.deleted
        return NodeRefused(self.error or "the node deleted nothing and did not say why")


class _DeletedBatch(msgspec.Struct, frozen=True):
    results: list[_DeletedOne]


class _Stored(msgspec.Struct, frozen=True):
    stored: bool = False


class _Possession(msgspec.Struct, frozen=True):
    proof: str
    root_hex: str
    count: int
    signature: str
    inclusion: keyed_tree.Shown


class _Inclusion(msgspec.Struct, frozen=True):
    root_hex: str
    count: int
    signed: str
    signature: str
    proof: str


@final
class NodeCalls:
    """Speaks for one hotkey, in one namespace."""

    def __init__(
        self,
        clock: Clock,
        keypair: Keypair | None = None,
        *,
        namespace: str | None = None,
        cipher: Cipher | None = None,
        embed: Embed | None = None,
        namespace_version: Literal[1, 2] = 2,
        strict: bool = True,
    ) -> None:
        """`embed` makes vectors on this side; a cipher needs it. Version 1 of namespace signatures is for miners of
        the original. A `strict` one that signs has not stored what then belongs to somebody else.

        Raises ValueError for a namespace without a key to sign for it: it would end up public; and for a name that no
        node takes: a text would be sent for nothing.
        """
        if namespace is not None and keypair is None:
            raise ValueError("a private namespace needs the keypair that owns it")
        if namespace in ("", _PUBLIC):
            raise ValueError("name a private namespace, or leave it out for the public one")
        if namespace is not None:
            try:
                rules.check_namespace(namespace)
            except InvalidInput as error:
                raise ValueError(str(error)) from None
        self.namespace = namespace
        self._clock = clock
        self._keypair = keypair
        self.cipher = cipher
        self._embed = embed
        self._version = namespace_version
        self._sender = keypair.ss58 if strict and keypair is not None else None
        self._last_ms = 0

    def told(self, path: str) -> Call[dict[str, object]]:
        """GET something that the node tells of itself."""
        return Call("GET", path, None, lambda answer: checked(answer, dict[str, object]))

    def ingest(self, text: str, metadata: Mapping[str, JsonValue] | None) -> Call[str]:
        """Store a text. Raises ValueError with a cipher and no embedder."""
        return self._ingest(self._item(text, None, metadata or {}))

    def ingest_vector(self, vector: Sequence[float], metadata: Mapping[str, JsonValue] | None) -> Call[str]:
        """Store a vector."""
        return self._ingest(self._item(None, vector, metadata or {}))

    def ingest_batch(self, items: Sequence[tuple[str, Mapping[str, JsonValue]]]) -> Call[list[str | NodeRefused]]:
        """Store up to 256 texts with their metadata."""
        return self.ingest_items([self._item(text, None, metadata) for text, metadata in items])

    def ingest_vectors(
        self, items: Sequence[tuple[Sequence[float], Mapping[str, JsonValue]]]
    ) -> Call[list[str | NodeRefused]]:
        """Store up to 256 vectors with their metadata."""
        return self.ingest_items([self._item(None, vector, metadata) for vector, metadata in items])

    def ingest_items(self, items: Sequence[JsonObject]) -> Call[list[str | NodeRefused]]:
        """Store up to 256 items as they are: who calls this has encrypted what must be."""
        listed: list[JsonValue] = [_packed(item) for item in items]

        def read(answer: Answer) -> list[str | NodeRefused]:
            results = checked(answer, _Batch).results
            if len(results) != len(items):
                raise MalformedAnswer(f"{len(items)} items were sent, the node answered for {len(results)}")
            return [each.outcome(item, self._sender) for each, item in zip(results, items, strict=True)]

        return self._post("IngestBatch", {"items": listed}, read)

    def query(self, text: str, top_k: int, where: Where | None) -> Call[list[Hit]]:
        """Find the nearest memories to a text; it is embedded here when there is an embedder."""
        if self._embed is not None:
            return self.query_vector(self._embed(text), top_k, where)
        if self.cipher is not None:
            raise ValueError(_NEEDS_EMBEDDER)
        return self._query({"query_text": text}, top_k, where)

    def query_texts(self, vector: Sequence[float], top_k: int, where: Where) -> Call[list[StoredText]]:
        """Find the nearest records to a vector, with their texts, by metadata that the node can read."""

        def read(answer: Answer) -> list[StoredText]:
            found = checked(answer, _FoundTexts)
            if found.error:
                raise NodeRefused(found.error)
            return found.results

        fields: JsonObject = {"query_vector": floats(vector), "top_k": top_k}
        return self._post("QuerySynapse", fields | filter_of(where), read)

    def look_up(self, key: str, values: Sequence[str], after: str | None = None) -> Call[References]:
        """Find the ids of the records whose metadata `key` is one of up to 256 values, oldest first."""
        fields: JsonObject = {"key": key, "values": list(values), "whole": False, "after": after}
        return self._post("LookupBatch", fields, lambda answer: checked(answer, References))

    def look_up_texts(self, key: str, values: Sequence[str], after: str | None = None) -> Call[Texts]:
        """The same with texts and metadata; nothing is decrypted."""
        fields: JsonObject = {"key": key, "values": list(values), "after": after}
        return self._post("LookupBatch", fields, lambda answer: checked(answer, Texts))

    def delete_batch(self, cids: Sequence[str]) -> Call[list[bool | NodeRefused]]:
        """Take up to 256 memories out in one request."""

        def read(answer: Answer) -> list[bool | NodeRefused]:
            results = checked(answer, _DeletedBatch).results
            if len(results) != len(cids):
                raise MalformedAnswer(f"{len(cids)} ids were sent, the node answered for {len(results)}")
            return [each.outcome() for each in results]

        return self._post("DeleteBatch", {"cids": list(cids)}, read)

    def walk(self, after: str | None, where: Where | None, *, readable: bool = False) -> Call[Walked]:
        """List by a cursor, oldest first; None begins. `readable` metadata are such as are never encrypted."""
        conditions = filter_of(where or {}) if readable else self._filter(where)
        fields: JsonObject = {"limit": rules.MAX_LIST_LIMIT, "after": after}
        return self._post("list", fields | conditions, lambda answer: checked(answer, Walked))

    def memories(self, found: Sequence[tuple[str, dict[str, object], str | None]]) -> list[Memory]:
        """What came as ids, metadata and texts, decrypted. Raises Undecryptable."""
        return self._opened([Memory(*each) for each in found])

    def require_root(self, node: PublicKey, told: Commitment) -> None:
        """Check a root over the namespace. Raises Impostor."""
        self._require_root(node, told.root_hex, told.count, told.signed, told.signature)

    def query_vector(self, vector: Sequence[float], top_k: int, where: Where | None) -> Call[list[Hit]]:
        """Find the nearest memories to a vector."""
        return self._query({"query_vector": floats(vector)}, top_k, where)

    def page(self, limit: int, offset: int, where: Where | None) -> Call[list[Memory]]:
        """List memories, oldest first."""
        fields: JsonObject = {"limit": limit, "offset": offset}

        def read(answer: Answer) -> list[Memory]:
            return self._opened(checked(answer, _Page).records)

        return self._post("list", fields | self._filter(where), read)

    def get(self, cid: str) -> Call[Memory | None]:
        """One memory; None when the node has none under that id for this hotkey."""
        fields = self._signed("retrieve", {"cid": cid})
        query = urlencode({key: value for key, value in fields.items() if key != "cid"})

        def read(answer: Answer) -> Memory | None:
            if answer.status == 404:
                return None
            found = checked(answer, Memory)
            if found.cid != cid:
                raise MalformedAnswer(f"the node was asked for {cid} and gave {found.cid}")
            return self._decrypted(found)

        return Call("GET", f"/retrieve/{quote(cid, safe='')}" + (f"?{query}" if query else ""), None, read)

    def delete(self, cid: str) -> Call[bool]:
        """Take a memory out; False when there was none."""

        def read(answer: Answer) -> bool:
            return answer.status != 404 and checked(answer, _Deleted).deleted

        body = msgspec.json.encode(self._signed("DeleteSynapse", {"cid": cid}))
        return Call("DELETE", f"/retrieve/{quote(cid, safe='')}", body, read)

    def commitment(self, node: PublicKey) -> Call[Commitment]:
        """The root over the namespace, checked against the node's signature."""
        query = urlencode(self._named("commitment", {}))

        def read(answer: Answer) -> Commitment:
            told = checked(answer, Commitment)
            self._require_root(node, told.root_hex, told.count, told.signed, told.signature)
            return told

        return Call("GET", "/commitment" + (f"?{query}" if query else ""), None, read)

    def prove(self, cid: str, node: PublicKey) -> Call[str | None]:
        """The embedding hash that the node has committed to; None: it has committed to not having the memory."""

        def read(answer: Answer) -> str | None:
            told = checked(answer, _Inclusion)
            self._require_root(node, told.root_hex, told.count, told.signed, told.signature)
            try:
                shown = wire.decode(told.proof, keyed_tree.Shown)
                return keyed_tree.verify(shown, cid, bytes.fromhex(told.root_hex))
            except (ValueError, msgspec.DecodeError, RecursionError) as error:
                raise Impostor(f"the node's proof does not hold: {error}") from error

        return self._post("prove-memory", {"cid": cid}, read)

    def challenge(self, cid: str, embedding: bytes, node: PublicKey) -> Call[bool]:
        """Whether the node has the vector's bytes (f32 little-endian) now, by a proof of the second form."""
        nonce, validator = secrets.token_bytes(32), self._keypair.public_key if self._keypair else bytes(32)
        expires_at = int(self._clock.now()) + _CHALLENGE_S
        fields: JsonObject = {"cid": cid, "nonce_hex": nonce.hex(), "expires_at": expires_at, "version": 2}
        fields["validator_hotkey_hex"] = validator.hex()

        def read(answer: Answer) -> bool:
            if answer.status == 404:
                return False
            told = checked(answer, _Possession)
            try:
                root, signature = bytes.fromhex(told.root_hex), bytes.fromhex(told.signature.removeprefix("0x"))
                name = self.namespace or _PUBLIC
                asked = proofs.Challenge(node, validator, nonce, cid, name, root, told.count, expires_at)
                signed = proofs.transcript(asked) + bytes.fromhex(told.proof)
                held = keyed_tree.verify(told.inclusion, cid, root) == proofs.embedding_hash(embedding)
            except (ValueError, OverflowError):
                return False
            return held and verify(node, signed, signature) and proofs.verify_possession(told.proof, embedding, asked)

        return self._post("ChallengeSynapse", fields, read)

    def export_stream(self, kind: str, after: int) -> Call[None]:
        """Everything behind number `after` of a kind, read as it comes. Raises ValueError without a key."""
        if self._keypair is None:
            raise ValueError("a node gives its memory to its controller alone: make the client with that keypair")
        body = miner_scheme.sign_body(self._keypair, "export-stream", {"kind": kind, "after": after}, self._stamp_ms())
        return Call("POST", "/export-stream", msgspec.json.encode(body), ready)

    def require_whole(self, node: PublicKey, told: Commitment | None) -> None:
        """Check the root over all that a node holds. Raises Impostor."""
        if told is None:
            raise Impostor(f"no commitment of {ss58.encode(node)} came with the export")
        self._require_root(node, told.root_hex, told.count, told.signed, told.signature, name="whole")

    def put_share(self, share: Share, threshold: int, total: int, *, replace: bool = False) -> Call[None]:
        """Leave a share of the namespace's key with the node."""
        fields: JsonObject = {"share_index": share.index, "share_hex": share.data.hex()}
        fields |= {"threshold": threshold, "total": total} | ({"replace": True} if replace else {})

        def read(answer: Answer) -> None:
            if not checked(answer, _Stored).stored:
                raise NodeRefused("the node did not keep the share and did not say why")

        return self._post("KeyShareSynapse", fields, read)

    def get_share(self) -> Call[tuple[Share, int] | None]:
        """The share that was left, with its threshold; None when there is none."""

        def read(answer: Answer) -> tuple[Share, int] | None:
            if answer.status == 404:
                return None
            told = checked(answer, _Share)
            try:
                return Share(told.share_index, bytes.fromhex(told.share_hex)), told.threshold
            except ValueError as error:
                raise MalformedAnswer(f"the node's share could not be read: {error}") from error

        return self._post("KeyShareRetrieve", {}, read)

    def _item(self, text: str | None, vector: Sequence[float] | None, metadata: Mapping[str, JsonValue]) -> JsonObject:
        if vector is None and text is not None and self._embed is not None:
            vector = self._embed(text)
        if self.cipher is not None:
            if vector is None:
                raise ValueError(_NEEDS_EMBEDDER)
            sealed = encryption.encrypt(self.cipher, text or "", metadata)
            return {"raw_embedding": floats(vector), "metadata": {encryption.FIELD: sealed}}
        item: JsonObject = {"metadata": dict(metadata)}
        if text is not None:
            item["text"] = text
        if vector is not None:
            item["raw_embedding"] = floats(vector)
        return item

    def _ingest(self, item: JsonObject) -> Call[str]:
        def read(answer: Answer) -> str:
            outcome = checked(answer, _Ingested).outcome(item, self._sender)
            if isinstance(outcome, NodeRefused):
                raise outcome
            return outcome

        return self._post("IngestSynapse", item, read)

    def _query(self, fields: JsonObject, top_k: int, where: Where | None) -> Call[list[Hit]]:
        def read(answer: Answer) -> list[Hit]:
            found = checked(answer, _Found)
            if found.error:
                raise NodeRefused(found.error)
            return self._opened(found.results)

        return self._post("QuerySynapse", fields | {"top_k": top_k} | self._filter(where), read)

    def _filter(self, where: Where | None) -> JsonObject:
        if where and self.cipher is not None:
            raise ValueError("metadata is encrypted: the node cannot filter by it")
        return filter_of(where or {})

    def _opened(self, found: Sequence[Seen]) -> list[Seen]:
        """As `_decrypted`; what was encrypted for others, or with another key, stays as it is among what was not.

        Raises Undecryptable in a private namespace of which this cipher opens nothing that was found.
        """
        opened: list[Seen] = []
        closed: Undecryptable | None = None
        for each in found:
            try:
                opened.append(self._decrypted(each))
            except Undecryptable as error:
                opened.append(each)
                closed = error
        reads_something = any(after is not before for before, after in zip(found, opened, strict=True))
        if closed is not None and self.namespace is not None and not reads_something:
            raise closed
        return opened

    def _decrypted(self, found: Seen) -> Seen:
        sealed = found.metadata.get(encryption.FIELD)
        if self.cipher is None or not isinstance(sealed, str):
            return found
        memory = encryption.decrypt(self.cipher, sealed)
        metadata = {"text": memory.text, **memory.metadata} if memory.text else memory.metadata
        return msgspec.structs.replace(found, metadata=metadata)

    def _require_root(
        self, node: PublicKey, root_hex: str, count: int, signed: str, signature: str, *, name: str = ""
    ) -> None:
        expected = f"engram-commitment:keyed-1:{name or self.namespace or _PUBLIC}:{root_hex}:{count}:"
        try:
            holds = verify(node, signed.encode(), bytes.fromhex(signature.removeprefix("0x")))
        except ValueError:
            holds = False
        if not holds or not signed.startswith(expected):
            raise Impostor(f"the commitment is not signed by {ss58.encode(node)}")

    def _post(self, endpoint: str, fields: JsonObject, read: Callable[[Answer], T]) -> Call[T]:
        return Call("POST", f"/{endpoint}", msgspec.json.encode(self._signed(endpoint, fields)), read)

    def _signed(self, endpoint: str, fields: JsonObject) -> JsonObject:
        if self._keypair is None:
            return fields
        return miner_scheme.sign_body(self._keypair, endpoint, self._named(endpoint, fields), self._stamp_ms())

    def _named(self, endpoint: str, fields: JsonObject) -> JsonObject:
        if self._keypair is None or self.namespace is None:
            return fields
        if self._version == 1:
            return fields | miner_scheme.sign_namespace(self._keypair, self.namespace, self._stamp_ms())
        return miner_scheme.sign_namespace_request(self._keypair, endpoint, self.namespace, fields, self._stamp_ms())

    def _stamp_ms(self) -> int:
        """Strictly ascending: a node takes one request of a kind a millisecond."""
        self._last_ms = max(int(self._clock.now() * 1000), self._last_ms + 1)
        return self._last_ms


_NEEDS_EMBEDDER = "an encrypted memory needs its vector from this side: give the client `embed`"


def filter_of(where: Where) -> JsonObject:
    """The field of a request that keeps memories by their metadata; none without conditions.

    Raises ValueError for what a node does not understand, naming what it does.
    """
    try:
        filters.parse(where)
    except InvalidRequest as error:
        raise ValueError(str(error)) from None
    return {"filter": dict(where)} if where else {}


def ready(answer: Answer) -> None:
    """Raises ApiError unless an answer is a good one."""
    if answer.status != 200:
        raise error_of(answer)


def checked(answer: Answer, kind: type[T]) -> T:
    """Read a good answer. Raises ApiError, MalformedAnswer."""
    ready(answer)
    try:
        return wire.decode(answer.body, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedAnswer(f"the node's answer could not be read: {error}") from None


def floats(vector: Sequence[float]) -> list[JsonValue]:
    """The numbers as JSON has them; numpy's are others."""
    return [float(number) for number in vector]


def _packed(item: JsonObject) -> JsonObject:
    """An item with its vector as the bytes that are stored: a quarter of the size, a tenth of the node's work."""
    numbers = item.get("raw_embedding")
    if not isinstance(numbers, list):
        return item
    try:
        packed = struct.pack(f"<{len(numbers)}f", *numbers)
    except (struct.error, OverflowError):  # the node says what is wrong with it
        return item
    others = {key: value for key, value in item.items() if key != "raw_embedding"}
    return others | {"raw_embedding_b64": base64.b64encode(packed).decode()}
