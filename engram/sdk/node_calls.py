"""A client's requests to a node and the parsing of its answers. Does no I/O, so that both clients share it.

Every request for a namespace is signed, and with a cipher no text leaves the client: neither ever falls back to the
public namespace or to plain text.
"""

import base64
import hashlib
import secrets
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, final
from urllib.parse import urlencode

import msgspec

from engram import wire
from engram.api import node
from engram.api import node_model as model
from engram.api.node_model import Commitment, known
from engram.api.route import Route
from engram.clock import Clock
from engram.hotkeys import Keypair, PublicKey, certificates, miner_scheme, ss58
from engram.hotkeys.certificates import CertificateRefused
from engram.hotkeys.python_json import JsonObject, JsonValue
from engram.memory import filters, rules
from engram.memory.errors import InvalidInput, InvalidRequest
from engram.memory.model import ALWAYS, Validity
from engram.memory.proof import keyed_tree, proofs
from engram.memory.proof.receipts import Deed
from engram.sdk import encryption, receipts
from engram.sdk.encryption import Cipher, Undecryptable
from engram.sdk.errors import Impostor, MalformedAnswer, NodeRefused
from engram.sdk.model import Hit, Memory
from engram.sdk.ranking import BY_COSINE, Ranking
from engram.sdk.receipts import CheckedReceipt
from engram.sdk.shamir import Share
from engram.sdk.transport import Answer, error_of

T = TypeVar("T")
Seen = TypeVar("Seen", Hit, Memory)

Embed = Callable[[str], Sequence[float]]
Where: TypeAlias = Mapping[str, JsonValue]
"""A filter by metadata; see engram.memory.filters."""
_CHALLENGE_S = 30
FRESH_S = 600
"""How far the time of a root may be from the client's clock."""
_PUBLIC = "__public__"


class Call(msgspec.Struct, Generic[T], frozen=True):
    """A request and how to read its answer."""

    method: str
    path: str
    body: bytes | None
    read: Callable[[Answer], T]


