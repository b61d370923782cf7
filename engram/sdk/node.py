"""A client of a memory node (a miner).

    with NodeClient(session.node_endpoint, keypair) as node:
        cid = node.ingest_text("Otters hold hands while they sleep.")
        [best] = node.query("Which animals nap together?", top_k=1)
        print(best.text, best.score)

Blocking; use one client per thread (async_node.py is the same for trio). Requests are signed with the fields of the
original Engram's scheme.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, Self, TypeVar, final

from engram.api.node_model import Commitment
from engram.clock import Clock, SystemClock
from engram.hotkeys import Keypair, PublicKey
from engram.hotkeys.python_json import JsonValue
from engram.memory.model import Validity
from engram.memory.rules import MAX_BATCH
from engram.sdk.encryption import Cipher
from engram.sdk.errors import NodeRefused, NotReached, OutcomeUnknown
from engram.sdk.export_rules import SILENCE_S, Exported, ExportWalk
from engram.sdk.model import Hit, Memory
from engram.sdk.node_calls import Call, Embed, NodeCalls, Where
from engram.sdk.ranking import Mode, Ranking
from engram.sdk.receipts import CheckedReceipt
from engram.sdk.shamir import Share
from engram.sdk.transport import Transport
from engram.sdk.walk_rules import LookUpWalk, Walk

T = TypeVar("T")


@final
class NodeClient:
    """Speaks for one hotkey to one node; `namespace` makes its memories private to that name and key.

    With a `cipher` only ciphertext and vectors leave this client, and `embed` makes the vectors. Every method raises
    ApiError, NotReached or OutcomeUnknown, in addition to what it names.
    """

    def __init__(
        self,
        url: str,
        keypair: Keypair | None = None,
        *,
        namespace: str | None = None,
        cipher: Cipher | None = None,
        embed: Embed | None = None,
        namespace_version: Literal[1, 2] = 2,
        session_id: str | None = None,
        strict: bool = True,
        timeout_s: float = 30.0,
        clock: Clock | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """With a keypair, storing a memory that then belongs to another key, or to none, raises NodeRefused with code
        `not_owner`, unless `strict` is off. Raises ValueError for a namespace without a key to sign for it: it would
        end up public."""
        self.calls = NodeCalls(
            clock or SystemClock(),
            keypair,
            namespace=namespace,
            cipher=cipher,
            embed=embed,
            namespace_version=namespace_version,
            session_id=session_id,
            strict=strict,
        )
        self._transport = Transport(url, timeout_s=timeout_s)
        self._sleep = sleep

    @property
    def url(self) -> str:
        """The node's base URL."""
        return self._transport.url

    @property
    def namespace(self) -> str | None:
        """The private namespace that this client signs for; None: the public one."""
        return self.calls.namespace

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def health(self) -> dict[str, object]:
        """Return the node's health and what it holds."""
        return self.ask(self.calls.document("/health"))

    def stats(self) -> dict[str, object]:
        """Return vectors, proof rate, latency and block, as the gateway polls them."""
        return self.ask(self.calls.document("/stats"))

    def ingest(
        self,
        text: str,
        metadata: Mapping[str, JsonValue] | None = None,
        *,
        key: str | None = None,
        supersedes: str | None = None,
        expires_at: float | None = None,
    ) -> str:
        """Store a text and return its content id; the node shows the text only to the key that signed for it.

        A `key` names the fact that it is about: searches no longer find earlier memories with that key, nor the one
        whose content id it `supersedes`, nor this one from `expires_at` (unix seconds) on. Raises NodeRefused; after
        OutcomeUnknown, storing the same again is harmless.
        """
        return self.ask(self.calls.ingest(text, metadata, Validity(key, supersedes, expires_at)))

    def ingest_text(
        self,
        text: str,
        metadata: Mapping[str, JsonValue] | None = None,
        *,
        key: str | None = None,
        supersedes: str | None = None,
        expires_at: float | None = None,
    ) -> str:
        """Store a text, also as metadata: everyone who finds it sees it, even on miners that keep no texts."""
        shown = {**(metadata or {}), "text": text}
        return self.ingest(text, shown, key=key, supersedes=supersedes, expires_at=expires_at)

    def ingest_vector(
        self,
        vector: Sequence[float],
        metadata: Mapping[str, JsonValue] | None = None,
        *,
        key: str | None = None,
        supersedes: str | None = None,
        expires_at: float | None = None,
    ) -> str:
        """Store an embedding made elsewhere; it must have the node's dimension."""
        return self.ask(self.calls.ingest_vector(vector, metadata, Validity(key, supersedes, expires_at)))

    def update(
        self,
        cid: str,
        text: str,
        metadata: Mapping[str, JsonValue] | None = None,
        *,
        key: str | None = None,
        expires_at: float | None = None,
    ) -> str:
        """Store a text in place of a memory, which searches then no longer find; return the new content id.

        The old one stays until it is deleted. Raises NodeRefused when it is not this client's.
        """
        return self.ingest(text, metadata, key=key, supersedes=cid, expires_at=expires_at)

    def history(self, key: str, *, limit: int = 50, offset: int = 0) -> list[Memory]:
        """Return the versions of the fact with this key, oldest first, superseded and expired ones too."""
        return self.ask(self.calls.page(limit, offset, None, key))

    def ingest_with_receipt(
        self,
        text: str,
        node: PublicKey,
        metadata: Mapping[str, JsonValue] | None = None,
        *,
        key: str | None = None,
        supersedes: str | None = None,
        expires_at: float | None = None,
    ) -> CheckedReceipt:
        """Store a text and return the node's receipt, checked: whose it is, its key, and a root that it is under.

        `node` is the node's key. Raises Impostor when the receipt does not hold, NodeRefused with code `not_owner` when
        the memory is not this client's, with code `no_receipt` when it is stored and the node signed nothing.
        """
        validity = Validity(key, supersedes, expires_at)
        return self.ask(self.calls.ingest_with_receipt(text, node, metadata, validity))

    def delete_with_receipt(self, cid: str, node: PublicKey) -> CheckedReceipt | None:
        """Delete a memory and return the node's proof that it has it no longer, checked; None when there was none.

        `node` is the node's key. Raises Impostor, and NodeRefused with code `no_receipt` when it is deleted all the
        same.
        """
        return self.ask(self.calls.delete_with_receipt(cid, node))

    def ingest_batch(self, items: Sequence[tuple[str, Mapping[str, JsonValue]]]) -> list[str | NodeRefused]:
        """Store up to 256 texts with their metadata; return a content id or a refusal for each."""
        return self.ask(self.calls.ingest_batch(items))

    def ingest_vectors(
        self, items: Sequence[tuple[Sequence[float], Mapping[str, JsonValue]]]
    ) -> list[str | NodeRefused]:
        """Store up to 256 embeddings made elsewhere, with their metadata; return a content id or a refusal for each."""
        return self.ask(self.calls.ingest_vectors(items))

    def query(
        self,
        text: str,
        *,
        top_k: int = 10,
        where: Where | None = None,
        mode: Mode | None = None,
        diversity: float = 0.0,
        recency_s: float | None = None,
        history: bool = False,
    ) -> list[Hit]:
        """Return the memories nearest in meaning to `text`, best first; `where` keeps those that meet a filter.

        With `mode` `vector` all of a long text is found, with `words` names and identifiers are, with `hybrid` both.
        `diversity` (0 to 1) shows less of what says the same, `recency_s`, a half-life, prefers what is newer, and
        `history` shows what was superseded or has expired too. Raises ValueError, NodeRefused.
        """
        ranking = Ranking(mode, diversity, recency_s, history)
        return self.ask(self.calls.query(text, top_k, where, ranking))

    def query_vector(
        self,
        vector: Sequence[float],
        *,
        top_k: int = 10,
        where: Where | None = None,
        mode: Mode | None = None,
        diversity: float = 0.0,
        recency_s: float | None = None,
        history: bool = False,
    ) -> list[Hit]:
        """Return the memories nearest to an embedding, best first; modes that look at words raise ValueError."""
        ranking = Ranking(mode, diversity, recency_s, history)
        return self.ask(self.calls.query_vector(vector, top_k, where, ranking))

    def look_up(self, values: Sequence[str], *, key: str = "_ref") -> list[Memory]:
        """Return the memories whose metadata `key` is one of these values, oldest first; 256 values a request.

        Keys `_ref` and `_group` are looked up in an index, others by scanning the namespace.
        """
        lookup = LookUpWalk(self.calls, key, values)
        while not lookup.done:
            lookup.take(self.ask(lookup.request()))
        return lookup.memories()

    def delete_batch(self, cids: Sequence[str]) -> list[bool | NodeRefused]:
        """Delete memories, 256 a request; return for each True, False where there was none, or a refusal."""
        outcomes: list[bool | NodeRefused] = []
        for start in range(0, len(cids), MAX_BATCH):
            call = self.calls.delete_batch(cids[start : start + MAX_BATCH])
            answered = self.ask(call)
            outcomes += answered
        return outcomes

    def list(self, *, limit: int = 50, offset: int = 0, where: Where | None = None) -> list[Memory]:
        """Return a page of the memories, oldest first; at most 200.

        Deletions shift the later ones: use `walk` to miss none.
        """
        return self.ask(self.calls.page(limit, offset, where))

    def get(self, cid: str) -> Memory | None:
        """Return the memory with this content id; None when the node does not hold it (or not for this key)."""
        return self.ask(self.calls.get(cid))

    def delete(self, cid: str) -> bool:
        """Delete a memory; return False when there was none."""
        return self.ask(self.calls.delete(cid))

    def walk(self, *, where: Where | None = None, node: PublicKey | None = None) -> Iterator[Memory]:
        """Yield all memories, oldest first, by a cursor that deletions and inserts do not move.

        With `node`, the node's key, the walk ends with ListingIncomplete unless the listing matches the node's
        commitment, and with Impostor unless the node signed that; an end without either proves that nothing was left
        out.
        """
        walk = Walk(self.calls, where, node)
        while not walk.done:
            yield from walk.take(self.ask(walk.request()))
        walk.check()

    def commitment(self, node: PublicKey) -> Commitment:
        """Return the signed root over this client's namespace. `node` is the node's key. Raises Impostor."""
        return self.ask(self.calls.commitment(node))

    def prove(self, cid: str, node: PublicKey) -> str | None:
        """Return the embedding hash that the node has committed to for this id, None when it committed to having none.

        Raises Impostor.
        """
        return self.ask(self.calls.prove(cid, node))

    def challenge(self, cid: str, embedding: bytes, node: PublicKey) -> bool:
        """Return whether the node can read the vector's bytes (f32 little-endian) now; not where it stores them."""
        return self.ask(self.calls.challenge(cid, embedding, node))

    def put_share(self, share: Share, threshold: int, total: int, *, replace: bool = False) -> None:
        """Store a share of the namespace's key with the node; a different one is kept unless `replace`."""
        self.ask(self.calls.put_share(share, threshold, total, replace=replace))

    def get_share(self) -> tuple[Share, int] | None:
        """Return the stored share and its threshold; None when there is none."""
        return self.ask(self.calls.get_share())

    def export(self, *, after: Exported | None = None, node: PublicKey | None = None) -> Iterator[Exported]:
        """Yield everything that the node holds for its controller, document by document, with bounded memory.

        Requires the key that controls the node. Reconnects and resumes after a lost connection; after an interruption
        pass the last document received as `after`. `node` is the node's key, with which it must have signed
        the end. Raises ApiError (403: not the controller; 503: two exports at once), MalformedAnswer, Impostor,
        NotReached, OutcomeUnknown, ValueError without a keypair.
        """
        export = ExportWalk(
            self.calls, after, lambda commitment: None if node is None else self.calls.require_whole(node, commitment)
        )
        while not export.done:
            lost: NotReached | OutcomeUnknown | None = None
            try:
                call = export.request()
                with self._transport.parts(call.path, call.body or b"", silence_s=SILENCE_S) as (answer, parts):
                    export.opened(answer)
                    for part in parts:
                        yield from export.take(part)
            except (NotReached, OutcomeUnknown) as error:
                lost = error
            if not export.done:
                self._sleep(export.lost(lost))

    def ask(self, call: Call[T]) -> T:
        """Send a call and read its answer."""
        return call.read(self._transport.request(call.method, call.path, body=call.body))
