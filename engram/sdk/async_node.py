"""The trio client of a memory node: the methods of node.py, awaited. Requests of several tasks run concurrently."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Literal, Self, final

import trio

from engram.api.node_model import Commitment
from engram.clock import Clock, SystemClock
from engram.hotkeys import Keypair, PublicKey
from engram.hotkeys.python_json import JsonValue
from engram.memory.model import Validity
from engram.memory.rules import MAX_BATCH
from engram.sdk.async_transport import AsyncTransport
from engram.sdk.encryption import Cipher
from engram.sdk.errors import NodeRefused, NotReached, OutcomeUnknown
from engram.sdk.export_rules import SILENCE_S, Exported, ExportWalk
from engram.sdk.model import Hit, Memory
from engram.sdk.node_calls import Embed, NodeCalls, Where
from engram.sdk.ranking import Mode, Ranking
from engram.sdk.receipts import CheckedReceipt
from engram.sdk.shamir import Share
from engram.sdk.walk_rules import LookUpWalk, Walk


@final
class AsyncNodeClient:
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
    ) -> None:
        """With a keypair, storing a memory that then belongs to another key, or to none, raises NodeRefused with code
        `not_owner`, unless `strict` is off. Raises ValueError for a namespace without a key to sign for it: it would
        end up public."""
        self._calls = NodeCalls(
            clock or SystemClock(),
            keypair,
            namespace=namespace,
            cipher=cipher,
            embed=embed,
            namespace_version=namespace_version,
            session_id=session_id,
            strict=strict,
        )
        self._transport = AsyncTransport(url, timeout_s=timeout_s)

    @property
    def url(self) -> str:
        """The node's base URL."""
        return self._transport.url

    @property
    def namespace(self) -> str | None:
        """The private namespace that this client signs for; None: the public one."""
        return self._calls.namespace

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def health(self) -> dict[str, object]:
        """Return the node's health and what it holds."""
        return await self._transport.ask(self._calls.document("/health"))

    async def stats(self) -> dict[str, object]:
        """Return vectors, proof rate, latency and block, as the gateway polls them."""
        return await self._transport.ask(self._calls.document("/stats"))

    async def ingest(
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
        return await self._transport.ask(self._calls.ingest(text, metadata, Validity(key, supersedes, expires_at)))

    async def ingest_text(
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
        return await self.ingest(text, shown, key=key, supersedes=supersedes, expires_at=expires_at)

    async def ingest_vector(
        self,
        vector: Sequence[float],
        metadata: Mapping[str, JsonValue] | None = None,
        *,
        key: str | None = None,
        supersedes: str | None = None,
        expires_at: float | None = None,
    ) -> str:
        """Store an embedding made elsewhere; it must have the node's dimension."""
        return await self._transport.ask(
            self._calls.ingest_vector(vector, metadata, Validity(key, supersedes, expires_at))
        )

    async def update(
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
        return await self.ingest(text, metadata, key=key, supersedes=cid, expires_at=expires_at)

    async def history(self, key: str, *, limit: int = 50, offset: int = 0) -> list[Memory]:
        """Return the versions of the fact with this key, oldest first, superseded and expired ones too."""
        return await self._transport.ask(self._calls.page(limit, offset, None, key))

    async def ingest_with_receipt(
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
        return await self._transport.ask(self._calls.ingest_with_receipt(text, node, metadata, validity))

    async def delete_with_receipt(self, cid: str, node: PublicKey) -> CheckedReceipt | None:
        """Delete a memory and return the node's proof that it has it no longer, checked; None when there was none.

        `node` is the node's key. Raises Impostor, and NodeRefused with code `no_receipt` when it is deleted all the
        same.
        """
        return await self._transport.ask(self._calls.delete_with_receipt(cid, node))

    async def ingest_batch(self, items: Sequence[tuple[str, Mapping[str, JsonValue]]]) -> list[str | NodeRefused]:
        """Store up to 256 texts with their metadata; return a content id or a refusal for each."""
        return await self._transport.ask(self._calls.ingest_batch(items))

    async def ingest_vectors(
        self, items: Sequence[tuple[Sequence[float], Mapping[str, JsonValue]]]
    ) -> list[str | NodeRefused]:
        """Store up to 256 embeddings made elsewhere, with their metadata; return a content id or a refusal for each."""
        return await self._transport.ask(self._calls.ingest_vectors(items))

    async def query(
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
        return await self._transport.ask(self._calls.query(text, top_k, where, ranking))

    async def query_vector(
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
        return await self._transport.ask(self._calls.query_vector(vector, top_k, where, ranking))

    async def look_up(self, values: Sequence[str], *, key: str = "_ref") -> list[Memory]:
        """Return the memories whose metadata `key` is one of these values, oldest first: as NodeClient.look_up."""
        lookup = LookUpWalk(self._calls, key, values)
        while not lookup.done:
            lookup.take(await self._transport.ask(lookup.request()))
        return lookup.memories()

    async def delete_batch(self, cids: Sequence[str]) -> list[bool | NodeRefused]:
        """Delete memories, 256 a request; return for each True, False where there was none, or a refusal."""
        outcomes: list[bool | NodeRefused] = []
        for start in range(0, len(cids), MAX_BATCH):
            call = self._calls.delete_batch(cids[start : start + MAX_BATCH])
            answered = await self._transport.ask(call)
            outcomes += answered
        return outcomes

    async def list(self, *, limit: int = 50, offset: int = 0, where: Where | None = None) -> list[Memory]:
        """Return a page of the memories, oldest first; at most 200.

        Deletions shift the later ones: use `walk` to miss none.
        """
        return await self._transport.ask(self._calls.page(limit, offset, where))

    async def get(self, cid: str) -> Memory | None:
        """Return the memory with this content id; None when the node does not hold it (or not for this key)."""
        return await self._transport.ask(self._calls.get(cid))

    async def delete(self, cid: str) -> bool:
        """Delete a memory; return False when there was none."""
        return await self._transport.ask(self._calls.delete(cid))

    async def walk(self, *, where: Where | None = None, node: PublicKey | None = None) -> AsyncGenerator[Memory]:
        """Yield all memories, oldest first, by a cursor that deletions and inserts do not move; as NodeClient.walk."""
        walk = Walk(self._calls, where, node)
        while not walk.done:
            for memory in walk.take(await self._transport.ask(walk.request())):
                yield memory
        walk.check()

    async def commitment(self, node: PublicKey) -> Commitment:
        """Return the signed root over this client's namespace. `node` is the node's key. Raises Impostor."""
        return await self._transport.ask(self._calls.commitment(node))

    async def prove(self, cid: str, node: PublicKey) -> str | None:
        """Return the embedding hash that the node has committed to for this id, None when it committed to having none.

        Raises Impostor.
        """
        return await self._transport.ask(self._calls.prove(cid, node))

    async def challenge(self, cid: str, embedding: bytes, node: PublicKey) -> bool:
        """Return whether the node can read the vector's bytes (f32 little-endian) now; not where it stores them."""
        return await self._transport.ask(self._calls.challenge(cid, embedding, node))

    async def put_share(self, share: Share, threshold: int, total: int, *, replace: bool = False) -> None:
        """Store a share of the namespace's key with the node; a different one is kept unless `replace`."""
        await self._transport.ask(self._calls.put_share(share, threshold, total, replace=replace))

    async def get_share(self) -> tuple[Share, int] | None:
        """Return the stored share and its threshold; None when there is none."""
        return await self._transport.ask(self._calls.get_share())

    @asynccontextmanager
    async def export(
        self, *, after: Exported | None = None, node: PublicKey | None = None
    ) -> AsyncGenerator[AsyncIterator[Exported]]:
        """Everything that the node holds for its controller, document by document, with bounded memory.

            async with client.export() as documents:
                async for document in documents: ...

        As NodeClient.export.
        """
        export = ExportWalk(
            self._calls, after, lambda commitment: None if node is None else self._calls.require_whole(node, commitment)
        )
        async with aclosing(self._exported(export)) as documents:
            yield documents

    async def _exported(self, export: ExportWalk) -> AsyncGenerator[Exported]:
        while not export.done:
            lost: NotReached | OutcomeUnknown | None = None
            try:
                call = export.request()
                async with self._transport.parts(call.path, call.body or b"", silence_s=SILENCE_S) as (answer, parts):
                    export.opened(answer)
                    async for part in parts:
                        for document in export.take(part):
                            yield document
            except (NotReached, OutcomeUnknown) as error:
                lost = error
            if not export.done:
                await trio.sleep(export.lost(lost))