@final
class NodeCalls:
    """Makes the calls of one hotkey, in one namespace."""

    def __init__(
        self,
        clock: Clock,
        keypair: Keypair | None = None,
        *,
        namespace: str | None = None,
        cipher: Cipher | None = None,
        embed: Embed | None = None,
        namespace_version: Literal[1, 2] = 2,
        session_id: str | None = None,
        strict: bool = True,
    ) -> None:
        """Take the keys and the embedder; `embed` makes vectors in this client, and a cipher needs it. Version 1 of
        namespace signatures is for miners of the original. With `strict` and a keypair, a memory that ends up with
        another owner counts as not stored. `session_id` is the one that certificates of the node must be of.

        Raises ValueError for a namespace without a key to sign for it, since its memories would be public, and for a
        name that every node refuses.
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
        self._session_id = session_id
        self._sender = keypair.ss58 if strict and keypair is not None else None
        self._last_ms = 0

    def document(self, path: str) -> Call[dict[str, object]]:
        """Get a document that the node publishes about itself."""
        return Call("GET", path, None, lambda answer: checked(answer, dict[str, object]))

    def ingest(self, text: str, metadata: Mapping[str, JsonValue] | None, validity: Validity = ALWAYS) -> Call[str]:
        """Store a text. Raises ValueError with a cipher and no embedder."""
        return self._ingest(self._item(text, None, metadata or {}) | self._validity(validity))

    def ingest_vector(
        self, vector: Sequence[float], metadata: Mapping[str, JsonValue] | None, validity: Validity = ALWAYS
    ) -> Call[str]:
        """Store a vector."""
        return self._ingest(self._item(None, vector, metadata or {}) | self._validity(validity))

    def ingest_batch(self, items: Sequence[tuple[str, Mapping[str, JsonValue]]]) -> Call[list[str | NodeRefused]]:
        """Store up to 256 texts with their metadata."""
        return self.ingest_items([self._item(text, None, metadata) for text, metadata in items])

    def ingest_vectors(
        self, items: Sequence[tuple[Sequence[float], Mapping[str, JsonValue]]]
    ) -> Call[list[str | NodeRefused]]:
        """Store up to 256 vectors with their metadata."""
        return self.ingest_items([self._item(None, vector, metadata) for vector, metadata in items])

    def ingest_items(self, items: Sequence[JsonObject]) -> Call[list[str | NodeRefused]]:
        """Store up to 256 items as they are; the caller has encrypted what must be encrypted."""
        listed: list[JsonValue] = [_packed(item) for item in items]

        def read(answer: Answer) -> list[str | NodeRefused]:
            results = checked(answer, model.IngestedBatch).results
            if len(results) != len(items):
                raise MalformedAnswer(f"{len(items)} items were sent, the node answered for {len(results)}")
            return [_stored(each, item, self._sender) for each, item in zip(results, items, strict=True)]

        return self.post(node.INGEST_BATCH, {"items": listed}, read)

    def query(self, text: str, top_k: int, where: Where | None, ranking: Ranking = BY_COSINE) -> Call[list[Hit]]:
        """Find the nearest memories to a text; it is embedded here when there is an embedder.

        Raises ValueError with a cipher and no embedder, and with a cipher for a mode that looks at words: the node has
        none of encrypted memories.
        """
        if self.cipher is not None and ranking.wants_words:
            raise ValueError(
                f"memories are encrypted: the node cannot search their words, as mode {ranking.mode!r} does"
            )
        if self._embed is not None:
            fields: JsonObject = {"query_vector": floats(self._embed(text))}
            if ranking.wants_words:
                fields["query_text"] = text
            return self._query(fields, top_k, where, ranking)
        if self.cipher is not None:
            raise ValueError(_NEEDS_EMBEDDER)
        return self._query({"query_text": text}, top_k, where, ranking)

    def query_texts(
        self,
        vector: Sequence[float],
        top_k: int,
        where: Where,
        ranking: Ranking = BY_COSINE,
        words: str | None = None,
    ) -> Call[list[model.Hit]]:
        """Find the nearest records to a vector, with their texts, by metadata that the node can read.

        `words` is the query whose words count, for a mode that looks at them.
        """
        fields: JsonObject = {"query_vector": floats(vector), "top_k": top_k}
        if words is not None:
            fields["query_text"] = words
        return self.post(
            node.QUERY, fields | filter_of(where) | ranking.fields(), lambda answer: _found(answer, ranking)
        )

    def look_up(self, key: str, values: Sequence[str], after: str | None = None) -> Call[model.References]:
        """Find the ids of the records whose metadata `key` is one of up to 256 values, oldest first."""
        fields: JsonObject = {"key": key, "values": list(values), "whole": False, "after": after}

        def read(answer: Answer) -> model.References:
            page = checked(answer, model.References)
            if any(known(each.value) is None for each in page.records):
                raise MalformedAnswer("the node did not say which value a record was found by")
            return page

        return self.post(node.LOOK_UP, fields, read)

    def look_up_texts(self, key: str, values: Sequence[str], after: str | None = None) -> Call[model.References]:
        """Find the same records with texts and metadata; nothing is decrypted."""
        fields: JsonObject = {"key": key, "values": list(values), "after": after}
        return self.post(node.LOOK_UP, fields, lambda answer: checked(answer, model.References))

    def delete_batch(self, cids: Sequence[str]) -> Call[list[bool | NodeRefused]]:
        """Delete up to 256 memories in one request."""

        def read(answer: Answer) -> list[bool | NodeRefused]:
            results = checked(answer, model.DeletedBatch).results
            if len(results) != len(cids):
                raise MalformedAnswer(f"{len(cids)} ids were sent, the node answered for {len(results)}")
            return [_deleted(each) for each in results]

        return self.post(node.DELETE_BATCH, {"cids": list(cids)}, read)

    def walk(
        self, after: str | None, where: Where | None, *, readable: bool = False, limit: int = rules.MAX_LIST_LIMIT
    ) -> Call[model.Listing]:
        """List by a cursor, oldest first; None starts. `readable` names metadata that are never encrypted."""
        conditions = filter_of(where or {}) if readable else self._filter(where)
        fields: JsonObject = {"limit": limit, "after": after}
        return self.post(node.LIST, fields | conditions, lambda answer: checked(answer, model.Listing))

    def memories(self, found: Sequence[tuple[str, dict[str, object], str | None]]) -> list[Memory]:
        """Return found records as memories, decrypted. Raises Undecryptable."""
        return self._opened([Memory(*each) for each in found])

    def require_root(self, node: PublicKey, commitment: Commitment) -> None:
        """Check a root over the namespace. Raises Impostor."""
        self._require_root(node, commitment)

    def query_vector(
        self, vector: Sequence[float], top_k: int, where: Where | None, ranking: Ranking = BY_COSINE
    ) -> Call[list[Hit]]:
        """Find the nearest memories to a vector. Raises ValueError for a mode that looks at words."""
        if ranking.wants_words:
            raise ValueError(f"mode {ranking.mode!r} looks at words, and a vector has none: search by a text")
        return self._query({"query_vector": floats(vector)}, top_k, where, ranking)

    def page(self, limit: int, offset: int, where: Where | None, key: str | None = None) -> Call[list[Memory]]:
        """List memories, oldest first; with `key` the versions of that fact alone."""
        fields: JsonObject = {"limit": limit, "offset": offset}
        if key is not None:
            fields["key"] = self._key(key)

        def read(answer: Answer) -> list[Memory]:
            records = checked(answer, model.Listing).records
            if key is not None and any(known(each.key) != fields["key"] for each in records):
                raise NodeRefused("this miner does not know keys: it listed everything", code="not_understood")
            return self._opened([_memory(each) for each in records])

        return self.post(node.LIST, fields | self._filter(where), read)

    def get(self, cid: str) -> Call[Memory | None]:
        """Return one memory; None when the node has none under that id for this hotkey."""
        fields = self._signed(node.RETRIEVE, {"cid": cid})
        query = urlencode({key: value for key, value in fields.items() if key != "cid"})

        def read(answer: Answer) -> Memory | None:
            if answer.status == 404:
                return None
            found = _memory(checked(answer, model.Retrieved))
            if found.cid != cid:
                raise MalformedAnswer(f"the node was asked for {cid} and gave {found.cid}")
            return self._decrypted(found)

        return Call("GET", _target(node.RETRIEVE.url(cid=cid), query), None, read)

    def delete(self, cid: str) -> Call[bool]:
        """Delete a memory; False when there was none."""

        def read(answer: Answer) -> bool:
            return answer.status != 404 and checked(answer, model.Deleted).deleted

        body = msgspec.json.encode(self._signed(node.DELETE, {"cid": cid}))
        return Call("DELETE", node.DELETE.url(cid=cid), body, read)

    def ingest_with_receipt(
        self, text: str, node_key: PublicKey, metadata: Mapping[str, JsonValue] | None, validity: Validity = ALWAYS
    ) -> Call[CheckedReceipt]:
        """Store a text, and check the node's receipt of it. Raises ValueError as `ingest` does."""
        item = self._item(text, None, metadata or {}) | self._validity(validity)

        def read(answer: Answer) -> CheckedReceipt:
            result = checked(answer, model.Ingested)
            outcome = _stored(result, item, self._sender)
            if isinstance(outcome, NodeRefused):
                raise outcome
            owner, key = known(result.owner) or "", str(item.get("key") or "")
            return self._receipt(result.receipt, "stored", outcome, node_key, owner, key)

        return self.post(node.INGEST, item | {"receipt": True}, read)

    def delete_with_receipt(self, cid: str, node_key: PublicKey) -> Call[CheckedReceipt | None]:
        """Delete a memory, and check the node's proof that it has it no longer; None when there was none."""

        def read(answer: Answer) -> CheckedReceipt | None:
            if answer.status == 404 or not checked(answer, model.Deleted).deleted:
                return None
            return self._receipt(checked(answer, model.Deleted).receipt, "deleted", cid, node_key)

        body = msgspec.json.encode(self._signed(node.DELETE, {"cid": cid, "receipt": True}))
        return Call("DELETE", node.DELETE.url(cid=cid), body, read)

    def commitment(self, key: PublicKey) -> Call[Commitment]:
        """Return the root over the namespace, checked against the node's signature."""
        query = urlencode(self._named(node.COMMITMENT, {}))

        def read(answer: Answer) -> Commitment:
            commitment = checked(answer, model.Commitment)
            self._require_root(key, commitment)
            return commitment

        return Call("GET", _target(node.COMMITMENT.path, query), None, read)

    def prove(self, cid: str, key: PublicKey) -> Call[str | None]:
        """Return the embedding hash that the node has committed to; None: it has committed to not having the memory."""

        def read(answer: Answer) -> str | None:
            proved = checked(answer, model.Proved)
            self._require_root(key, proved)
            try:
                shown = wire.decode(proved.proof, keyed_tree.Shown)
                return keyed_tree.verify(shown, cid, bytes.fromhex(proved.root_hex))
            except (ValueError, msgspec.DecodeError, RecursionError) as error:
                raise Impostor(f"the node's proof does not hold: {error}") from error

        return self.post(node.PROVE_MEMORY, {"cid": cid}, read)

    def challenge(self, cid: str, embedding: bytes, key: PublicKey) -> Call[bool]:
        """Return whether the node has the vector's bytes (f32 little-endian) now, by a proof of the second form."""
        nonce, validator = secrets.token_bytes(32), self._keypair.public_key if self._keypair else bytes(32)
        expires_at = int(self._clock.now()) + _CHALLENGE_S
        fields: JsonObject = {"cid": cid, "nonce_hex": nonce.hex(), "expires_at": expires_at, "version": 2}
        fields["validator_hotkey_hex"] = validator.hex()

        def read(answer: Answer) -> bool:
            if answer.status == 404:
                return False
            possession = checked(answer, model.Possession)
            inclusion = _inclusion(possession)
            try:
                root, signature = (
                    bytes.fromhex(possession.root_hex),
                    bytes.fromhex(possession.signature.removeprefix("0x")),
                )
                name = self.namespace or _PUBLIC
                challenge = proofs.Challenge(key, validator, nonce, cid, name, root, possession.count, expires_at)
                signed = proofs.transcript(challenge) + bytes.fromhex(possession.proof)
                held = keyed_tree.verify(inclusion, cid, root) == proofs.embedding_hash(embedding)
            except (ValueError, OverflowError):
                return False
            return (
                held
                and self._is_signed(key, signed, signature, known(possession.certificate))
                and proofs.verify_possession(possession.proof, embedding, challenge)
            )

        return self.post(node.CHALLENGE, fields, read)

    def export_stream(self, kind: str, after: int) -> Call[None]:
        """Return everything behind number `after` of a kind, read as it comes. Raises ValueError without a key."""
        if self._keypair is None:
            raise ValueError("a node gives its memory to its controller alone: make the client with that keypair")
        fields: JsonObject = {"kind": kind, "after": after}
        body = miner_scheme.sign_body(self._keypair, node.EXPORT_STREAM.signed_as, fields, self._stamp_ms())
        return Call("POST", node.EXPORT_STREAM.path, msgspec.json.encode(body), ready)

    def require_whole(self, node: PublicKey, commitment: Commitment | None) -> None:
        """Check the root over all that a node holds. Raises Impostor."""
        if commitment is None:
            raise Impostor(f"no commitment of {ss58.encode(node)} came with the export")
        self._require_root(node, commitment, name="whole")

    def put_share(self, share: Share, threshold: int, total: int, *, replace: bool = False) -> Call[None]:
        """Store a share of the namespace's key with the node."""
        fields: JsonObject = {"share_index": share.index, "share_hex": share.data.hex()}
        fields |= {"threshold": threshold, "total": total} | ({"replace": True} if replace else {})

        def read(answer: Answer) -> None:
            if not checked(answer, model.Kept).stored:
                raise NodeRefused("the node did not keep the share and did not say why")

        return self.post(node.PUT_KEY_SHARE, fields, read)

    def get_share(self) -> Call[tuple[Share, int] | None]:
        """Return the stored share with its threshold; None when there is none."""

        def read(answer: Answer) -> tuple[Share, int] | None:
            if answer.status == 404:
                return None
            share = checked(answer, model.KeyShare)
            try:
                return Share(share.share_index, bytes.fromhex(share.share_hex)), share.threshold
            except ValueError as error:
                raise MalformedAnswer(f"the node's share could not be read: {error}") from error

        return self.post(node.GET_KEY_SHARE, {}, read)

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

    def _validity(self, validity: Validity) -> JsonObject:
        fields: JsonObject = {"supersedes": validity.supersedes, "expires_at": validity.expires_at}
        if validity.key is not None:
            fields["key"] = self._key(validity.key)
        return {name: value for name, value in fields.items() if value is not None}

    def _key(self, key: str) -> str:
        """Return a key as the node sees it: with a cipher as a digest, which only a guess of the key finds again."""
        if self.cipher is None:
            return key
        return hashlib.sha256(msgspec.json.encode(["engram-key", self.namespace, key])).hexdigest()

    def _receipt(
        self,
        given: model.Maybe[model.SignedReceipt | None],
        deed: Deed,
        cid: str,
        node_key: PublicKey,
        owner: str = "",
        key: str = "",
    ) -> CheckedReceipt:
        name, at = self.namespace or _PUBLIC, self._clock.now()
        about = {"owner": owner, "key": key}
        return receipts.checked(given, deed, name, cid, node=node_key, at=at, session_id=self._session_id, **about)

    def _ingest(self, item: JsonObject) -> Call[str]:
        def read(answer: Answer) -> str:
            outcome = _stored(checked(answer, model.Ingested), item, self._sender)
            if isinstance(outcome, NodeRefused):
                raise outcome
            return outcome

        return self.post(node.INGEST, item, read)

    def _query(self, fields: JsonObject, top_k: int, where: Where | None, ranking: Ranking) -> Call[list[Hit]]:
        def read(answer: Answer) -> list[Hit]:
            hits = [
                Hit(each.cid, each.score, each.metadata, each.trust_tier, known(each.text), known(each.relevance))
                for each in _found(answer, ranking)
            ]
            return self._opened(hits)

        fields = fields | {"top_k": top_k} | self._filter(where) | ranking.fields()
        return self.post(node.QUERY, fields, read)

    def _filter(self, where: Where | None) -> JsonObject:
        if where and self.cipher is not None:
            raise ValueError("metadata is encrypted: the node cannot filter by it")
        return filter_of(where or {})

    def _opened(self, found: Sequence[Seen]) -> list[Seen]:
        """Decrypt as `_decrypted` does, but leave memories that were encrypted with another key as they are.

        Raises Undecryptable when this cipher can decrypt none of the memories found in a private namespace.
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

    def _require_root(self, node: PublicKey, root: Commitment | model.Proved, *, name: str = "") -> None:
        require_root(node, root, name or self.namespace or _PUBLIC, self._clock.now(), self._session_id)

    def _is_signed(self, node: PublicKey, message: bytes, signature: bytes, certificate: str | None) -> bool:
        try:
            certificates.require_signed(
                node, message, signature, certificate, at=self._clock.now(), session_id=self._session_id
            )
        except CertificateRefused:
            return False
        return True

    def post(self, route: Route[Any, Any], fields: JsonObject, read: Callable[[Answer], T]) -> Call[T]:
        """Sign a body for a route, in this namespace."""
        return Call("POST", route.path, msgspec.json.encode(self._signed(route, fields)), read)

    def _signed(self, route: Route[Any, Any], fields: JsonObject) -> JsonObject:
        if self._keypair is None:
            return fields
        return miner_scheme.sign_body(self._keypair, route.signed_as, self._named(route, fields), self._stamp_ms())

    def _named(self, route: Route[Any, Any], fields: JsonObject) -> JsonObject:
        if self._keypair is None or self.namespace is None:
            return fields
        if self._version == 1:
            return fields | miner_scheme.sign_namespace(self._keypair, self.namespace, self._stamp_ms())
        return miner_scheme.sign_namespace_request(
            self._keypair, route.signed_as, self.namespace, fields, self._stamp_ms()
        )

    def _stamp_ms(self) -> int:
        """Return a strictly increasing timestamp: a node accepts one request of a kind per millisecond."""
        self._last_ms = max(int(self._clock.now() * 1000), self._last_ms + 1)
        return self._last_ms


def require_root(
    node: PublicKey, root: Commitment | model.Proved, name: str, at: float, session_id: str | None = None
) -> None:
    """Check that the node signed this root over that namespace, by its hotkey or a session key certified at that time.

    `session_id`, where it is known, must be the certificate's. Raises Impostor with the reason, also for a root of long
    ago, which somebody may have kept.
    """
    expected = f"engram-commitment:keyed-1:{name}:{root.root_hex}:{root.count}:"
    try:
        signature = bytes.fromhex(root.signature.removeprefix("0x"))
        certificate = known(root.certificate)
        certificates.require_signed(node, root.signed.encode(), signature, certificate, at=at, session_id=session_id)
    except (ValueError, CertificateRefused) as error:
        raise Impostor(f"the commitment is not signed by {ss58.encode(node)}: {error}") from None
    stamp = root.signed.removeprefix(expected)
    if not root.signed.startswith(expected) or not stamp.isdecimal():
        raise Impostor(f"the commitment that {ss58.encode(node)} signed is another one")
    if abs(int(stamp) / 1000 - at) > FRESH_S:
        raise Impostor(
            f"the commitment of {ss58.encode(node)} was signed at {stamp} ms, more than {FRESH_S} s from now"
        )


_VALIDITY: Final = ("key", "supersedes", "expires_at")
_NEEDS_EMBEDDER = "an encrypted memory needs its vector from this side: give the client `embed`"


def filter_of(where: Where) -> JsonObject:
    """Return the field of a request that keeps memories by their metadata; none without conditions.

    Raises ValueError for an unsupported condition, naming the supported ones.
    """
    try:
        filters.parse(where)
    except InvalidRequest as error:
        raise ValueError(str(error)) from None
    return {"filter": dict(where)} if where else {}


def belongs_to(result: model.Result, sender: str | None) -> bool:
    """Return whether the stored memory is the sender's (None: anyone's), or the miner does not name the owner."""
    return sender is None or (known(result.owner_reason) is None and known(result.owner) in (None, sender))


def keeps_text(result: model.Result) -> bool:
    """Return whether the node keeps the text that was sent."""
    return known(result.text_kept) is not False


def _stored(result: model.Result, item: JsonObject, sender: str | None) -> str | NodeRefused:
    """Return the content id of a stored item, or why it was not stored; metadata are always kept whole.

    `sender` is the required owner; None accepts any.
    """
    metadata, owner = item.get("metadata"), known(result.owner)
    if not result.cid:
        return NodeRefused(result.error or "the node stored nothing and did not say why", code=known(result.code) or "")
    if not belongs_to(result, sender):
        reason = known(result.owner_reason) or "stored_first_by_other"
        return NodeRefused(
            f"{result.cid} is stored, and belongs to {owner or 'nobody'} ({reason}), so you cannot delete it:"
            " sign anew with the clock set right, or store it with metadata of your own. strict=False takes it so",
            code="not_owner",
            cid=result.cid,
            owner=owner,
        )
    if known(result.current) is None and any(item.get(name) is not None for name in _VALIDITY):
        return NodeRefused(
            f"{result.cid} is stored without its key, supersedes and expires_at: this miner does not know them, or it"
            " is another's record",
            code="not_understood",
            cid=result.cid,
        )
    if keeps_text(result) or (isinstance(metadata, dict) and metadata.get("text") == item.get("text")):
        return result.cid
    return NodeRefused(
        f"the text was not kept: {result.cid} is there with another text that has the same vector and metadata;"
        " add metadata that tells the two apart"
    )


def _deleted(result: model.DeletedResult) -> bool | NodeRefused:
    if result.deleted or result.code == "not_found":
        return result.deleted
    return NodeRefused(result.error or "the node deleted nothing and did not say why")


def _found(answer: Answer, ranking: Ranking) -> list[model.Hit]:
    found = checked(answer, model.Found)
    if found.error:
        raise NodeRefused(found.error)
    if not ranking.is_plain and any(known(each.relevance) is None for each in found.results):
        raise NodeRefused("this miner knows neither mode, diversity nor recency: it answered a plain search")
    return found.results


def _memory(record: model.Record) -> Memory:
    return Memory(
        *(record.cid, record.metadata, known(record.text), known(record.key)),
        expires_at=known(record.expires_at),
        superseded_by=known(record.superseded_by),
    )


def _inclusion(possession: model.Possession) -> keyed_tree.Shown:
    try:
        return wire.convert(possession.inclusion, keyed_tree.Shown)
    except msgspec.ValidationError as error:
        raise MalformedAnswer(f"the node's proof could not be read: {error}") from None


def _target(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def ready(answer: Answer) -> None:
    """Raise ApiError unless the answer is a success."""
    if answer.status != 200:
        raise error_of(answer)


def checked(answer: Answer, kind: type[T]) -> T:
    """Decode a successful answer. Raises ApiError, MalformedAnswer."""
    ready(answer)
    try:
        return wire.decode(answer.body, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedAnswer(f"the node's answer could not be read: {error}") from None


def floats(vector: Sequence[float]) -> list[JsonValue]:
    """Return the numbers as Python floats, which JSON can encode; numpy's cannot be."""
    return [float(number) for number in vector]


def _packed(item: JsonObject) -> JsonObject:
    """Return an item with its vector as raw bytes: a quarter of the size, a tenth of the node's work."""
    numbers = item.get("raw_embedding")
    if not isinstance(numbers, list):
        return item
    try:
        packed = struct.pack(f"<{len(numbers)}f", *numbers)
    except (struct.error, OverflowError):  # the node says what is wrong with it
        return item
    others = {key: value for key, value in item.items() if key != "raw_embedding"}
    return others | {"raw_embedding_b64": base64.b64encode(packed).decode()}
