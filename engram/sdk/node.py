"""A client of a memory node (a miner).

    with NodeClient(session.node_endpoint, keypair) as node:
        cid = node.ingest_text("Otters hold hands while they sleep.")
        [best] = node.query("Which animals nap together?", top_k=1)
        print(best.text, best.score)

Blocking; use one client per thread. Requests are signed with the fields of the original Engram's scheme.
"""

from collections.abc import Mapping, Sequence
from typing import Self, TypeVar, final
from urllib.parse import quote

import msgspec

from engram.clock import Clock, SystemClock
from engram.hotkeys import Keypair, miner_scheme
from engram.hotkeys.python_json import JsonObject, JsonValue
from engram.sdk.errors import MalformedAnswer, NodeRefused
from engram.sdk.model import Hit, Memory
from engram.sdk.transport import Answer, Transport, error_of

T = TypeVar("T")


class _Ingested(msgspec.Struct, frozen=True):
    cid: str | None = None
    error: str | None = None


class _Found(msgspec.Struct, frozen=True):
    results: list[Hit] = []
    error: str | None = None


@final
class NodeClient:
    """Speaks for one hotkey to one node; `namespace` makes its memories private to that name."""

    def __init__(
        self,
        url: str,
        keypair: Keypair | None = None,
        *,
        namespace: str | None = None,
        timeout_s: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        """Raises ValueError for a namespace without a key to sign for it: it would end up public."""
        if namespace is not None and keypair is None:
            raise ValueError("a private namespace needs the keypair that owns it")
        self._transport = Transport(url, timeout_s=timeout_s)
        self._keypair = keypair
        self._namespace = namespace
        self._clock = clock or SystemClock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def health(self) -> dict[str, object]:
        """Whether the node is up, and what it holds."""
        return self._get("/health", dict[str, object])

    def stats(self) -> dict[str, object]:
        """Vectors, proof rate, latency and block, as the gateway polls them."""
        return self._get("/stats", dict[str, object])

    def ingest(self, text: str, metadata: Mapping[str, JsonValue] | None = None) -> str:
        """Store the meaning of `text` and return its content id. The text itself is not kept.

        Raises NodeRefused, ApiError, NotReached, OutcomeUnknown (storing the same again is harmless).
        """
        return self._ingest({"text": text, "metadata": dict(metadata or {})})

    def ingest_text(self, text: str, metadata: Mapping[str, JsonValue] | None = None) -> str:
        """Store `text` and keep it as metadata beside its meaning, so that queries return it."""
        return self.ingest(text, {**(metadata or {}), "text": text})

    def ingest_vector(self, vector: Sequence[float], metadata: Mapping[str, JsonValue] | None = None) -> str:
        """Store an embedding made elsewhere; it must have the node's dimension."""
        return self._ingest({"raw_embedding": list(vector), "metadata": dict(metadata or {})})

    def query(self, text: str, *, top_k: int = 10, where: Mapping[str, str] | None = None) -> list[Hit]:
        """The memories nearest in meaning to `text`, best first; `where` keeps those with equal metadata."""
        return self._query({"query_text": text}, top_k, where)

    def query_vector(
        self, vector: Sequence[float], *, top_k: int = 10, where: Mapping[str, str] | None = None
    ) -> list[Hit]:
        """The memories nearest to an embedding, best first."""
        return self._query({"query_vector": list(vector)}, top_k, where)

    def retrieve(self, cid: str) -> Memory | None:
        """The memory of this content id; None when the node does not hold it (or not for you)."""
        answer = self._transport.request("GET", f"/retrieve/{quote(cid, safe='')}")
        if answer.status == 404:
            return None
        return _checked(answer, Memory)

    def _ingest(self, fields: JsonObject) -> str:
        ingested = self._post("IngestSynapse", fields, _Ingested)
        if not ingested.cid:
            raise NodeRefused(ingested.error or "the node stored nothing and did not say why")
        return ingested.cid

    def _query(self, fields: JsonObject, top_k: int, where: Mapping[str, str] | None) -> list[Hit]:
        wanted: JsonObject = {**fields, "top_k": top_k}
        if where:
            wanted["filter"] = dict(where)
        found = self._post("QuerySynapse", wanted, _Found)
        if found.error:
            raise NodeRefused(found.error)
        return found.results

    def _post(self, endpoint: str, fields: JsonObject, kind: type[T]) -> T:
        body: JsonObject = dict(fields)
        if self._keypair is not None:
            now_ms = int(self._clock.now() * 1000)
            if self._namespace is not None:
                body |= miner_scheme.sign_namespace(self._keypair, self._namespace, now_ms)
            body = miner_scheme.sign_body(self._keypair, endpoint, body, now_ms)
        return _checked(self._transport.request("POST", f"/{endpoint}", body=msgspec.json.encode(body)), kind)

    def _get(self, path: str, kind: type[T]) -> T:
        return _checked(self._transport.request("GET", path), kind)


def _checked(answer: Answer, kind: type[T]) -> T:
    if answer.status != 200:
        raise error_of(answer)
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedAnswer(f"the node's answer could not be read: {error}") from None
