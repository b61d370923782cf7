"""Stores an export in the node of a session that began again empty, and says so to the gateway.

    with open("memory.jsonl", "rb") as file, GatewayClient(url, keypair) as gateway:
        restored = restore_session(gateway, keypair, session_id, read_export(file))

Records keep their CIDs, texts, metadata and validity. They belong to whoever restores them, and count as stored now.
Storing one twice is harmless, so an interrupted restore is simply begun again. A fact (`key`) that the node has learned
since is newer than what was kept: its versions of then are left out, and counted as overtaken. Attestations rest on a
stake and a fresh signature: they are counted, and have to be made again.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import BinaryIO, Final, TypeVar, final

import msgspec

from engram import wire
from engram.api import node as api
from engram.api import node_model as model
from engram.clock import SystemClock
from engram.hotkeys import Keypair, parse_hotkey
from engram.hotkeys.python_json import JsonObject
from engram.memory.model import PUBLIC
from engram.sdk.errors import ApiError, MalformedAnswer, NotReached, OutcomeUnknown, SessionOver
from engram.sdk.export_rules import MAX_LINE_BYTES, Exported
from engram.sdk.gateway import GatewayClient
from engram.sdk.model import Session
from engram.sdk.node import NodeClient
from engram.sdk.node_calls import Call, NodeCalls, checked
from engram.sdk.shamir import Share

T = TypeVar("T")

BATCH: Final = 64
PAGE: Final = 200
"""Versions of a fact that are looked at in one request."""
BATCH_BYTES: Final = 4 * 1024**2
TRIES: Final = 6
LONGEST_PAUSE_S: Final = 30.0
MOST_NAMED: Final = 20
_TAKEN: Final = ("text", "metadata", "model_version", "key", "supersedes", "expires_at", "superseded_by")


class RestoredMemory(msgspec.Struct, frozen=True, kw_only=True):
    """What was stored again. `failures` names the first documents that were not, `failed` counts them all."""

    records: int = 0
    conversations: int = 0
    key_shares: int = 0
    attestations: int = 0
    """To be made again."""
    overtaken: int = 0
    """Records left out, since the node knows something newer under their key."""
    failed: int = 0
    failures: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Return whether nothing was refused; only then the gateway is told that the memory is restored."""
        return self.failed == 0


def restore_session(
    gateway: GatewayClient,
    keypair: Keypair,
    session_id: str,
    documents: Iterable[Exported],
    sleep: Callable[[float], None] = time.sleep,
) -> RestoredMemory:
    """Store `documents` in the session's node, and mark its memory restored when all of them are there.

    Raises SessionOver where no node serves, Impostor where the node is not the session's, what NodeClient raises when
    the node cannot be reached in six tries, and ApiError `not_this_loss` when it lost its memory once more meanwhile.
    """
    session = gateway.get(session_id)
    if session.status not in ("active", "degraded") or not session.node_endpoint or not session.node_hotkey:
        raise SessionOver(f"session {session_id} is {session.status}: no node serves it")
    with NodeClient(session.node_endpoint, keypair, session_id=session_id) as node:
        node.commitment(parse_hotkey(session.node_hotkey))
        restored = _Restoring(node, keypair, session, sleep).run(documents)
    if restored.is_whole and session.emptied_at is not None:
        gateway.mark_restored(session_id, session.emptied_at)
    return restored


def read_export(file: BinaryIO) -> Iterator[Exported]:
    """Yield the documents of a JSON Lines export; lines of another kind are skipped. Raises MalformedAnswer."""
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
        if len(line) > MAX_LINE_BYTES:
            raise MalformedAnswer(f"line {number} of the export has more than {MAX_LINE_BYTES} bytes")
        try:
            fields = wire.decode(line, dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedAnswer(f"line {number} of the export cannot be read: {error}") from None
        kind, document_id = fields.get("kind"), fields.get("id")
        if isinstance(kind, str) and isinstance(document_id, int):
            yield Exported(kind, document_id, fields)


def item_of(fields: dict[str, object]) -> JsonObject:
    """Return an exported record as an item of /IngestBatch.

    >>> item_of({"cid": "v1::a", "text": None, "metadata": {}, "embedding_b64": "AAAA", "owner": "07"})
    {'metadata': {}, 'raw_embedding_b64': 'AAAA'}
    """
    item: JsonObject = {name: wire.convert(fields[name], object) for name in _TAKEN if fields.get(name) is not None}  # type: ignore[misc]  # it was JSON
    return item | {"raw_embedding_b64": str(fields.get("embedding_b64"))}


class _Fact:
    """What the node held of a fact before this restore, and the versions that came by in the export."""

    def __init__(self, held: set[str]) -> None:
        self.held = held
        self.came: set[str] = set()


@final
class _Restoring:
    """One export on its way into one node."""

    def __init__(self, node: NodeClient, keypair: Keypair, session: Session, sleep: Callable[[float], None]) -> None:
        self._node = node
        self._keypair = keypair
        self._session = session
        self._sleep = sleep
        self._calls: dict[str | None, NodeCalls] = {}
        self._waiting: list[dict[str, object]] = []
        self._size = 0
        self._counts: dict[str, int] = dict.fromkeys(
            ("record", "conversation", "key_share", "attestation", "overtaken"), 0
        )
        self._facts: dict[tuple[str, str], _Fact] = {}
        self._failures: list[str] = []
        self._failed = 0

    def run(self, documents: Iterable[Exported]) -> RestoredMemory:
        for document in documents:
            match document.kind:
                case "record":
                    self._add(document.fields)
                case "conversation":
                    self._converse(document.fields)
                case "key_share":
                    self._share(document.fields)
                case "attestation":
                    self._counts["attestation"] += 1
                case _:
                    pass
        self._flush()
        return RestoredMemory(
            records=self._counts["record"],
            conversations=self._counts["conversation"],
            key_shares=self._counts["key_share"],
            attestations=self._counts["attestation"],
            overtaken=self._counts["overtaken"],
            failed=self._failed,
            failures=tuple(self._failures),
        )

    def _add(self, record: dict[str, object]) -> None:
        if record.get("key") is not None and (settled := self._settled(record)) is not None:
            self._counts[settled] += 1
            return
        size = len(msgspec.json.encode(record))
        if self._waiting:
            before = self._waiting[0]["namespace"]
            named = {each.get("cid") for each in self._waiting}  # a node supersedes only what it holds already
            if (
                len(self._waiting) == BATCH
                or self._size + size > BATCH_BYTES
                or record.get("namespace") != before
                or record.get("supersedes") in named
            ):
                self._flush()
        self._waiting.append(record)
        self._size += size

    def _settled(self, record: dict[str, object]) -> str | None:
        """Return how a version of a fact counts that is not to be sent: the node has it, or knows a newer one.

        To store one again would be to say it anew. What the node had of a fact before must have come by in the export.
        """
        namespace, key, cid = str(record["namespace"]), str(record["key"]), str(record["cid"])
        fact = self._facts.get((namespace, key))
        if fact is None:
            fact = self._facts[namespace, key] = _Fact(self._held(namespace, key))
        fact.came.add(cid)
        if cid in fact.held:
            return "record"
        return None if fact.held <= fact.came else "overtaken"

    def _held(self, namespace: str, key: str) -> set[str]:
        """Return the CIDs of all versions of a fact that the node holds."""
        calls, held = self._calls_of(namespace), set[str]()
        while True:
            page = self._patiently(partial(calls.page, PAGE, len(held), None, key))
            held |= {memory.cid for memory in page}
            if len(page) < PAGE:
                return held

    def _flush(self) -> None:
        if not self._waiting:
            return
        records, self._waiting, self._size = self._waiting, [], 0
        refused = self._send(records)
        # what it supersedes was deleted before the export, or refused
        freed = [record for record, _ in refused if record.get("supersedes") is not None]
        again = self._send([record | {"supersedes": None} for record in freed]) if freed else []
        for record, why in [*((each, why) for each, why in refused if each.get("supersedes") is None), *again]:
            self._fail(f"record {record['cid']}: {why}")

    def _send(self, records: list[dict[str, object]]) -> list[tuple[dict[str, object], str]]:
        """Send records of one namespace; return those that were not stored, and why."""
        calls = self._calls_of(str(records[0]["namespace"]))
        items: list[JsonObject] = [item_of(each) for each in records]
        answered = self._patiently(
            lambda: calls.post(api.INGEST_BATCH, {"items": list(items)}, lambda a: checked(a, model.IngestedBatch))
        )
        if len(answered.results) != len(records):
            raise MalformedAnswer(f"the node gave {len(answered.results)} results for {len(records)} records")
        refused: list[tuple[dict[str, object], str]] = []
        for record, result in zip(records, answered.results, strict=True):
            if result.cid == record["cid"]:
                self._counts["record"] += 1
            else:
                why = result.error if result.cid is None else f"it is stored as {result.cid}"
                refused.append((record, why or "the node did not say why"))
        return refused

    def _converse(self, conversation: dict[str, object]) -> None:
        user, name = str(conversation["user_id"]), str(conversation["conv_id"])
        calls = self._calls_of(PUBLIC)
        named: JsonObject = {"user_id": user, "conv_id": name}

        def make() -> Call[model.MadeConversation]:
            fields = named | {"title": str(conversation["title"])}
            return calls.post(api.MAKE_CONVERSATION, fields, lambda a: checked(a, model.MadeConversation))

        def save() -> Call[model.SavedChat]:
            fields = named | {"messages": msgspec.to_builtins(conversation["messages"])}
            return calls.post(api.SAVE_CHAT, fields, lambda a: checked(a, model.SavedChat))

        def put() -> None:
            made = self._patiently(make)
            if made.updated_at == made.created_at:  # else its user has gone on with it, or it was restored before
                self._patiently(save)

        self._try("conversation", f"conversation {name} of {user}", put)

    def _share(self, share: dict[str, object]) -> None:
        calls = self._calls_of(str(share["namespace"]))

        def put() -> None:
            made = Share(wire.convert(share["share_index"], int), bytes.fromhex(str(share["share_hex"])))
            threshold, total = (wire.convert(share[name], int) for name in ("threshold", "total"))
            self._patiently(lambda: calls.put_share(made, threshold, total))

        self._try("key_share", f"key share of {share['namespace']}", put)

    def _try(self, kind: str, name: str, put: Callable[[], None]) -> None:
        try:
            put()
        except ApiError as error:
            self._fail(f"{name}: {error.message}")
        else:
            self._counts[kind] += 1

    def _fail(self, reason: str) -> None:
        self._failed += 1
        if len(self._failures) < MOST_NAMED:
            self._failures.append(reason)

    def _calls_of(self, namespace: str) -> NodeCalls:
        name = None if namespace == PUBLIC else namespace
        if name not in self._calls:
            self._calls[name] = NodeCalls(
                SystemClock(), self._keypair, namespace=name, session_id=self._session.session_id, strict=False
            )
        return self._calls[name]

    def _patiently(self, call: Callable[[], Call[T]]) -> T:
        """Send a call, signed anew each time, until the node answers anything but 429 or 503; six times at most."""
        for attempt in range(1, TRIES):
            pause_s = min(LONGEST_PAUSE_S, 2.0**attempt)
            try:
                return self._node.ask(call())
            except (NotReached, OutcomeUnknown):
                pass
            except ApiError as error:
                if error.status not in (429, 503):
                    raise
                pause_s = min(LONGEST_PAUSE_S, max(pause_s, error.retry_after_s or 0.0))
            self._sleep(pause_s)
        return self._node.ask(call())
